/* Hyper-parameters from GGUF metadata: keys "<architecture>.block_count" and so on.
 *
 * Only for architecture "llama" every key of the architecture is held against a table: one that
 * the table does not know might change results, so it is refused by name. Other architectures give
 * their parameters generically; whether one can be computed is for the model module to say. */
#include "modelfile/modelfile_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is read, and from where; the key is put together once per question. */
struct source {
    const struct modelfile *m;
    const char *architecture;
    char key[MODEL_MAX_NAME];
};

static const struct meta_value *lookup(struct source *s, const char *name)
{
    snprintf(s->key, sizeof(s->key), "%s.%s", s->architecture, name);
    return meta_table_find(&s->m->meta, s->key);
}

static const char *type_name(const struct meta_value *v)
{
    static const char *const names[] = {"an unsigned number",
                                        "a negative or signed number",
                                        "a float",
                                        "a boolean",
                                        "a string",
                                        "an array"};
    return names[v->type];
}

enum presence { REQUIRED, OPTIONAL };

/* A whole number; an absent optional one leaves *out alone. */
static enum err read_int(struct source *s, const char *name, enum presence presence, int *out,
                         struct error *e)
{
    const struct meta_value *v = lookup(s, name);
    if (v == NULL)
        return presence == OPTIONAL ? OK
                                    : error_set(e, ERR_NOT_FOUND, "metadata %s is missing", s->key);
    bool is_whole = v->type == META_UINT || v->type == META_INT;
    if (!is_whole)
        return error_set(e, ERR_UNSUPPORTED, "%s is %s, expected one whole number", s->key,
                         type_name(v));
    if (v->i < 0 || v->i > INT32_MAX || (v->type == META_UINT && v->u > INT32_MAX))
        return error_set(e, ERR_INVALID, "%s is %lld, out of range", s->key, (long long)v->i);
    *out = (int)v->i;
    return OK;
}

static enum err read_float(struct source *s, const char *name, enum presence presence, float *out,
                           struct error *e)
{
    const struct meta_value *v = lookup(s, name);
    if (v == NULL)
        return presence == OPTIONAL ? OK
                                    : error_set(e, ERR_NOT_FOUND, "metadata %s is missing", s->key);
    if (v->type != META_FLOAT)
        return error_set(e, ERR_INVALID, "%s is %s, expected a float", s->key, type_name(v));
    *out = (float)v->f;
    return OK;
}

static bool string_is(const struct meta_value *v, const char *text)
{
    return v->type == META_STRING && v->bytes == strlen(text) &&
           memcmp(v->string, text, (size_t)v->bytes) == 0;
}

/* A string that fits; ERR_NOT_FOUND, ERR_INVALID. */
static enum err read_string(const struct modelfile *m, const char *key, char *out, size_t out_bytes,
                            struct error *e)
{
    const struct meta_value *v = meta_table_find(&m->meta, key);
    if (v == NULL)
        return error_set(e, ERR_NOT_FOUND, "metadata %s is missing", key);
    if (v->type != META_STRING || v->bytes == 0 || v->bytes >= out_bytes ||
        memchr(v->string, 0, (size_t)v->bytes) != NULL)
        return error_set(e, ERR_INVALID, "metadata %s is no string of 1 to %zu bytes", key,
                         out_bytes - 1);
    memcpy(out, v->string, (size_t)v->bytes);
    out[v->bytes] = 0;
    return OK;
}

/* ---- keys of "llama" ---- */

enum key_rule {
    KEY_KNOWN, /* read below, or without influence on results */
    KEY_ZERO,  /* supported only if 0 (or false) */
    KEY_ONE,   /* supported only if 1 (or true) */
};

static const struct {
    const char *name;
    enum key_rule rule;
} llama_keys[] = {
    {"attention.causal", KEY_ONE},
    {"attention.clamp_kqv", KEY_ZERO},
    {"attention.head_count", KEY_KNOWN},
    {"attention.head_count_kv", KEY_KNOWN},
    {"attention.key_length", KEY_KNOWN},
    {"attention.layer_norm_rms_epsilon", KEY_KNOWN},
    {"attention.sliding_window", KEY_KNOWN},
    {"attention.value_length", KEY_KNOWN},
    {"block_count", KEY_KNOWN},
    {"context_length", KEY_KNOWN},
    {"embedding_length", KEY_KNOWN},
    {"embedding_scale", KEY_ONE},
    {"expert_count", KEY_ZERO},
    {"expert_used_count", KEY_ZERO},
    {"feed_forward_length", KEY_KNOWN},
    {"logit_scale", KEY_ONE},
    {"residual_scale", KEY_ONE},
    {"rope.dimension_count", KEY_KNOWN},
    {"rope.freq_base", KEY_KNOWN},
    {"rope.scale_linear", KEY_KNOWN},
    {"rope.scaling.attn_factor", KEY_ONE},
    {"rope.scaling.factor", KEY_KNOWN},
    {"rope.scaling.finetuned", KEY_KNOWN},
    {"rope.scaling.original_context_length", KEY_KNOWN}, /* of types that we refuse by name */
    {"rope.scaling.type", KEY_KNOWN},
    {"tensor_data_layout", KEY_KNOWN},
    {"use_parallel_residual", KEY_ZERO},
    {"vocab_size", KEY_KNOWN},
};

static double number_of(const struct meta_value *v)
{
    switch (v->type) {
    case META_FLOAT: return v->f;
    case META_INT: return (double)v->i;
    case META_UINT:
    case META_BOOL: return (double)v->u;
    default: return NAN;
    }
}

static enum err check_key(const struct meta_entry *entry, const char *name, struct error *e)
{
    for (size_t i = 0; i < sizeof(llama_keys) / sizeof(llama_keys[0]); i++) {
        if (strcmp(llama_keys[i].name, name) != 0)
            continue;
        double wanted = llama_keys[i].rule == KEY_ONE ? 1 : 0;
        if (llama_keys[i].rule == KEY_KNOWN || number_of(&entry->value) == wanted)
            return OK;
        return error_set(e, ERR_UNSUPPORTED, "metadata %s is %g, supported is only %g", entry->name,
                         number_of(&entry->value), wanted);
    }
    return error_set(e, ERR_UNSUPPORTED, "metadata %s is not known and might change results",
                     entry->name);
}

static enum err check_llama_keys(const struct modelfile *m, struct error *e)
{
    static const char prefix[] = "llama.";
    enum err err = OK;
    for (int i = 0; i < m->meta.n && err == OK; i++) {
        const struct meta_entry *entry = &m->meta.entries[i];
        if (strncmp(entry->name, prefix, sizeof(prefix) - 1) == 0)
            err = check_key(entry, entry->name + sizeof(prefix) - 1, e);
    }
    return err;
}

/* ---- groups of parameters ---- */

static enum err read_shape(struct source *s, struct model_params *p, struct error *e)
{
    enum err err = read_int(s, "block_count", REQUIRED, &p->n_layers, e);
    if (err == OK)
        err = read_int(s, "embedding_length", REQUIRED, &p->hidden, e);
    if (err == OK)
        err = read_int(s, "feed_forward_length", REQUIRED, &p->ffn, e);
    if (err == OK)
        err = read_int(s, "context_length", REQUIRED, &p->context, e);
    if (err == OK)
        err = read_float(s, "attention.layer_norm_rms_epsilon", REQUIRED, &p->norm_eps, e);
    return err;
}

static enum err read_heads(struct source *s, struct model_params *p, struct error *e)
{
    enum err err = read_int(s, "attention.head_count", REQUIRED, &p->n_heads, e);
    p->n_kv_heads = p->n_heads;
    if (err == OK)
        err = read_int(s, "attention.head_count_kv", OPTIONAL, &p->n_kv_heads, e);
    if (err == OK && p->n_heads > 0 && p->hidden % p->n_heads == 0)
        p->head_size = p->hidden / p->n_heads; /* where key_length does not say otherwise */
    if (err == OK)
        err = read_int(s, "attention.key_length", OPTIONAL, &p->head_size, e);
    int value_size = p->head_size;
    if (err == OK)
        err = read_int(s, "attention.value_length", OPTIONAL, &value_size, e);
    if (err == OK && value_size != p->head_size)
        err = error_set(e, ERR_UNSUPPORTED, "%s is %d, supported is only the key length %d", s->key,
                        value_size, p->head_size);
    p->rope_size = p->head_size;
    return err == OK ? read_int(s, "rope.dimension_count", OPTIONAL, &p->rope_size, e) : err;
}

/* Only where the key speaks of every layer: in other architectures (gemma3, gpt-oss) some layers
 * have no window, and which ones is the architecture's to say. */
static enum err read_window(struct source *s, struct model_params *p, struct error *e)
{
    bool is_of_all = strcmp(p->architecture, "llama") == 0;
    return is_of_all ? read_int(s, "attention.sliding_window", OPTIONAL, &p->window, e) : OK;
}

/* Architectures whose converter reorders q and k so that rope pairs stand side by side. */
static enum rope_pairing pairing_of(const char *architecture)
{
    static const char *const neighbours[] = {"llama",    "baichuan",  "internlm2", "minicpm",
                                             "deepseek", "deepseek2", "command-r", "granite"};
    for (size_t i = 0; i < sizeof(neighbours) / sizeof(neighbours[0]); i++) {
        if (strcmp(architecture, neighbours[i]) == 0)
            return ROPE_NEIGHBOURS;
    }
    return ROPE_HALVES;
}

static enum err read_scaling(struct source *s, struct model_params *p, struct error *e)
{
    float factor = 1;
    enum err err = read_float(s, "rope.scale_linear", OPTIONAL, &factor, e); /* its older name */
    if (err == OK)
        err = read_float(s, "rope.scaling.factor", OPTIONAL, &factor, e);
    if (err != OK)
        return err;
    const struct meta_value *type = lookup(s, "rope.scaling.type");
    if (type != NULL && string_is(type, "none"))
        return OK;
    if (type != NULL && type->type != META_STRING)
        return error_set(e, ERR_INVALID, "%s is %s, expected a string", s->key, type_name(type));
    if (type != NULL && !string_is(type, "linear"))
        return error_set(e, ERR_UNSUPPORTED, "%s is \"%.*s\", supported are none and linear",
                         s->key, (int)(type->bytes < 32 ? type->bytes : 32), type->string);
    /* Without a type a factor alone means linear. */
    p->rope_factor = factor;
    if (factor != 1)
        p->rope_scaling = ROPE_SCALING_LINEAR;
    return OK;
}

static enum err read_rope(struct source *s, struct model_params *p, struct error *e)
{
    static const char *const factors[] = {"rope_factors_long.weight", "rope_factors_short.weight"};
    for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++) {
        /* Leaving it out would give plausible text that is wrong from the first position on.
         * (rope_freqs.weight, one set of factors, is an ordinary tensor of the model.) */
        if (modelfile_find(s->m, factors[i]) != NULL)
            return error_set(e, ERR_UNSUPPORTED,
                             "tensor %s (rope factors that depend on the length) is not supported",
                             factors[i]);
    }
    p->rope_pairing = pairing_of(p->architecture);
    p->rope_base = 10000;
    p->rope_factor = 1;
    enum err err = read_float(s, "rope.freq_base", OPTIONAL, &p->rope_base, e);
    return err == OK ? read_scaling(s, p, e) : err;
}

static enum err read_vocab(struct source *s, struct model_params *p, struct error *e)
{
    const struct meta_value *tokens = meta_table_find(&s->m->meta, "tokenizer.ggml.tokens");
    const struct model_tensor *embedding = modelfile_find(s->m, "token_embd.weight");
    if (lookup(s, "vocab_size") != NULL)
        return read_int(s, "vocab_size", REQUIRED, &p->vocab, e);
    if (tokens != NULL && tokens->type == META_ARRAY)
        p->vocab = (int)tokens->n_elems; /* at most MODEL_MAX_ARRAY */
    else if (embedding != NULL && embedding->n_rows <= SHAPE_MAX_VOCAB)
        p->vocab = (int)embedding->n_rows;
    else
        return error_set(e, ERR_NOT_FOUND, "neither metadata %s nor tokenizer.ggml.tokens", s->key);
    return OK;
}

enum err gguf_params(const struct modelfile *m, struct model_params *p, struct error *e)
{
    struct source s = {.m = m, .architecture = p->architecture};
    memset(p, 0, sizeof(*p));
    if (m->n_tensors == 0)
        return error_set(e, ERR_NOT_FOUND, "holds no tensors (a vocabulary only)");
    enum err err =
        read_string(m, "general.architecture", p->architecture, sizeof(p->architecture), e);
    if (err != OK)
        return err;
    if (read_string(m, "general.name", p->name, sizeof(p->name), NULL) != OK)
        p->name[0] = 0; /* for show only */
    if (strcmp(p->architecture, "llama") == 0)
        err = check_llama_keys(m, e);
    if (err == OK)
        err = read_shape(&s, p, e);
    if (err == OK)
        err = read_heads(&s, p, e);
    if (err == OK)
        err = read_window(&s, p, e);
    if (err == OK)
        err = read_rope(&s, p, e);
    if (err == OK)
        err = read_vocab(&s, p, e);
    p->tied_head = modelfile_find(m, "output.weight") == NULL;
    return err == OK ? params_check(p, e) : err;
}
