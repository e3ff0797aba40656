/* Chat templates: finding a model's, and rendering.
 *
 * A model has one template, or several by name, of which "default" and "tool_use" mean something;
 * as in `transformers`, the second is taken when the conversation has tools. The names of special
 * tokens (bos_token, …) are variables that every rendering starts with. */
#include "text/text_impl.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct chat_template {
    struct shoal_template *plain;
    struct shoal_template *tools; /* for conversations with tools, or NULL: the plain one */
    json_t *defaults;             /* variables that the caller need not give */
};

/* The sources found in a model; borrowed from it or from `config`. */
struct sources {
    const char *plain, *tools;
    size_t plain_bytes, tools_bytes;
};

static enum err compile(const char *source, size_t bytes, struct shoal_template **out,
                        struct error *e)
{
    struct shoal_text_error ffi_error;
    ffi_begin();
    int32_t code = shoal_template_new((const uint8_t *)source, bytes, out, &ffi_error);
    ffi_end();
    if (code == SHOAL_TEXT_OK)
        return OK;
    enum err err = text_ffi_error(&ffi_error, e);
    error_prefix(e, "chat template");
    return err;
}

/* Takes `defaults` over. */
static enum err new_from(const struct sources *s, json_t *defaults, struct chat_template **out,
                         struct error *e)
{
    *out = NULL;
    struct chat_template *c = calloc(1, sizeof(*c));
    if (c == NULL || defaults == NULL) {
        free(c);
        json_decref(defaults);
        return error_set(e, ERR_MEMORY, "chat template: out of memory");
    }
    c->defaults = defaults;
    enum err err = compile(s->plain, s->plain_bytes, &c->plain, e);
    if (err == OK && s->tools != NULL)
        err = compile(s->tools, s->tools_bytes, &c->tools, e);
    if (err != OK) {
        chat_template_free(c);
        return err;
    }
    *out = c;
    return OK;
}

enum err chat_template_new(const char *source, size_t bytes, struct chat_template **out,
                           struct error *e)
{
    const struct sources s = {.plain = source, .plain_bytes = bytes};
    return new_from(&s, json_object(), out, e);
}

void chat_template_free(struct chat_template *c)
{
    if (c == NULL)
        return;
    ffi_begin();
    shoal_template_free(c->plain);
    shoal_template_free(c->tools);
    ffi_end();
    json_decref(c->defaults);
    free(c);
}

/* ---- GGUF ---- */

static void find_gguf(const struct modelfile *m, struct sources *s)
{
    struct meta_value v;
    if (modelfile_meta(m, "tokenizer.chat_template", &v) && v.type == META_STRING) {
        s->plain = v.string;
        s->plain_bytes = (size_t)v.bytes;
    }
    if (modelfile_meta(m, "tokenizer.chat_template.tool_use", &v) && v.type == META_STRING) {
        s->tools = v.string;
        s->tools_bytes = (size_t)v.bytes;
    }
}

static void set_piece(json_t *variables, const char *name, const struct tokenizer *t, uint32_t id)
{
    size_t bytes;
    const char *piece = t != NULL ? tokenizer_piece(t, id, &bytes) : NULL;
    if (piece != NULL)
        json_object_set_new(variables, name, json_stringn(piece, bytes));
}

/* ---- Hugging Face folder ---- */

/* "chat_template" of tokenizer_config.json: a text, or a list of {"name", "template"}. */
static void find_in_config(const json_t *config, struct sources *s)
{
    const json_t *v = json_object_get(config, "chat_template");
    if (json_is_string(v)) {
        s->plain = json_string_value(v);
        s->plain_bytes = json_string_length(v);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *named = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(named, "name"));
        const json_t *text = json_object_get(named, "template");
        if (name == NULL || !json_is_string(text))
            continue;
        if (strcmp(name, "default") == 0) {
            s->plain = json_string_value(text);
            s->plain_bytes = json_string_length(text);
        } else if (strcmp(name, "tool_use") == 0) {
            s->tools = json_string_value(text);
            s->tools_bytes = json_string_length(text);
        }
    }
}

static void set_token_texts(json_t *variables, const json_t *config)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_t *v = json_object_get(config, names[i]);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        if (json_is_string(v))
            json_object_set(variables, names[i], v);
    }
}

static enum err open_hf(const struct modelfile *m, json_t *defaults, struct sources *s,
                        json_t **config, struct error *e)
{
    size_t bytes;
    const char *text = modelfile_text(m, "tokenizer_config.json", &bytes);
    if (text != NULL) {
        json_error_t je;
        *config = json_loadb(text, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &je);
        if (*config == NULL)
            return error_set(e, ERR_FORMAT, "tokenizer_config.json: %s (line %d)", je.text,
                             je.line);
        find_in_config(*config, s);
        set_token_texts(defaults, *config);
    }
    text = modelfile_text(m, "chat_template.jinja", &bytes);
    if (text != NULL) {
        s->plain = text;
        s->plain_bytes = bytes;
    }
    return OK;
}

enum err chat_template_open(const struct modelfile *m, const struct tokenizer *t,
                            struct chat_template **out, struct error *e)
{
    struct sources s = {0};
    json_t *config = NULL, *defaults = json_object();
    enum err err = OK;
    *out = NULL;
    if (modelfile_format(m) == MODEL_GGUF)
        find_gguf(m, &s);
    if (t != NULL) {
        set_piece(defaults, "bos_token", t, tokenizer_bos(t));
        set_piece(defaults, "eos_token", t, tokenizer_eos(t));
    }
    if (modelfile_format(m) == MODEL_HF)
        err = open_hf(m, defaults, &s, &config, e);
    if (err == OK && s.plain == NULL)
        err = error_set(e, ERR_NOT_FOUND, "the model has no chat template");
    if (err == OK)
        err = new_from(&s, defaults, out, e);
    else
        json_decref(defaults);
    json_decref(config);
    return err != OK ? error_prefix(e, "%s", modelfile_path(m)), err : OK;
}

/* ---- rendering ---- */

/* Whether the variables have tools, so that the template for those is to be taken. */
static bool has_tools(const char *json, size_t bytes)
{
    json_t *all = json_loadb(json, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    const json_t *tools = json_object_get(all, "tools");
    bool has = json_array_size(tools) > 0;
    json_decref(all);
    return has;
}

/* The defaults as JSON text, with the local time added; freed with free(). */
static char *defaults_text(const struct chat_template *c)
{
    char now[32];
    struct tm tm;
    time_t seconds = time(NULL);
    json_t *all = json_copy(c->defaults);
    if (all != NULL && localtime_r(&seconds, &tm) != NULL &&
        strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", &tm) > 0)
        json_object_set_new(all, "now", json_string(now));
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

/* Move a result of the library to malloc memory, 0-terminated. */
static enum err copy_out(struct shoal_text_bytes text, char **out, size_t *out_bytes,
                         struct error *e)
{
    char *copy = malloc(text.n + 1);
    if (copy != NULL) {
        if (text.n > 0)
            memcpy(copy, text.bytes, text.n);
        copy[text.n] = '\0';
        *out = copy;
        *out_bytes = text.n;
    }
    ffi_begin();
    shoal_text_bytes_free(text);
    ffi_end();
    return copy != NULL ? OK : error_set(e, ERR_MEMORY, "chat template: out of memory");
}

enum err chat_template_render(const struct chat_template *c, const char *json_variables,
                              size_t bytes, char **out, size_t *out_bytes, struct error *e)
{
    static const struct shoal_template_limits limits = {
        .fuel = TEMPLATE_MAX_FUEL,
        .memory_bytes = TEMPLATE_MAX_BUILT_BYTES,
        .output_bytes = TEMPLATE_MAX_OUTPUT_BYTES,
    };
    const struct shoal_template *which = c->plain;
    if (c->tools != NULL && has_tools(json_variables, bytes))
        which = c->tools;
    *out = NULL;
    *out_bytes = 0;
    char *defaults = defaults_text(c);
    if (defaults == NULL)
        return error_set(e, ERR_MEMORY, "chat template: out of memory");
    struct shoal_text_error ffi_error;
    struct shoal_text_bytes text;
    ffi_begin();
    int32_t code = shoal_template_render(which, (const uint8_t *)defaults, strlen(defaults),
                                         (const uint8_t *)json_variables, bytes, &limits, &text,
                                         &ffi_error);
    ffi_end();
    free(defaults);
    if (code != SHOAL_TEXT_OK) {
        enum err err = text_ffi_error(&ffi_error, e);
        error_prefix(e, "chat template");
        return err;
    }
    return copy_out(text, out, out_bytes, e);
}
