/* shoal bench KIND: measuring speed. The table of kinds, and arithmetic that they share. */
#include "cli/bench.h"

#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum err (*run)(int argc, char **argv, struct error *e);
    const char *what;
} kinds[] = {
    {"model", bench_model, "prefill and decode of a model, here or on a cluster"},
    {"latency", bench_latency, "the first token, and the pace of streams beside a long prompt"},
    {"kernels", bench_kernels, "the operations of a forward pass one by one"},
};

enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static enum err print_kinds(void)
{
    printf("usage: shoal bench KIND [arguments]   (shoal bench KIND --help for more)\n\n");
    for (int i = 0; i < N_KINDS; i++)
        printf("  %-10s %s\n", kinds[i].name, kinds[i].what);
    return ERR_CANCELLED;
}

enum err verb_bench(int argc, char **argv, struct error *e)
{
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0))
        return print_kinds();
    for (int i = 0; argc > 0 && i < N_KINDS; i++)
        if (strcmp(argv[0], kinds[i].name) == 0)
            return kinds[i].run(argc - 1, argv + 1, e);
    char names[128] = "";
    for (int i = 0; i < N_KINDS; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s\"bench %s\"",
                 i > 0 ? " or " : "", kinds[i].name);
    return error_set(e, ERR_USAGE, "expected %s, found \"%s%s\"", names,
                     argc > 0 ? "bench " : "bench", argc > 0 ? argv[0] : "");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

json_t *bench_spread_json(double *values, int n)
{
    if (n == 0)
        return json_null();
    double median = bench_median(values, n);
    return json_pack("{s:f, s:f, s:f, s:i}", "median", median, "min", values[0], "max",
                     values[n - 1], "repetitions", n);
}

bool bench_probes_agree(double before, double after)
{
    return fabs(before - after) <= 0.05 * fmax(before, after);
}

enum err bench_number_list(const char *flag, const char *text, int most, int *numbers, int *n,
                           struct error *e)
{
    *n = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long value = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : 0;
        if (value < 1 || value > most || errno != 0 || (*end != ',' && *end != '\0'))
            return error_set(e, ERR_USAGE,
                             "%s: expected numbers from 1 to %d as \"1,2,4\", found \"%.60s\"",
                             flag, most, text);
        if (*n == BENCH_MAX_LIST)
            return error_set(e, ERR_USAGE, "%s: expected at most %d numbers", flag, BENCH_MAX_LIST);
        numbers[(*n)++] = (int)value;
        at = end;
        if (*at == '\0')
            return OK;
    }
}
