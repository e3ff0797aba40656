/* What every backend shares: how one is chosen, the size of stored keys and values, and the
 * decompositions of optional operations. */
#include "backend/backend.h"

#include "backend/cpu/attention.h"
#include "base/panic.h"

const char *const backend_names[N_BACKEND_KINDS + 1] = {"cpu", "sim", NULL};

enum err backend_open(const struct backend_choice *choice, struct pool *pool, struct backend **out,
                      struct error *e)
{
    ASSERT(choice->kind >= 0 && choice->kind < N_BACKEND_KINDS && choice->pass_us >= 0);
    *out = NULL;
    if (choice->kind == BACKEND_SIM)
        return backend_sim_open(choice->pass_us, out, e);
    if (choice->pass_us > 0)
        return error_set(e, ERR_INVALID,
                         "a pass of %d us: only the simulated backend can be told how long it "
                         "takes, this is backend %s",
                         choice->pass_us, backend_names[choice->kind]);
    return backend_cpu_open(pool, out, e);
}

uint64_t kv_block_bytes(enum kv_type type, int n_kv_heads, int head_size)
{
    return kv_layout(type, n_kv_heads, head_size).block_bytes;
}

void backend_matmul_many(struct backend *b, struct tensor *const y[],
                         const struct weight *const W[], int n_weights, const struct tensor *x,
                         int n)
{
    if (b->ops->matmul_many != NULL) {
        b->ops->matmul_many(b, y, W, n_weights, x, n);
        return;
    }
    for (int i = 0; i < n_weights; i++)
        b->ops->matmul(b, y[i], W[i], x, n);
}

void backend_norm_matmul_many(struct backend *b, struct tensor *const y[],
                              const struct weight *const W[], int n_weights,
                              const struct normed *x, int n)
{
    if (b->ops->norm_matmul_many != NULL) {
        b->ops->norm_matmul_many(b, y, W, n_weights, x, n);
        return;
    }
    b->ops->rms_norm(b, x->scratch, x->x, x->gain, x->eps, n);
    backend_matmul_many(b, y, W, n_weights, x->scratch, n);
}

void backend_matmul_add(struct backend *b, struct tensor *x, const struct weight *W,
                        const struct tensor *y, struct tensor *product, int n)
{
    if (b->ops->matmul_add != NULL) {
        b->ops->matmul_add(b, x, W, y, product, n);
        return;
    }
    b->ops->matmul(b, product, W, y, n);
    b->ops->add(b, x, product, n);
}

void backend_gated_ffn_steps(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n)
{
    backend_norm_matmul_many(b, (struct tensor *const[]){f->gated, f->upped},
                             (const struct weight *const[]){f->gate, f->up}, 2, &f->in, n);
    b->ops->silu_mul(b, f->gated, f->gated, f->upped, n);
    backend_matmul_add(b, x, f->down, f->gated, f->product, n);
}

void backend_gated_ffn(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n)
{
    if (b->ops->gated_ffn != NULL)
        b->ops->gated_ffn(b, x, f, n);
    else
        backend_gated_ffn_steps(b, x, f, n);
}
