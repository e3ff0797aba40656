#include "model/architectures.h"

#include "base/panic.h"

#include <assert.h>
#include <string.h>

static const struct architecture architectures[] = {
    {
        .names = {"llama", "LlamaForCausalLM", "MistralForCausalLM"},
        .tensors =
            {
                [ROLE_ATTN_NORM] = {"attn_norm.weight", DIM_ONE, DIM_HIDDEN, .vector = true},
                [ROLE_Q] = {"attn_q.weight", DIM_QUERIES, DIM_HIDDEN},
                [ROLE_K] = {"attn_k.weight", DIM_KEYS, DIM_HIDDEN},
                [ROLE_V] = {"attn_v.weight", DIM_KEYS, DIM_HIDDEN},
                [ROLE_ATTN_OUT] = {"attn_output.weight", DIM_HIDDEN, DIM_QUERIES},
                [ROLE_FFN_NORM] = {"ffn_norm.weight", DIM_ONE, DIM_HIDDEN, .vector = true},
                [ROLE_GATE] = {"ffn_gate.weight", DIM_FFN, DIM_HIDDEN},
                [ROLE_UP] = {"ffn_up.weight", DIM_FFN, DIM_HIDDEN},
                [ROLE_DOWN] = {"ffn_down.weight", DIM_HIDDEN, DIM_FFN},
                [ROLE_EMBEDDING] = {"token_embd.weight", DIM_VOCAB, DIM_HIDDEN},
                [ROLE_FINAL_NORM] = {"output_norm.weight", DIM_ONE, DIM_HIDDEN, .vector = true},
                [ROLE_HEAD] = {"output.weight", DIM_VOCAB, DIM_HIDDEN},
                [ROLE_ROPE_FACTORS] = {"rope_freqs.weight", DIM_ONE, DIM_ROPE_PAIRS,
                                       .vector = true},
            },
    },
};

enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

enum err architecture_find(const struct model_params *params, const struct architecture **out,
                           struct error *e)
{
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        for (int j = 0; j < 4 && architectures[i].names[j] != NULL; j++) {
            if (strcmp(params->architecture, architectures[i].names[j]) == 0) {
                *out = &architectures[i];
                return OK;
            }
        }
    }
    return error_set(e, ERR_UNSUPPORTED,
                     "architecture: expected llama (LlamaForCausalLM, MistralForCausalLM), "
                     "found \"%s\"",
                     params->architecture);
}

uint64_t model_dim_size(const struct model_params *p, enum model_dim dim)
{
    switch (dim) {
    case DIM_ONE: return 1;
    case DIM_HIDDEN: return (uint64_t)p->hidden;
    case DIM_QUERIES: return (uint64_t)p->n_heads * (uint64_t)p->head_size;
    case DIM_KEYS: return (uint64_t)p->n_kv_heads * (uint64_t)p->head_size;
    case DIM_FFN: return (uint64_t)p->ffn;
    case DIM_VOCAB: return (uint64_t)p->vocab;
    case DIM_ROPE_PAIRS: return (uint64_t)p->rope_size / 2;
    case N_DIMS: break;
    }
    PANIC("dimension %d", (int)dim);
}
