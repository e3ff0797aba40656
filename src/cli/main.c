/* shoal: one binary, one verb a file. Exit status 0, 1 (failed), 64 (wrong usage). */
#include "cli/cli.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 64 };

static const struct {
    const char *name;
    verb_fn run;
    const char *what;
} verbs[] = {
    {"run", verb_run, "generate text, on this machine or a cluster"},
    {"serve", verb_serve, "OpenAI-compatible API; this node leads a cluster"},
    {"worker", verb_worker, "lend this machine to a cluster"},
    {"plan", verb_plan, "which node gets which layers, before anything is loaded"},
    {"inspect", verb_inspect, "what is in a model file"},
    {"tokenize", verb_tokenize, "text to token ids and back"},
    {"template", verb_template, "render a chat template"},
    {"eval", verb_eval, "perplexity of a text, or the most likely next tokens"},
    {"top", verb_top, "what a running server does: a live view"},
    {"bench", verb_bench, "measure speed (bench model, bench kernels)"},
};

static void print_help(FILE *to)
{
    fprintf(to, "usage: shoal VERB [arguments]   (shoal VERB --help for more)\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].what);
    fprintf(to,
            "\nshoal %s. SHOAL_LOG (error, warn, info, debug) sets how much is told on stderr, "
            "SHOAL_CPU\n(ref, avx2, avx512; neon, dotprod, i8mm) holds the instruction set down.\n",
            SHOAL_VERSION);
}

/* A program may be started with standard streams closed. The next file or socket opened would get
 * such a number, and results or messages would be written into it: so the numbers are taken.
 * Standard output stays one that cannot be written to. */
static void take_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
}

/* What was printed may still fail to be written: all of it must have been. */
static enum err finish_output(struct error *e)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set(e, ERR_IO, "writing to standard output failed");
    return OK;
}

static int report(const char *verb, enum err err, const struct error *e)
{
    if (err == OK)
        return 0;
    if (isatty(STDERR_FILENO))
        fputs("\r\x1b[K", stderr); /* where a progress bar may stand */
    fprintf(stderr, "shoal%s%s: %s\n", verb[0] != 0 ? " " : "", verb,
            e->text[0] != 0 ? e->text : err_text(err));
    return err == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

static int run_verb(verb_fn run, const char *name, int argc, char **argv)
{
    struct error e = {OK, ""};
    enum err err = log_init(&e);
    if (err == OK)
        err = run(argc, argv, &e);
    if (err == ERR_CANCELLED && e.text[0] == 0)
        err = OK; /* --help: flags_parse */
    if (err == OK)
        err = finish_output(&e);
    return report(name, err, &e);
}

int main(int argc, char **argv)
{
    struct error e = {OK, ""};
    signal(SIGPIPE, SIG_IGN); /* a closed connection or pipe is an error of the write */
    take_standard_streams();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return report("", finish_output(&e), &e);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("shoal %s\n", SHOAL_VERSION);
        return report("", finish_output(&e), &e);
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return run_verb(verbs[i].run, verbs[i].name, argc - 2, argv + 2);
    error_set(&e, ERR_USAGE, "unknown verb \"%s\" (shoal --help lists them)", argv[1]);
    return report("", ERR_USAGE, &e);
}
