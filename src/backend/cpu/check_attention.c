/* Checks of attention, a part of kernels_check. */
#include "backend/cpu/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct attention_case {
    enum kv_type type;
    int n_kv_heads, sharing, head_size, n_positions;
    enum fill fill;
    bool hostile;
};

/* A store of exactly the blocks that are needed (so that ASan sees a read past them), filled by
 * value; blocks of the table in reverse. */
static uint8_t *store_new(struct random *r, const struct attention_case *c, int n_blocks)
{
    size_t n = (size_t)n_blocks * KV_BLOCK_TOKENS * c->n_kv_heads * c->head_size;
    uint8_t *store = xmalloc(n * (c->type == KV_F16 ? 2 : 4));
    float *x = values_new(r, c->fill, c->hostile, n);
    if (c->type == KV_F16)
        ref.to_f16((struct f16 *)store, x, n);
    else
        memcpy(store, x, n * 4);
    free(x);
    return store;
}

static void check_attention_case(const struct kernels *k, const struct attention_case *c)
{
    struct random random = {.state = (uint64_t)(c->n_positions * 100 + c->head_size)};
    int n_blocks = (c->n_positions - 1) / KV_BLOCK_TOKENS + 1;
    int n_heads = c->n_kv_heads * c->sharing;
    int32_t *table = xmalloc((size_t)n_blocks * sizeof *table);
    for (int b = 0; b < n_blocks; b++)
        table[b] = n_blocks - 1 - b;
    /* Row 0 stands a little before row 1. */
    int32_t positions[2] = {c->n_positions / 2, c->n_positions - 1};
    const int32_t *tables[2] = {table, table};
    struct batch batch = {2, positions, tables};
    size_t n = (size_t)2 * n_heads * c->head_size, bytes = n * sizeof(float);
    uint8_t *keys = store_new(&random, c, n_blocks), *values = store_new(&random, c, n_blocks);
    float *q = values_new(&random, c->fill, false, n);
    float *y = guarded_new(bytes, 4), *expected = guarded_new(bytes, 0);
    struct attention a = {keys,
                          values,
                          c->type,
                          n_heads,
                          c->n_kv_heads,
                          c->head_size,
                          1.0f / sqrtf((float)c->head_size),
                          q,
                          y,
                          &batch};
    struct attention a_ref = a;
    a_ref.y = expected;
    for (int row = 0; row < 2; row++) {
        for (int h = 0; h < n_heads; h += c->sharing) {
            k->attention(&a, row, h, h + c->sharing);
            ref.attention(&a_ref, row, h, h + c->sharing);
        }
    }
    char what[160];
    snprintf(what, sizeof what, "%s attention %s kv heads %d x %d size %d positions %d %s%s",
             k->variant, c->type == KV_F16 ? "f16" : "f32", c->n_kv_heads, c->sharing, c->head_size,
             c->n_positions, fill_names[c->fill], c->hostile ? " with NaN" : "");
    compare_floats(y, expected, n, what);
    report(guards_intact(y, bytes, 4), "attention: guard bytes");
    free(table);
    free(keys);
    free(values);
    free(q);
    guarded_free(y, 4);
    guarded_free(expected, 0);
}

void check_attention(const struct kernels *k)
{
    static const int sizes[] = {1, 8, 16, 20, 48, 64, 65, 80, 128, 256};
    static const int counts[] = {1, 3, 16, 18, 255, 256, 257, 530};
    int i = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t p = 0; p < sizeof counts / sizeof counts[0]; p++) {
            for (int type = 0; type < 2; type++, i++) {
                struct attention_case c = {(enum kv_type)type, 1 + i % 2,   1 + i % 9, sizes[s],
                                           counts[p],          FILL_RANDOM, i % 7 == 0};
                check_attention_case(k, &c);
                if (counts[p] < 256) {
                    c.fill = (enum fill)(i % N_FILLS);
                    check_attention_case(k, &c);
                }
            }
        }
    }
}
