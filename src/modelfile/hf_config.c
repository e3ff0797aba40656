/* Hyper-parameters from config.json.
 *
 * The file mixes what the mathematics needs, what training needed and what some library once wrote
 * down. Every key is therefore held against a table: those that are read, those without influence
 * on the output, those supported with one value only. A key that the table does not know is
 * refused by name unless it is null, because ignoring it could change every result.
 *
 * Which model types are read at all stands in `families` with their defaults, which are those of
 * their configuration classes in `transformers`. Being read here does not mean that the model
 * module can compute it: its architecture table decides. */
#include "modelfile/modelfile_impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum window {
    WINDOW_NONE,    /* the family has no sliding window: the key must be null or absent */
    WINDOW_DEFAULT, /* on unless the file says null */
    WINDOW_SWITCH, /* off unless use_sliding_window is true; then from layer max_window_layers on */
};

/* Where a family that has them does not say. */
enum { DEFAULT_WINDOW = 4096, DEFAULT_MAX_WINDOW_LAYERS = 28 };

struct family {
    const char *model_type;
    const char *architecture;
    bool kv_heads_default; /* num_key_value_heads may be absent: as many as heads */
    bool head_dim_default; /* head_dim may be absent: hidden / heads */
    enum window window;
};

static const struct family families[] = {
    {"llama", "LlamaForCausalLM", true, true, WINDOW_NONE},
    {"mistral", "MistralForCausalLM", false, true, WINDOW_DEFAULT},
    {"qwen2", "Qwen2ForCausalLM", false, true, WINDOW_SWITCH},
    {"qwen3", "Qwen3ForCausalLM", false, false, WINDOW_SWITCH},
};

enum key_rule {
    KEY_READ,     /* read below */
    KEY_HARMLESS, /* no influence on the output, or read by the tokenizer and the sampler */
    KEY_OFF,      /* supported only if false, 0 or empty */
    KEY_ONE,      /* supported only if 1 */
    KEY_REFUSED,  /* named here for a clearer message: any value but null */
};

static const struct {
    const char *name;
    enum key_rule rule;
} keys[] = {
    {"architectures", KEY_READ},
    {"head_dim", KEY_READ},
    {"hidden_act", KEY_READ},
    {"hidden_size", KEY_READ},
    {"intermediate_size", KEY_READ},
    {"layer_types", KEY_READ},
    {"max_position_embeddings", KEY_READ},
    {"max_window_layers", KEY_READ},
    {"model_type", KEY_READ},
    {"num_attention_heads", KEY_READ},
    {"num_hidden_layers", KEY_READ},
    {"num_key_value_heads", KEY_READ},
    {"rms_norm_eps", KEY_READ},
    {"rope_parameters", KEY_READ},
    {"rope_scaling", KEY_READ},
    {"rope_theta", KEY_READ},
    {"sliding_window", KEY_READ},
    {"tie_word_embeddings", KEY_READ},
    {"use_sliding_window", KEY_READ},
    {"vocab_size", KEY_READ},
    {"_name_or_path", KEY_READ},

    {"add_cross_attention", KEY_OFF},
    {"attention_bias", KEY_OFF},
    {"is_encoder_decoder", KEY_OFF},
    {"mlp_bias", KEY_OFF},
    {"pruned_heads", KEY_OFF},
    {"qkv_bias", KEY_OFF},
    {"rope_interleaved", KEY_OFF},
    {"tie_encoder_decoder", KEY_OFF},
    {"use_mrope", KEY_OFF},
    {"use_qk_norm", KEY_OFF},
    {"chunk_size_feed_forward", KEY_OFF},
    {"partial_rotary_factor", KEY_ONE},
    {"auto_map", KEY_REFUSED},            /* the folder brings modelling code of its own */
    {"quantization_config", KEY_REFUSED}, /* weights are not what their dtype says */
    {"compression_config", KEY_REFUSED},

    {"_attn_implementation", KEY_HARMLESS},
    {"_attn_implementation_autoset", KEY_HARMLESS},
    {"attention_dropout", KEY_HARMLESS},
    {"attn_implementation", KEY_HARMLESS},
    {"attn_dropout", KEY_HARMLESS},
    {"embd_pdrop", KEY_HARMLESS},
    {"hidden_dropout", KEY_HARMLESS},
    {"resid_pdrop", KEY_HARMLESS},
    {"initializer_range", KEY_HARMLESS},
    {"pretraining_tp", KEY_HARMLESS}, /* how a sum was cut up in training */
    {"dtype", KEY_HARMLESS},          /* the files say it tensor by tensor */
    {"torch_dtype", KEY_HARMLESS},
    {"use_bfloat16", KEY_HARMLESS},
    {"use_cache", KEY_HARMLESS},
    {"torchscript", KEY_HARMLESS},
    {"transformers_version", KEY_HARMLESS},
    {"transformers.js_config", KEY_HARMLESS},
    {"unsloth_fixed", KEY_HARMLESS},
    {"unsloth_version", KEY_HARMLESS},
    {"is_llama_config", KEY_HARMLESS},
    {"bos_token_id", KEY_HARMLESS},
    {"eos_token_id", KEY_HARMLESS},
    {"pad_token_id", KEY_HARMLESS},
    {"sep_token_id", KEY_HARMLESS},
    {"unk_token_id", KEY_HARMLESS},
    {"cls_token_id", KEY_HARMLESS},
    {"decoder_start_token_id", KEY_HARMLESS},
    {"tokenizer_class", KEY_HARMLESS},
    {"prefix", KEY_HARMLESS},
    {"is_decoder", KEY_HARMLESS},
    {"cross_attention_hidden_size", KEY_HARMLESS},
    {"output_attentions", KEY_HARMLESS},
    {"output_hidden_states", KEY_HARMLESS},
    {"output_scores", KEY_HARMLESS},
    {"return_dict", KEY_HARMLESS},
    {"return_dict_in_generate", KEY_HARMLESS},
    {"remove_invalid_values", KEY_HARMLESS},
    {"finetuning_task", KEY_HARMLESS},
    {"id2label", KEY_HARMLESS},
    {"label2id", KEY_HARMLESS},
    {"num_labels", KEY_HARMLESS},
    {"problem_type", KEY_HARMLESS},
    {"task_specific_params", KEY_HARMLESS},
    {"tf_legacy_loss", KEY_HARMLESS},
    {"bad_words_ids", KEY_HARMLESS},
    {"begin_suppress_tokens", KEY_HARMLESS},
    {"suppress_tokens", KEY_HARMLESS},
    {"diversity_penalty", KEY_HARMLESS},
    {"do_sample", KEY_HARMLESS},
    {"early_stopping", KEY_HARMLESS},
    {"encoder_no_repeat_ngram_size", KEY_HARMLESS},
    {"exponential_decay_length_penalty", KEY_HARMLESS},
    {"forced_bos_token_id", KEY_HARMLESS},
    {"forced_eos_token_id", KEY_HARMLESS},
    {"length_penalty", KEY_HARMLESS},
    {"max_length", KEY_HARMLESS},
    {"min_length", KEY_HARMLESS},
    {"no_repeat_ngram_size", KEY_HARMLESS},
    {"num_beam_groups", KEY_HARMLESS},
    {"num_beams", KEY_HARMLESS},
    {"num_return_sequences", KEY_HARMLESS},
    {"repetition_penalty", KEY_HARMLESS},
    {"temperature", KEY_HARMLESS},
    {"top_k", KEY_HARMLESS},
    {"top_p", KEY_HARMLESS},
    {"typical_p", KEY_HARMLESS},
};

struct excerpt {
    char *text;
    size_t bytes, room;
};

static int take_piece(const char *piece, size_t bytes, void *context)
{
    struct excerpt *x = context;
    size_t n = bytes < x->room - x->bytes ? bytes : x->room - x->bytes;
    memcpy(x->text + x->bytes, piece, n);
    x->bytes += n;
    return n == bytes ? 0 : -1; /* full: the rest need not be written */
}

/* A value as it stands in the file, cut short, for messages. */
static const char *shown(const json_t *value, char *out, size_t out_bytes)
{
    struct excerpt x = {.text = out, .room = out_bytes - 1};
    (void)json_dump_callback(value, take_piece, &x,
                             JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    out[x.bytes] = 0;
    return out;
}

static bool is_off(const json_t *value)
{
    return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static enum err check_key(const char *key, const json_t *value, struct error *e)
{
    char text[64];
    size_t i = 0, n = sizeof(keys) / sizeof(keys[0]);
    while (i < n && strcmp(keys[i].name, key) != 0)
        i++;
    if (i == n)
        return error_set(e, ERR_UNSUPPORTED, "key %.64s (%s) is not known and might change results",
                         key, shown(value, text, 48));
    if (keys[i].rule == KEY_REFUSED)
        return error_set(e, ERR_UNSUPPORTED, "%s is set (%s), which is not supported", key,
                         shown(value, text, 48));
    if (keys[i].rule == KEY_OFF && !is_off(value))
        return error_set(e, ERR_UNSUPPORTED, "%s is %s, supported is only false", key,
                         shown(value, text, sizeof(text)));
    if (keys[i].rule == KEY_ONE && !(json_is_number(value) && json_number_value(value) == 1))
        return error_set(e, ERR_UNSUPPORTED, "%s is %s, supported is only 1", key,
                         shown(value, text, sizeof(text)));
    return OK;
}

static enum err check_keys(json_t *config, struct error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value)
    {
        enum err err = json_is_null(value) ? OK : check_key(key, value, e);
        if (err != OK)
            return err;
    }
    return OK;
}

/* ---- single values ---- */

/* The value of a key; NULL if it is absent or null. */
static const json_t *get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static enum err need_int(const json_t *object, const char *key, int *out, struct error *e)
{
    char text[64];
    const json_t *value = get(object, key);
    if (value == NULL)
        return error_set(e, ERR_NOT_FOUND, "key %s is missing", key);
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > INT32_MAX)
        return error_set(e, ERR_INVALID, "%s is %s, expected a whole number from 1", key,
                         shown(value, text, sizeof(text)));
    *out = (int)json_integer_value(value);
    return OK;
}

static enum err need_float(const json_t *object, const char *key, float *out, struct error *e)
{
    char text[64];
    const json_t *value = get(object, key);
    if (value == NULL)
        return error_set(e, ERR_NOT_FOUND, "key %s is missing", key);
    if (!json_is_number(value) || !isfinite((float)json_number_value(value)))
        return error_set(e, ERR_INVALID, "%s is %s, expected a number", key,
                         shown(value, text, sizeof(text)));
    *out = (float)json_number_value(value);
    return OK;
}

static enum err bool_or(const json_t *object, const char *key, bool fallback, bool *out,
                        struct error *e)
{
    char text[64];
    const json_t *value = get(object, key);
    *out = value != NULL ? json_is_true(value) : fallback;
    if (value != NULL && !json_is_boolean(value))
        return error_set(e, ERR_INVALID, "%s is %s, expected true or false", key,
                         shown(value, text, sizeof(text)));
    return OK;
}

/* ---- families ---- */

static enum err find_family(const json_t *config, const struct family **out, struct error *e)
{
    char text[64];
    const json_t *type = get(config, "model_type");
    if (type == NULL)
        return error_set(e, ERR_NOT_FOUND, "key model_type is missing");
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (json_is_string(type) && strcmp(json_string_value(type), families[i].model_type) == 0) {
            *out = &families[i];
            return OK;
        }
    }
    return error_set(e, ERR_UNSUPPORTED,
                     "model_type is %s, expected one of llama, mistral, qwen2, qwen3",
                     shown(type, text, sizeof(text)));
}

static enum err read_names(const json_t *config, const struct family *family,
                           struct model_params *p, struct error *e)
{
    const json_t *list = get(config, "architectures"), *path = get(config, "_name_or_path");
    const char *architecture = family->architecture;
    if (list != NULL) {
        architecture = json_string_value(json_array_get(list, 0));
        if (architecture == NULL || strlen(architecture) >= sizeof(p->architecture))
            return error_set(e, ERR_INVALID, "architectures is no list of names");
    }
    snprintf(p->architecture, sizeof(p->architecture), "%s", architecture);
    if (json_is_string(path) && strlen(json_string_value(path)) < sizeof(p->name))
        snprintf(p->name, sizeof(p->name), "%s", json_string_value(path));
    return OK;
}

/* The window that the file speaks of, if it is switched on; 0: none. */
static enum err read_window_size(const json_t *config, const struct family *family, int *out,
                                 struct error *e)
{
    char text[64];
    const json_t *window = json_object_get(config, "sliding_window");
    bool is_used;
    *out = 0;
    enum err err =
        bool_or(config, "use_sliding_window", family->window != WINDOW_SWITCH, &is_used, e);
    if (err != OK || json_is_null(window) || (!is_used && family->window != WINDOW_DEFAULT))
        return err;
    if (family->window == WINDOW_NONE)
        return window == NULL
                   ? OK
                   : error_set(e, ERR_UNSUPPORTED,
                               "sliding_window is %s, supported for model_type %s is only none",
                               shown(window, text, sizeof(text)), family->model_type);
    if (!is_used) /* which its configuration class does not look at */
        return error_set(e, ERR_UNSUPPORTED,
                         "use_sliding_window is false, but model_type %s has a window unless "
                         "sliding_window is null",
                         family->model_type);
    *out = DEFAULT_WINDOW;
    return window != NULL ? need_int(config, "sliding_window", out, e) : OK;
}

/* Which layers have the window, by their types: all of them or none. */
static enum err compare_layer_types(const json_t *types, int n_layers, bool *all_sliding,
                                    struct error *e)
{
    char text[64];
    if (json_array_size(types) != (size_t)n_layers)
        return error_set(e, ERR_INVALID, "layer_types has %zu entries, expected a list of %d",
                         json_array_size(types), n_layers);
    for (int i = 0; i < n_layers; i++) {
        const json_t *type = json_array_get(types, (size_t)i);
        const char *name = json_is_string(type) ? json_string_value(type) : "";
        bool is_sliding = strcmp(name, "sliding_attention") == 0;
        if (!is_sliding && strcmp(name, "full_attention") != 0)
            return error_set(e, ERR_UNSUPPORTED,
                             "layer_types[%d] is %s, supported are \"full_attention\" and "
                             "\"sliding_attention\"",
                             i, shown(type, text, sizeof(text)));
        if (i > 0 && is_sliding != *all_sliding)
            return error_set(e, ERR_UNSUPPORTED,
                             "layer_types[%d] is %s, unlike the layers before it: supported is "
                             "only one window for all layers",
                             i, shown(type, text, sizeof(text)));
        *all_sliding = is_sliding;
    }
    return OK;
}

/* The layers from max_window_layers on have the window. */
static enum err check_window_layers(const json_t *config, struct model_params *p, struct error *e)
{
    char text[64];
    const json_t *value = get(config, "max_window_layers");
    json_int_t first = value != NULL ? json_integer_value(value) : DEFAULT_MAX_WINDOW_LAYERS;
    if (value != NULL && (!json_is_integer(value) || first < 0))
        return error_set(e, ERR_INVALID, "max_window_layers is %s, expected a whole number from 0",
                         shown(value, text, sizeof(text)));
    if (first > 0 && first < p->n_layers)
        return error_set(e, ERR_UNSUPPORTED,
                         "max_window_layers is %d of %d layers: supported is only one window for "
                         "all layers (0), or none",
                         (int)first, p->n_layers);
    if (first > 0)
        p->window = 0;
    return OK;
}

static enum err read_window(const json_t *config, const struct family *family,
                            struct model_params *p, struct error *e)
{
    const json_t *types = get(config, "layer_types");
    enum err err = read_window_size(config, family, &p->window, e);
    if (err != OK)
        return err;
    if (types == NULL)
        return p->window > 0 && family->window == WINDOW_SWITCH ? check_window_layers(config, p, e)
                                                                : OK;
    bool all_sliding = false;
    err = compare_layer_types(types, p->n_layers, &all_sliding, e);
    if (err != OK || all_sliding == (p->window > 0))
        return err;
    if (!all_sliding && family->window == WINDOW_SWITCH) {
        p->window = 0;
        return OK;
    }
    return error_set(e, ERR_UNSUPPORTED,
                     "layer_types[0] is \"%s_attention\", which does not go with a window of %d "
                     "(sliding_window; 0: none)",
                     all_sliding ? "sliding" : "full", p->window);
}

static enum err check_activation(const json_t *config, struct error *e)
{
    char text[64];
    const json_t *act = get(config, "hidden_act");
    if (act == NULL || (json_is_string(act) && (strcmp(json_string_value(act), "silu") == 0 ||
                                                strcmp(json_string_value(act), "swish") == 0)))
        return OK;
    return error_set(e, ERR_UNSUPPORTED, "hidden_act is %s, supported is only \"silu\"",
                     shown(act, text, sizeof(text)));
}

/* ---- shapes ---- */

static enum err read_shape(const json_t *config, struct model_params *p, struct error *e)
{
    const struct {
        const char *key;
        int *out;
    } ints[] = {
        {"hidden_size", &p->hidden},         {"intermediate_size", &p->ffn},
        {"num_hidden_layers", &p->n_layers}, {"num_attention_heads", &p->n_heads},
        {"vocab_size", &p->vocab},           {"max_position_embeddings", &p->context},
    };
    enum err err = OK;
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]) && err == OK; i++)
        err = need_int(config, ints[i].key, ints[i].out, e);
    return err == OK ? need_float(config, "rms_norm_eps", &p->norm_eps, e) : err;
}

static enum err read_heads(const json_t *config, const struct family *family,
                           struct model_params *p, struct error *e)
{
    enum err err = OK;
    p->n_kv_heads = p->n_heads;
    if (get(config, "num_key_value_heads") != NULL || !family->kv_heads_default)
        err = need_int(config, "num_key_value_heads", &p->n_kv_heads, e);
    if (err != OK)
        return err;
    if (get(config, "head_dim") != NULL || !family->head_dim_default) {
        err = need_int(config, "head_dim", &p->head_size, e);
    } else {
        if (p->hidden % p->n_heads != 0)
            return error_set(e, ERR_INVALID,
                             "hidden_size %d is no multiple of num_attention_heads "
                             "%d, and head_dim is missing",
                             p->hidden, p->n_heads);
        p->head_size = p->hidden / p->n_heads;
    }
    p->rope_size = p->head_size;
    return err;
}

/* ---- rope ---- */

static bool is_one_of(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, list[i]) == 0)
            return true;
    }
    return false;
}

static enum err check_rope_keys(json_t *rope, const char *where, struct error *e)
{
    static const char *const known[] = {"type",
                                        "rope_type",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings",
                                        "rope_theta"};
    char text[64];
    const char *key;
    json_t *value;
    json_object_foreach(rope, key, value)
    {
        bool is_factor = strcmp(key, "partial_rotary_factor") == 0;
        if (json_is_null(value) || (is_factor && json_number_value(value) == 1) ||
            is_one_of(key, known, sizeof(known) / sizeof(known[0])))
            continue;
        return error_set(e, ERR_UNSUPPORTED,
                         "%s: key %.64s (%s) is not known and might change results", where, key,
                         shown(value, text, sizeof(text)));
    }
    return OK;
}

static enum err read_llama3(const json_t *rope, struct model_params *p, struct error *e)
{
    p->rope_scaling = ROPE_SCALING_LLAMA3;
    enum err err = need_float(rope, "factor", &p->rope_factor, e);
    if (err == OK)
        err = need_float(rope, "low_freq_factor", &p->rope_low_freq_factor, e);
    if (err == OK)
        err = need_float(rope, "high_freq_factor", &p->rope_high_freq_factor, e);
    if (err == OK)
        err = need_int(rope, "original_max_position_embeddings", &p->rope_original_context, e);
    return err;
}

static enum err read_scaling(json_t *rope, const char *where, struct model_params *p,
                             struct error *e)
{
    char text[64];
    const json_t *type =
        get(rope, "rope_type") != NULL ? get(rope, "rope_type") : get(rope, "type");
    const json_t *old = get(rope, "type");
    if (!json_is_string(type))
        return error_set(e, ERR_INVALID, "%s has no string \"rope_type\" or \"type\"", where);
    if (old != NULL && !json_equal(old, type))
        return error_set(e, ERR_INVALID, "%s: rope_type and type differ", where);
    const char *name = json_string_value(type);
    if (strcmp(name, "default") == 0)
        return check_rope_keys(rope, where, e);
    enum err err;
    if (strcmp(name, "linear") == 0) {
        p->rope_scaling = ROPE_SCALING_LINEAR;
        err = need_float(rope, "factor", &p->rope_factor, e);
    } else if (strcmp(name, "llama3") == 0) {
        err = read_llama3(rope, p, e);
    } else {
        return error_set(e, ERR_UNSUPPORTED,
                         "%s: type is %s, supported are default, linear and llama3", where,
                         shown(type, text, sizeof(text)));
    }
    if (err != OK)
        error_prefix(e, "%s", where);
    return err == OK ? check_rope_keys(rope, where, e) : err;
}

/* Two styles: rope_theta beside rope_scaling, or both inside rope_parameters. */
static enum err read_rope(const json_t *config, struct model_params *p, struct error *e)
{
    const char *where = get(config, "rope_parameters") != NULL ? "rope_parameters" : "rope_scaling";
    const json_t *rope = get(config, where);
    p->rope_pairing = ROPE_HALVES;
    p->rope_base = 10000;
    p->rope_factor = 1;
    if (rope != NULL && !json_is_object(rope))
        return error_set(e, ERR_INVALID, "%s is no object", where);
    if (get(config, "rope_parameters") != NULL && get(config, "rope_scaling") != NULL)
        return error_set(e, ERR_INVALID, "both rope_parameters and rope_scaling are set");
    enum err err = OK;
    if (get(rope, "rope_theta") != NULL)
        err = need_float(rope, "rope_theta", &p->rope_base, e);
    else if (get(config, "rope_theta") != NULL)
        err = need_float(config, "rope_theta", &p->rope_base, e);
    if (err != OK || rope == NULL)
        return err;
    return read_scaling((json_t *)(uintptr_t)rope, where, p, e);
}

/* ---- the whole ---- */

static enum err read_config(json_t *config, struct model_params *p, struct error *e)
{
    const struct family *family = NULL;
    enum err err = find_family(config, &family, e);
    if (err == OK)
        err = check_activation(config, e);
    if (err == OK)
        err = check_keys(config, e);
    if (err == OK)
        err = read_names(config, family, p, e);
    if (err == OK)
        err = read_shape(config, p, e);
    if (err == OK)
        err = read_heads(config, family, p, e);
    if (err == OK)
        err = read_window(config, family, p, e);
    if (err == OK)
        err = read_rope(config, p, e);
    if (err == OK) /* false is the default of every family above */
        err = bool_or(config, "tie_word_embeddings", false, &p->tied_head, e);
    return err == OK ? params_check(p, e) : err;
}

enum err hf_config_params(const char *text, uint64_t bytes, struct model_params *p, struct error *e)
{
    json_t *config;
    memset(p, 0, sizeof(*p));
    enum err err = json_parse(text, bytes, "the file", &config, e);
    if (err != OK)
        return err;
    err = read_config(config, p, e);
    json_decref(config);
    return err;
}

enum err hf_config_tied(const char *text, uint64_t bytes, bool *is_tied, struct error *e)
{
    json_t *config;
    enum err err = json_parse(text, bytes, "config.json", &config, e);
    if (err != OK)
        return err;
    *is_tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    json_decref(config);
    return OK;
}
