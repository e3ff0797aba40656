/* Tensor names of Hugging Face decoder folders in GGUF's words.
 *
 *     model.layers.3.self_attn.q_proj.weight  ->  blk.3.attn_q.weight
 *
 * A name without a counterpart is kept, so that listing shows it and the model module can say that
 * it does not know it. Nothing here judges whether a model should have the tensor. */
#include "modelfile/modelfile_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct name_pair {
    const char *hf, *gguf;
};

/* Outside the layers: whole names. */
static const struct name_pair model_names[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"lm_head.bias", "output.bias"},
};

/* Inside a layer: the part between "model.layers.N." and ".weight" or ".bias". */
static const struct name_pair layer_names[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

/* "17." at *p: a layer number as it is printed (no sign, no leading zeros); *p goes past the dot.
 */
static bool take_layer(const char **p, int *layer_i)
{
    const char *digits = *p;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 4 || digits[n] != '.' || (digits[0] == '0' && n > 1))
        return false;
    *layer_i = atoi(digits);
    *p = digits + n + 1;
    return *layer_i < SHAPE_MAX_LAYERS;
}

static bool write_layer_name(const char *name, char *out, int *n_out)
{
    static const char prefix[] = "model.layers.";
    int layer_i;
    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return false;
    name += sizeof(prefix) - 1;
    if (!take_layer(&name, &layer_i))
        return false;
    for (size_t i = 0; i < sizeof(layer_names) / sizeof(layer_names[0]); i++) {
        size_t n = strlen(layer_names[i].hf);
        if (strncmp(name, layer_names[i].hf, n) != 0)
            continue;
        if (strcmp(name + n, ".weight") != 0 && strcmp(name + n, ".bias") != 0)
            continue;
        *n_out =
            snprintf(out, MODEL_MAX_NAME, "blk.%d.%s%s", layer_i, layer_names[i].gguf, name + n);
        return true;
    }
    return false;
}

bool hf_tensor_name(const char *name, char *out)
{
    int n = -1;
    for (size_t i = 0; i < sizeof(model_names) / sizeof(model_names[0]); i++) {
        if (strcmp(name, model_names[i].hf) == 0)
            n = snprintf(out, MODEL_MAX_NAME, "%s", model_names[i].gguf);
    }
    if (n < 0 && !write_layer_name(name, out, &n))
        n = snprintf(out, MODEL_MAX_NAME, "%s", name);
    return n > 0 && n < MODEL_MAX_NAME;
}

void hf_tie_embedding(struct modelfile *m, bool is_tied)
{
    struct model_tensor *head = NULL;
    if (!is_tied)
        return;
    for (int i = 0; i < m->n_tensors; i++) {
        if (strcmp(m->tensors[i].name, "token_embd.weight") == 0)
            return;
        if (strcmp(m->tensors[i].name, "output.weight") == 0)
            head = &m->tensors[i];
    }
    if (head != NULL)
        head->name = "token_embd.weight";
}
