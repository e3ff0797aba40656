/* The tokenizer of a Hugging Face folder: tokenizer.json, and which of its tokens begin and end a
 * text, from tokenizer_config.json, generation_config.json and config.json (each may be absent).
 *
 * As `transformers` does it, generation ends at the eos_token_id of generation_config.json (one id
 * or several), else that of config.json; the tokenizer's own eos_token ends it too. */
#include "text/text_impl.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* The JSON object in a file of the folder; NULL if absent. Malformed is an error. */
static enum err load_object(const struct modelfile *m, const char *file, json_t **out,
                            struct error *e)
{
    size_t bytes;
    const char *text = modelfile_text(m, file, &bytes);
    json_error_t je;
    *out = NULL;
    if (text == NULL)
        return OK;
    /* Writers put 1e30 as an integer for "no limit": integers are read as reals. */
    *out = json_loadb(text, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &je);
    if (*out == NULL)
        return error_set(e, ERR_FORMAT, "%s: %s (line %d)", file, je.text, je.line);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return error_set(e, ERR_FORMAT, "%s is not a JSON object", file);
    }
    return OK;
}

static uint32_t id_of(const json_t *v)
{
    double id = json_is_real(v) ? json_real_value(v) : -1;
    return id >= 0 && id < SHAPE_MAX_VOCAB && id == floor(id) ? (uint32_t)id : TOKEN_NONE;
}

/* A token named by its text, or by an object that has it as "content". */
static uint32_t id_of_text(const struct tokenizer *t, const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    const char *text = json_string_value(v);
    return text != NULL && strlen(text) == json_string_length(v) ? tokenizer_find(t, text)
                                                                 : TOKEN_NONE;
}

/* Add the id or ids under "eos_token_id"; false if the key is not there. */
static bool add_ends(struct tokenizer *t, const json_t *config)
{
    const json_t *v = json_object_get(config, "eos_token_id");
    if (v == NULL || json_is_null(v))
        return false;
    if (!json_is_array(v)) {
        tokenizer_add_end(t, id_of(v));
        return true;
    }
    for (size_t i = 0; i < json_array_size(v); i++)
        tokenizer_add_end(t, id_of(json_array_get(v, i)));
    return true;
}

/* The first that is a token of this vocabulary. */
static uint32_t first_known(const struct tokenizer *t, uint32_t a, uint32_t b, uint32_t c)
{
    if (a < tokenizer_n_tokens(t))
        return a;
    if (b < tokenizer_n_tokens(t))
        return b;
    return c < tokenizer_n_tokens(t) ? c : TOKEN_NONE;
}

static enum err name_tokens(const struct modelfile *m, struct tokenizer *t, struct error *e)
{
    json_t *tokenizer = NULL, *generation = NULL, *config = NULL;
    enum err err = load_object(m, "tokenizer_config.json", &tokenizer, e);
    if (err == OK)
        err = load_object(m, "generation_config.json", &generation, e);
    if (err == OK)
        err = load_object(m, "config.json", &config, e);
    if (err == OK) {
        t->bos = first_known(t, id_of_text(t, json_object_get(tokenizer, "bos_token")),
                             id_of(json_object_get(config, "bos_token_id")), t->bos);
        t->eos = first_known(t, id_of_text(t, json_object_get(tokenizer, "eos_token")),
                             id_of(json_object_get(config, "eos_token_id")), t->eos);
        tokenizer_add_end(t, t->eos);
        if (!add_ends(t, generation))
            add_ends(t, config);
    }
    json_decref(tokenizer);
    json_decref(generation);
    json_decref(config);
    return err;
}

enum err tokenizer_open_hf(const struct modelfile *m, struct tokenizer **out, struct error *e)
{
    size_t bytes;
    const char *json = modelfile_text(m, "tokenizer.json", &bytes);
    if (json == NULL)
        return error_set(e, ERR_NOT_FOUND, "no tokenizer.json");
    enum err err = tokenizer_new_json(json, bytes, out, e);
    if (err != OK)
        return error_prefix(e, "tokenizer.json"), err;
    err = name_tokens(m, *out, e);
    if (err != OK) {
        tokenizer_close(*out);
        *out = NULL;
    }
    return err;
}
