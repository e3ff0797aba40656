/* What running a model asks of the machine at least: bytes read from memory, arithmetic done. The
 * figures of `bench model` are these divided by time, beside what the machine was probed to do. */
#ifndef SHOAL_CLI_BENCH_COST_H
#define SHOAL_CLI_BENCH_COST_H

#include "backend/backend.h"
#include "modelfile/modelfile.h"

struct bench_cost {
    uint64_t weight_bytes;      /* of the tensors that a decode step reads, as in the file */
    uint64_t kv_position_bytes; /* keys and values of one position, all layers */
    /* Of the matrix products of a row, a product and its sum being two: all layers, what the last
     * of them does for rows with logits only, the head. */
    double layer_ops, last_ops, head_ops;
};

enum err bench_cost_of(const struct modelfile *file, const struct model_params *params,
                       enum kv_type kv, struct bench_cost *out, struct error *e);

/* Operations of a prefill: every token goes through the layers up to the last one's keys and
 * values, the last of a sequence through all of it and the head. Attention, some hundredths of it
 * at such lengths, is not counted. */
double bench_prefill_ops(const struct bench_cost *c, int n_prompt, int batch);

/* Bytes of n_decode steps after n_prompt positions: the weights once a step, and each sequence's
 * keys and values up to its own position. The few embedding rows are not counted. */
double bench_decode_bytes(const struct bench_cost *c, int n_prompt, int n_decode, int batch);

#endif
