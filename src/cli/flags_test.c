#include "cli/flags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    bool json;
    int n, kv;
    float temp;
    uint64_t seed;
    const char *prompt;
} got;

static const char *const kv_names[] = {"f16", "f32", NULL};
static const struct flag table[] = {
    {"json", FLAG_BOOL, &got.json, NULL, "print JSON"},
    {"n", FLAG_INT, &got.n, "N", "how many", .min = 0, .max = 100},
    {"temp", FLAG_FLOAT, &got.temp, "T", "temperature", .min = 0, .max = 10},
    {"seed", FLAG_U64, &got.seed, "S", "seed"},
    {"p", FLAG_STRING, &got.prompt, "TEXT", "prompt"},
    {"big", FLAG_INT, &got.n, "N", "how many", .min = 1, .max = 1 << 24},
    {"kv", FLAG_CHOICE, &got.kv, "TYPE", "kv type", .choices = kv_names},
    {0},
};
static const struct verb_usage usage = {"run", "MODEL", "Runs.", table, 1, 1};

static enum err parse(struct error *e, const char *const *words)
{
    int argc = 0, n_args;
    const char *args[1];
    while (words[argc] != NULL)
        argc++;
    memset(&got, 0, sizeof got);
    return flags_parse(&usage, argc, (char **)(void *)words, args, &n_args, e);
}

#define PARSE(e, ...) parse(e, (const char *const[]){__VA_ARGS__, NULL})

static void values_arrive(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NULL, "m.gguf", "-n", "7", "--temp=0.5", "-p", "-x", "--json", "--kv",
                           "f32", "--seed", "18446744073709551615"),
                     OK);
    assert_int_equal(got.n, 7);
    assert_true(got.temp == 0.5f);
    assert_string_equal(got.prompt, "-x");
    assert_true(got.json);
    assert_int_equal(got.kv, 1);
    assert_true(got.seed == UINT64_MAX);
    assert_int_equal(PARSE(NULL, "--", "--json"), OK);
    assert_false(got.json);
    assert_int_equal(PARSE(NULL, "-", "-n", "1", "-n=2", "-p=", "--temp", "1e-1"), OK);
    assert_int_equal(got.n, 2);
    assert_string_equal(got.prompt, "");
    assert_true(got.temp == 0.1f);
}

static void refused(const char *reason, const char *const *words)
{
    struct error e;
    assert_int_equal(parse(&e, words), ERR_USAGE);
    assert_string_equal(e.text, reason);
}

#define REFUSED(reason, ...) refused(reason, (const char *const[]){__VA_ARGS__, NULL})

static void mistakes_are_named(void **state)
{
    (void)state;
    REFUSED("-n: expected a whole number from 0 to 100, found \"x\"", "m", "-n", "x");
    REFUSED("-n: expected a whole number from 0 to 100, found \"1.5\"", "m", "-n", "1.5");
    REFUSED("-n: expected a whole number from 0 to 100, found \"101\"", "m", "-n", "101");
    REFUSED("-n: expected a whole number from 0 to 100, found \"0x1\"", "m", "-n", "0x1");
    REFUSED("-n: expected a whole number from 0 to 100, found \"?1\"", "m", "-n", "\t1");
    REFUSED("-n: expected a whole number from 0 to 100, found \"\"", "m", "-n=");
    REFUSED("--seed: expected a number from 0 to 2^64-1, found \"18446744073709551616\"", "m",
            "--seed", "18446744073709551616");
    REFUSED("--big: expected a whole number from 1 to 16777216, found \"0\"", "m", "--big", "0");
    REFUSED("-n: expected a value (N)", "m", "-n");
    REFUSED("--temp: expected a number from 0 to 10, found \"nan\"", "m", "--temp", "nan");
    REFUSED("--kv: expected f16 or f32, found \"q8\"", "m", "--kv=q8");
    REFUSED("--seed: expected a number from 0 to 2^64-1, found \"-1\"", "m", "--seed", "-1");
    REFUSED("--json: takes no value, found \"1\"", "m", "--json=1");
    REFUSED("unknown flag --frob (shoal run --help lists them)", "m", "--frob=3");
    REFUSED("unknown flag --n (shoal run --help lists them)", "m", "--n", "3");
    REFUSED("unknown flag -json (shoal run --help lists them)", "m", "-json");
    REFUSED("unexpected argument \"b\" (usage: shoal run MODEL)", "a", "b");
    REFUSED("too few arguments (usage: shoal run MODEL)", "--json");
}

/* Text goes to stdout, the error stays empty: main tells --help from a failure by that. */
static void help_is_no_error(void **state)
{
    (void)state;
    struct error e = {OK, ""};
    char text[4096];
    FILE *file = tmpfile();
    int kept = dup(STDOUT_FILENO);
    assert_true(file != NULL && kept >= 0);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    enum err err = PARSE(&e, "--json", "--help");
    enum err short_err = PARSE(&e, "-h");
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    assert_int_equal(err, ERR_CANCELLED);
    assert_int_equal(short_err, ERR_CANCELLED);
    assert_string_equal(e.text, "");
    assert_non_null(strstr(text, "usage: shoal run MODEL\n\nRuns.\n\n"));
    assert_non_null(strstr(text, "  --temp T                 temperature\n"));
    assert_int_equal(PARSE(&e, "m", "-p", "--help"), OK); /* a value */
    assert_string_equal(got.prompt, "--help");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(help_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
