/* "prompt" has four forms: a string, token ids, an array of strings, an array of arrays of ids. */
#include "api/completion_request_impl.h"

#include <stdio.h>

static bool read_text(const json_t *value, struct prompt *out)
{
    out->text = json_string_value(value);
    out->bytes = json_string_length(value);
    return true;
}

/* `name` is how messages call this list: "prompt" or "prompt[3]". */
static bool read_ids(struct completion_request *r, const char *name, const json_t *list,
                     struct prompt *out, struct api_error *e)
{
    size_t n = json_array_size(list);
    if (n == 0)
        return api_refuse(e, FAULT_INVALID, "prompt", "\"%s\" has no token ids", name);
    int32_t *ids = arena_alloc(&r->memory, n * sizeof *ids);
    if (ids == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    size_t i;
    const json_t *id;
    json_array_foreach(list, i, id)
    {
        char room[32];
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= r->vocab)
            return api_refuse(e, FAULT_INVALID, "prompt",
                              "\"%s[%zu]\" must be a token id from 0 to %d, found %s", name, i,
                              r->vocab - 1, json_kind(id, room));
        ids[i] = (int32_t)json_integer_value(id);
    }
    *out = (struct prompt){.ids = ids, .n_ids = (int)n};
    return true;
}

static bool read_item(struct completion_request *r, const json_t *list, size_t i,
                      struct api_error *e)
{
    const json_t *item = json_array_get(list, i);
    char name[32], room[32];
    snprintf(name, sizeof name, "prompt[%zu]", i);
    if (json_typeof(item) != json_typeof(json_array_get(list, 0)))
        return api_refuse(e, FAULT_INVALID, "prompt",
                          "\"%s\" must be of the same kind as \"prompt[0]\", found %s", name,
                          json_kind(item, room));
    return json_is_string(item) ? read_text(item, &r->prompts[i])
                                : read_ids(r, name, item, &r->prompts[i], e);
}

static bool read_list(struct completion_request *r, const json_t *list, struct api_error *e)
{
    size_t n = json_array_size(list);
    if (n > REQUEST_MAX_PROMPTS)
        return api_refuse(e, FAULT_INVALID, "prompt",
                          "\"prompt\" may have at most %d prompts, "
                          "found %zu",
                          REQUEST_MAX_PROMPTS, n);
    for (size_t i = 0; i < n; i++)
        if (!read_item(r, list, i, e))
            return false;
    r->n_prompts = (int)n;
    return true;
}

bool prompt_field_read(struct completion_request *r, const json_t *prompt, struct api_error *e)
{
    char room[32];
    const json_t *first = json_array_get(prompt, 0); /* NULL if it is no array or empty */
    r->prompts = arena_zalloc(&r->memory, REQUEST_MAX_PROMPTS, sizeof *r->prompts);
    if (r->prompts == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    if (json_is_string(first) || json_is_array(first))
        return read_list(r, prompt, e);
    r->n_prompts = 1;
    if (json_is_string(prompt))
        return read_text(prompt, &r->prompts[0]);
    if (json_is_array(prompt) && (first == NULL || json_is_number(first)))
        return read_ids(r, "prompt", prompt, &r->prompts[0], e);
    return api_refuse(e, FAULT_INVALID, "prompt",
                      "\"prompt\" must be a string, an array of "
                      "strings, token ids, or an array of these, found %s%s",
                      first != NULL ? "an array of " : "",
                      json_kind(first != NULL ? first : prompt, room));
}
