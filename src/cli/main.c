/* shoal: one binary, one verb a file. Exit status 0, 1 (failed), 64 (wrong usage). */
#include "cli/cli.h"

#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

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
    {"bench", verb_bench, "measure speed (bench model)"},
};

static void print_help(FILE *to)
{
    fprintf(to, "usage: shoal VERB [arguments]   (shoal VERB --help for more)\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].what);
    fprintf(to, "\nshoal %s. SHOAL_LOG (error, warn, info, debug) sets how much is told on stderr, "
                "SHOAL_CPU\n(ref, avx2, avx512) holds the instruction set down.\n",
            SHOAL_VERSION);
}

static int run_verb(verb_fn run, const char *name, int argc, char **argv)
{
    struct error e = {OK, ""};
    enum err err = log_init(&e);
    if (err == OK)
        err = run(argc, argv, &e);
    if (err == OK && fflush(stdout) != 0)
        err = error_set(&e, ERR_IO, "writing to standard output failed");
    if (err == OK || err == ERR_CANCELLED)
        return 0;
    fprintf(stderr, "shoal %s: %s\n", name, e.text[0] != 0 ? e.text : err_text(err));
    return err == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a closed connection or pipe is an error of the write */
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("shoal %s\n", SHOAL_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return run_verb(verbs[i].run, verbs[i].name, argc - 2, argv + 2);
    fprintf(stderr, "shoal: unknown verb \"%s\" (shoal --help lists them)\n", argv[1]);
    return EXIT_USAGE;
}
