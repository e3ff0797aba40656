/* shoal bench kernels: the operations of a forward pass one at a time, over shapes, types and
 * instruction sets, beside what the machine can do at most.
 *
 * The limit of a case is the time that it needs at least: its bytes at the read bandwidth or its
 * arithmetic at the rate of the instruction that the kernels' set has for it, whichever is longer.
 * The fraction is that over the time measured. Whichever limits is probed just before and just
 * after the case; where the two differ too much the fraction is marked. Data in caches may beat it.
 */
#include "backend/backend.h"
#include "base/bounds.h"
#include "base/clock.h"
#include "bench/kernel_bench.h"
#include "bench/probe.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TYPES = 16, MAX_SHAPES = 16, MAX_ISAS = 8, NAME_BYTES = 24 };

/* The matrices of a model: outputs x inputs. */
struct matrix_shape {
    int n_rows, n_cols;
};

/* What a --shape stands for. */
struct shape {
    const char *name;
    int hidden, ffn, n_heads, n_kv_heads, head_size;
    struct matrix_shape matrices[MAX_SHAPES];
    int n_matrices;
};

static const struct shape named_shapes[] = {
    {"1b",
     2048,
     8192,
     32,
     8,
     64,
     {{2048, 2048}, {512, 2048}, {8192, 2048}, {2048, 8192}, {128256, 2048}},
     5},
    {"8b",
     4096,
     14336,
     32,
     8,
     128,
     {{4096, 4096}, {1024, 4096}, {14336, 4096}, {4096, 14336}, {128256, 4096}},
     5},
};
enum { N_NAMED = sizeof named_shapes / sizeof named_shapes[0] };

/* A model asks the head for a few rows of a step only. */
enum { HEAD_ROWS = 100000, HEAD_MOST = 16 };

struct kernels_flags {
    const char *ops, *types, *isas, *shape, *rows, *positions;
    int threads, least_ms;
    bool json;
};

/* The flags, understood. */
struct choice {
    bool ops[N_KERNEL_OPS];
    enum dtype types[MAX_TYPES];
    int n_types;
    char isas[MAX_ISAS][NAME_BYTES];
    int n_isas;
    struct shape shape;
    int rows[BENCH_MAX_LIST], n_rows;
    int positions[BENCH_MAX_LIST], n_positions;
};

struct session {
    const struct kernels_flags *flags;
    const struct choice *choice;
    const char *isa;
    struct kernel_bench *bench;
    struct probe *probe;
    double read_gb_s, dot_gop_s, fma_gop_s; /* when the session began */
    json_t *list;                           /* NULL: text */
};

/* --- the flags --- */

/* Copy the next word of a list that commas or spaces divide; false at its end. */
static bool next_word(const char **list, char word[NAME_BYTES])
{
    *list += strspn(*list, ", ");
    size_t n = strcspn(*list, ", ");
    snprintf(word, NAME_BYTES, "%.*s", (int)(n < NAME_BYTES ? n : NAME_BYTES - 1), *list);
    *list += n;
    return n > 0;
}

static enum err choose_ops(const char *list, struct choice *c, struct error *e)
{
    char word[NAME_BYTES];
    while (next_word(&list, word)) {
        int i = 0;
        while (i < N_KERNEL_OPS && strcmp(kernel_op_names[i], word) != 0)
            i++;
        if (i == N_KERNEL_OPS)
            return error_set(
                e, ERR_USAGE,
                "--op: expected matmul, ffn, attention, rms_norm, silu_mul, add or rope, "
                "found \"%s\"",
                word);
        c->ops[i] = true;
    }
    return OK;
}

static enum err choose_types(const char *list, struct choice *c, struct error *e)
{
    if (strcmp(list, "all") == 0) {
        for (uint32_t type = 0; type < N_GGUF_DTYPES; type++)
            if (dtype_info(type) != NULL && dtype_info(type)->computable && c->n_types < MAX_TYPES)
                c->types[c->n_types++] = (enum dtype)type;
        return OK;
    }
    char word[NAME_BYTES];
    uint32_t type;
    while (next_word(&list, word)) {
        if (!dtype_from_name(word, &type) || !dtype_info(type)->computable)
            return error_set(e, ERR_USAGE, "--type: expected a type with kernels, found \"%s\"",
                             word);
        if (c->n_types == MAX_TYPES)
            return error_set(e, ERR_USAGE, "--type: expected at most %d types", MAX_TYPES);
        c->types[c->n_types++] = (enum dtype)type;
    }
    return OK;
}

static enum err choose_isas(const char *list, struct choice *c, struct error *e)
{
    char all[128], word[NAME_BYTES];
    kernel_bench_isas(all, sizeof all);
    const char *words = strcmp(list, "best") == 0  ? kernel_bench_best_isa()
                        : strcmp(list, "all") == 0 ? all
                                                   : list;
    while (next_word(&words, word)) {
        if (c->n_isas == MAX_ISAS)
            return error_set(e, ERR_USAGE, "--isa: expected at most %d instruction sets", MAX_ISAS);
        memcpy(c->isas[c->n_isas++], word, sizeof word);
    }
    return OK;
}

/* "1b", "8b", or "ROWSxCOLS" of one matrix. */
static enum err choose_shape(const char *text, struct choice *c, struct error *e)
{
    for (int i = 0; i < N_NAMED; i++) {
        if (strcmp(named_shapes[i].name, text) == 0) {
            c->shape = named_shapes[i];
            return OK;
        }
    }
    int rows, cols, end = 0;
    bool read = strlen(text) < NAME_BYTES && text[0] >= '1' && text[0] <= '9' &&
                sscanf(text, "%8dx%8d%n", &rows, &cols, &end) == 2 && text[end] == '\0';
    if (!read || rows < 1 || cols < 1 || rows > SHAPE_MAX_VOCAB || cols > SHAPE_MAX_WIDTH)
        return error_set(e, ERR_USAGE, "--shape: expected 1b, 8b or ROWSxCOLS, found \"%.40s\"",
                         text);
    c->shape = (struct shape){.name = text,
                              .hidden = cols,
                              .ffn = rows,
                              .n_heads = 32,
                              .n_kv_heads = 8,
                              .head_size = 64,
                              .matrices = {{rows, cols}},
                              .n_matrices = 1};
    return OK;
}

static enum err choose(const struct kernels_flags *f, struct choice *c, struct error *e)
{
    *c = (struct choice){0};
    enum err err = choose_ops(f->ops, c, e);
    if (err == OK)
        err = choose_types(f->types, c, e);
    if (err == OK)
        err = choose_isas(f->isas, c, e);
    if (err == OK)
        err = choose_shape(f->shape, c, e);
    if (err == OK)
        err = bench_number_list("--rows", f->rows, 4096, c->rows, &c->n_rows, e);
    if (err == OK)
        err = bench_number_list("--positions", f->positions, SHAPE_MAX_CONTEXT, c->positions,
                                &c->n_positions, e);
    return err;
}

/* --- one case --- */

/* What limits a case, and how it was probed before and after. */
struct limit {
    double (*probe)(struct probe *p);
    double work;          /* bytes or operations, 1e9 */
    double before, after; /* 1e9 a second */
};

static struct limit limit_of(const struct session *s, const struct kernel_case *c)
{
    struct kernel_result r;
    kernel_bench_work(c, &r);
    bool weights = c->op == OP_MATMUL || c->op == OP_FFN;
    bool quantised = weights && dtype_info(c->type)->block_elems > 1;
    double reading = r.bytes / s->read_gb_s;
    double computing = r.ops / (quantised ? s->dot_gop_s : s->fma_gop_s);
    if (reading > computing)
        return (struct limit){.probe = probe_read_gb_s, .work = r.bytes * 1e-9};
    return (struct limit){.probe = quantised ? probe_dot_gop_s : probe_fma_gop_s,
                          .work = r.ops * 1e-9};
}

static double fraction(const struct limit *l, const struct kernel_result *r)
{
    return l->work / ((l->before + l->after) / 2) / r->seconds;
}

static void describe(const struct kernel_case *c, char *text, size_t text_bytes)
{
    static const char *const op_shapes[] = {"%s %dx%d", "%s %d heads of %d, %d positions"};
    switch (c->op) {
    case OP_MATMUL:
    case OP_FFN:
        snprintf(text, text_bytes, op_shapes[0], dtype_name(c->type), c->n_rows, c->n_cols);
        break;
    case OP_ATTENTION:
        snprintf(text, text_bytes, op_shapes[1], kv_type_names[c->kv], c->n_heads, c->head_size,
                 c->n_positions);
        break;
    case OP_ROPE: snprintf(text, text_bytes, "%d heads of %d", c->n_heads, c->head_size); break;
    default: snprintf(text, text_bytes, "%d", c->n_cols); break;
    }
}

static void print_case(const struct session *s, const struct kernel_case *c, const struct limit *l,
                       const struct kernel_result *r)
{
    char what[64];
    describe(c, what, sizeof what);
    printf("%-7s %-9s %-34s %5d %11.2f %8.1f %9.1f %7.1f %%%s %s %9.2e\n", s->isa,
           kernel_op_names[c->op], what, c->n, r->seconds * 1e6, r->bytes / r->seconds * 1e-9,
           r->ops / r->seconds * 1e-9, 100 * fraction(l, r),
           bench_probes_agree(l->before, l->after) ? " " : "?",
           r->equal                          ? "same  "
           : kernel_bench_is_exact(s->bench) ? "DIFFER"
                                             : "other ",
           r->error);
    fflush(stdout);
}

static json_t *case_json(const struct session *s, const struct kernel_case *c,
                         const struct limit *l, const struct kernel_result *r)
{
    json_t *j =
        json_pack("{s:s, s:s, s:i}", "op", kernel_op_names[c->op], "isa", s->isa, "n", c->n);
    if (c->op == OP_MATMUL || c->op == OP_FFN)
        json_object_update_new(j, json_pack("{s:s, s:i, s:i}", "type", dtype_name(c->type), "rows",
                                            c->n_rows, "cols", c->n_cols));
    else if (c->op == OP_ATTENTION || c->op == OP_ROPE)
        json_object_update_new(
            j, json_pack("{s:i, s:i}", "heads", c->n_heads, "head_size", c->head_size));
    else
        json_object_set_new(j, "cols", json_integer(c->n_cols));
    if (c->op == OP_ATTENTION)
        json_object_update_new(j,
                               json_pack("{s:s, s:i, s:i}", "kv", kv_type_names[c->kv], "kv_heads",
                                         c->n_kv_heads, "positions", c->n_positions));
    const char *limit = l->probe == probe_read_gb_s   ? "read"
                        : l->probe == probe_dot_gop_s ? "dot"
                                                      : "fma";
    json_object_update_new(
        j, json_pack("{s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:b}", "us", r->seconds * 1e6, "gb_s",
                     r->bytes / r->seconds * 1e-9, "gop_s", r->ops / r->seconds * 1e-9, "limit",
                     limit, "before", l->before, "after", l->after, "fraction", fraction(l, r),
                     "counts", bench_probes_agree(l->before, l->after)));
    json_object_update_new(j,
                           json_pack("{s:b, s:b, s:i, s:f}", "from_memory", r->from_memory, "equal",
                                     r->equal, "compared", r->n_compared, "error", r->error));
    return j;
}

static enum err run_case(struct session *s, const struct kernel_case *c, struct error *e)
{
    struct kernel_result r;
    struct limit limit = limit_of(s, c);
    limit.before = limit.probe(s->probe);
    enum err err = kernel_bench_run(s->bench, c, s->flags->least_ms * 1e-3, &r, e);
    if (err != OK)
        return err;
    limit.after = limit.probe(s->probe);
    if (s->list != NULL)
        json_array_append_new(s->list, case_json(s, c, &limit, &r));
    else
        print_case(s, c, &limit, &r);
    return OK;
}

/* --- all cases of an instruction set --- */

static enum err run_matrices(struct session *s, struct error *e)
{
    const struct choice *c = s->choice;
    enum err err = OK;
    for (int t = 0; t < c->n_types; t++) {
        for (int m = 0; m < c->shape.n_matrices; m++) {
            const struct matrix_shape *shape = &c->shape.matrices[m];
            struct kernel_case one = {.op = OP_MATMUL,
                                      .type = c->types[t],
                                      .n_rows = shape->n_rows,
                                      .n_cols = shape->n_cols};
            for (int i = 0; i < c->n_rows && err == OK; i++) {
                one.n = c->rows[i];
                if (one.n_rows < HEAD_ROWS || one.n <= HEAD_MOST || c->shape.n_matrices == 1)
                    err = run_case(s, &one, e);
            }
        }
    }
    return err;
}

static enum err run_ffn(struct session *s, struct error *e)
{
    const struct choice *c = s->choice;
    enum err err = OK;
    for (int t = 0; t < c->n_types; t++) {
        for (int i = 0; i < c->n_rows && err == OK; i++) {
            struct kernel_case one = {.op = OP_FFN,
                                      .type = c->types[t],
                                      .n_rows = c->shape.ffn,
                                      .n_cols = c->shape.hidden,
                                      .n = c->rows[i]};
            err = run_case(s, &one, e);
        }
    }
    return err;
}

static enum err run_attention(struct session *s, struct error *e)
{
    const struct choice *c = s->choice;
    enum err err = OK;
    struct kernel_case one = {.op = OP_ATTENTION,
                              .n_heads = c->shape.n_heads,
                              .n_kv_heads = c->shape.n_kv_heads,
                              .head_size = c->shape.head_size};
    for (int kv = 0; kv < N_KV_TYPES; kv++) {
        for (int p = 0; p < c->n_positions; p++) {
            for (int i = 0; i < c->n_rows && err == OK; i++) {
                one.kv = (enum kv_type)kv;
                one.n_positions = c->positions[p];
                one.n = c->rows[i];
                if (one.n <= one.n_positions)
                    err = run_case(s, &one, e);
            }
        }
    }
    return err;
}

static enum err run_rows(struct session *s, enum kernel_op op, struct error *e)
{
    const struct choice *c = s->choice;
    enum err err = OK;
    for (int i = 0; i < c->n_rows && err == OK; i++) {
        struct kernel_case one = {.op = op,
                                  .n_cols = op == OP_SILU_MUL ? c->shape.ffn : c->shape.hidden,
                                  .n_heads = c->shape.n_heads,
                                  .head_size = c->shape.head_size,
                                  .n = c->rows[i]};
        err = run_case(s, &one, e);
    }
    return err;
}

static enum err run_ops(struct session *s, struct error *e)
{
    enum err err = OK;
    for (int op = 0; op < N_KERNEL_OPS && err == OK; op++) {
        if (!s->choice->ops[op])
            continue;
        err = op == OP_MATMUL      ? run_matrices(s, e)
              : op == OP_FFN       ? run_ffn(s, e)
              : op == OP_ATTENTION ? run_attention(s, e)
                                   : run_rows(s, (enum kernel_op)op, e);
    }
    return err;
}

/* What the machine can do with these kernels: shown, and for choosing what limits a case. */
static void probe_begin(struct session *s, json_t *limits)
{
    s->read_gb_s = probe_read_gb_s(s->probe);
    s->dot_gop_s = probe_dot_gop_s(s->probe);
    s->fma_gop_s = probe_fma_gop_s(s->probe);
    const char *dot = probe_dot_name(s->probe), *fma = probe_fma_name(s->probe);
    if (limits != NULL) {
        json_array_append_new(limits, json_pack("{s:s, s:b, s:f, s:s, s:f, s:s, s:f}", "isa",
                                                s->isa, "exact", kernel_bench_is_exact(s->bench),
                                                "read_gb_s", s->read_gb_s, "dot_instruction", dot,
                                                "dot_gop_s", s->dot_gop_s, "fma_instruction", fma,
                                                "fma_gop_s", s->fma_gop_s));
        return;
    }
    printf("%s: reading %.1f GB/s, %s %.1f Gop/s, %s %.1f Gop/s\n", s->isa, s->read_gb_s, dot,
           s->dot_gop_s, fma, s->fma_gop_s);
    printf("%-7s %-9s %-34s %5s %11s %8s %9s %9s  %s %9s\n", "isa", "op", "shape", "rows", "us",
           "GB/s", "Gop/s", "of limit", "bits  ", "error");
}

static enum err run_isa(struct session *s, struct pool *pool, json_t *limits, struct error *e)
{
    enum err err = kernel_bench_new(pool, s->isa, &s->bench, e);
    if (err == OK)
        err = probe_new(pool, s->isa, &s->probe, e);
    if (err == OK) {
        probe_begin(s, limits);
        err = run_ops(s, e);
    }
    probe_free(s->probe);
    kernel_bench_free(s->bench);
    s->probe = NULL;
    s->bench = NULL;
    return err;
}

static enum err run_all(const struct kernels_flags *f, const struct choice *c, struct pool *pool,
                        struct error *e)
{
    json_t *json = f->json ? json_object() : NULL, *limits = f->json ? json_array() : NULL;
    struct session s = {.flags = f, .choice = c, .list = f->json ? json_array() : NULL};
    enum err err = OK;
    for (int i = 0; i < c->n_isas && err == OK; i++) {
        s.isa = c->isas[i];
        err = run_isa(&s, pool, limits, e);
    }
    if (!f->json)
        return err;
    json_object_set_new(json, "threads", json_integer(pool_n_threads(pool)));
    json_object_set_new(json, "shape", json_string(c->shape.name));
    json_object_set_new(json, "limits", limits);
    json_object_set_new(json, "results", s.list);
    if (err == OK)
        return print_json(json, e);
    json_decref(json);
    return err;
}

enum err bench_kernels(int argc, char **argv, struct error *e)
{
    struct kernels_flags f = {.ops = "matmul,ffn,attention,rms_norm,silu_mul,add,rope",
                              .types = "all",
                              .isas = "best",
                              .shape = "1b",
                              .rows = "1,2,4,8,16,64,512",
                              .positions = "512,8192",
                              .threads = pool_default_threads(),
                              .least_ms = 100};
    const struct flag table[] = {
        {"op", FLAG_STRING, &f.ops, "OP,…",
         "matmul, ffn, attention, rms_norm, silu_mul, add, rope"},
        {"type", FLAG_STRING, &f.types, "TYPE,…", "of weights: Q4_0, F16, … (default all)"},
        {"isa", FLAG_STRING, &f.isas, "ISA,…", "as SHOAL_CPU; all; best (default)"},
        {"shape", FLAG_STRING, &f.shape, "NAME", "1b (default), 8b, or one matrix ROWSxCOLS"},
        {"rows", FLAG_STRING, &f.rows, "N,…", "tokens at once (default 1,2,4,8,16,64,512)"},
        {"positions", FLAG_STRING, &f.positions, "N,…", "of attention (default 512,8192)"},
        {"threads", FLAG_INT, &f.threads, "K", "compute threads (default: every processor)",
         .min = 1, .max = POOL_MAX_THREADS},
        {"t", FLAG_INT, &f.threads, "K", "same as --threads", .min = 1, .max = POOL_MAX_THREADS},
        {"ms", FLAG_INT, &f.least_ms, "N", "milliseconds of a case (default 100)", .max = 60000},
        {"json", FLAG_BOOL, &f.json, NULL, "print JSON"},
        {0},
    };
    const struct verb_usage usage = {
        "bench kernels",
        "[flags]",
        "Measures the operations of a forward pass one by one, beside what the machine can do at\n"
        "most, and compares a sample of their results with the reference and with double\n"
        "precision (greatest difference over the root mean square).",
        table,
        0,
        0};
    struct choice c;
    struct pool *pool;
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, NULL, &n_args, e);
    if (err == OK)
        err = choose(&f, &c, e);
    if (err == OK)
        err = pool_new(f.threads, &pool, e);
    if (err != OK)
        return err;
    err = run_all(&f, &c, pool, e);
    pool_free(pool);
    return err;
}
