/* Command-line flags: a table per verb, read into variables.
 *
 * "--name VALUE", "--name=VALUE" and, for one-letter names, "-n VALUE". Everything else that does
 * not begin with '-' (and a lone "-", and everything after "--") is a positional argument; the
 * value of a flag may begin with '-'. A flag given twice has its last value. Each value is checked
 * against its kind and range; the error names the flag, what is expected and what was found. */
#ifndef SHOAL_CLI_FLAGS_H
#define SHOAL_CLI_FLAGS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum flag_kind {
    FLAG_BOOL,   /* bool: present */
    FLAG_INT,    /* int, min … max */
    FLAG_FLOAT,  /* float, min … max */
    FLAG_U64,    /* uint64_t */
    FLAG_STRING, /* const char * into argv */
    FLAG_CHOICE, /* int: index of the value in `choices` */
};

struct flag {
    const char *name; /* "temp" is --temp, "n" is -n */
    enum flag_kind kind;
    void *value;         /* what the kind says; keeps its default when absent */
    const char *operand; /* "N", "H:P": for the help */
    const char *help;
    double min, max;            /* FLAG_INT, FLAG_FLOAT */
    const char *const *choices; /* FLAG_CHOICE, ends with NULL */
    bool *given;                /* NULL or set when present */
};

struct verb_usage {
    const char *verb;         /* "run" */
    const char *synopsis;     /* "MODEL -p TEXT [flags]" */
    const char *what;         /* one sentence */
    const struct flag *flags; /* ends with name NULL */
    int min_args, max_args;   /* positional */
};

/* Parse argv[0 … argc) (after the verb). Positional arguments go to args[max_args], their count
 * to *n_args. ERR_USAGE with the reason; ERR_CANCELLED, and *e left alone, when --help or -h was
 * asked for (and printed). */
enum err flags_parse(const struct verb_usage *usage, int argc, char **argv, const char **args,
                     int *n_args, struct error *e);

void flags_help(const struct verb_usage *usage, FILE *to);

#endif
