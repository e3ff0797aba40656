/* The conversation of a chat request, as chat templates expect it: each message an object with
 * "role" and "content" (one string, also where the client sends parts) and perhaps "name".
 * "developer", OpenAI's newer word for "system", becomes "system": templates know no other. */
#include "api/completion_request_impl.h"

#include "api/json_text_impl.h"

#include <stdio.h>
#include <string.h>

/* Where in the body we are, for messages and for `param`. */
struct place {
    char name[48]; /* "messages[3]" */
};

static bool refuse_at(const struct place *at, const char *member, const char *expected,
                      const json_t *found, struct api_error *e)
{
    char name[96], room[32];
    snprintf(name, sizeof name, "%s.%s", at->name, member);
    return api_refuse(e, FAULT_INVALID, name, "\"%s\" must be %s, found %s", name, expected,
                      found != NULL ? json_kind(found, room) : "nothing");
}

/* Null or absent, or the empty list that some clients send. */
static bool is_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static bool read_role(const struct place *at, const json_t *role, json_t *out, struct api_error *e)
{
    static const char expected[] = "\"system\", \"developer\", \"user\" or \"assistant\"";
    const char *text = json_string_value(role);
    if (text == NULL)
        return refuse_at(at, "role", expected, role, e);
    if (strcmp(text, "tool") == 0 || strcmp(text, "function") == 0)
        return api_refuse(e, FAULT_UNSUPPORTED, "messages",
                          "\"%s.role\": \"%s\" is not supported yet: tools are not", at->name,
                          text);
    if (strcmp(text, "developer") == 0)
        text = "system";
    if (strcmp(text, "system") != 0 && strcmp(text, "user") != 0 && strcmp(text, "assistant") != 0)
        return api_refuse(e, FAULT_INVALID, "messages", "\"%s.role\" must be %s, found \"%s\"",
                          at->name, expected, text);
    json_object_set_new(out, "role", json_string(text));
    return true;
}

static bool append_part(const struct place *at, const json_t *part, struct strbuf *text,
                        struct api_error *e)
{
    const json_t *kind = json_object_get(part, "type"), *words = json_object_get(part, "text");
    if (!json_is_string(kind))
        return refuse_at(at, "content", "a string or an array of {\"type\", \"text\"}", part, e);
    if (strcmp(json_string_value(kind), "text") != 0)
        return api_refuse(e, FAULT_UNSUPPORTED, "messages",
                          "\"%s.content\": a part of type "
                          "\"%s\" is not supported yet: only \"text\"",
                          at->name, json_string_value(kind));
    if (!json_is_string(words))
        return refuse_at(at, "content.text", "a string", words, e);
    if (text->bytes > 0)
        strbuf_puts(text, "\n");
    strbuf_append(text, json_string_value(words), json_string_length(words));
    return true;
}

static bool read_parts(const struct place *at, const json_t *parts, json_t *out,
                       struct api_error *e)
{
    struct strbuf text;
    strbuf_init(&text, 2 * HTTP_MAX_BODY_BYTES);
    bool good = true;
    size_t i;
    const json_t *part;
    json_array_foreach(parts, i, part)
    {
        good = good && append_part(at, part, &text, e);
    }
    if (good && text.failed)
        good = api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    if (good)
        json_object_set_new(out, "content", json_text(text.data, text.bytes));
    strbuf_release(&text);
    return good;
}

static bool read_content(const struct place *at, json_t *content, json_t *out, struct api_error *e)
{
    if (json_is_array(content) && json_array_size(content) > 0)
        return read_parts(at, content, out, e);
    if (!json_is_string(content))
        return refuse_at(at, "content", "a string or an array of text parts", content, e);
    json_object_set(out, "content", content);
    return true;
}

/* The members beside role and content. */
static bool read_other(struct completion_request *r, const struct place *at, const char *member,
                       json_t *value, json_t *out, struct api_error *e)
{
    static const char *const not_yet[] = {"tool_calls", "tool_call_id", "function_call", "audio",
                                          "refusal"};
    if (strcmp(member, "role") == 0 || strcmp(member, "content") == 0 || json_is_null(value))
        return true;
    if (strcmp(member, "name") == 0) {
        if (!json_is_string(value))
            return refuse_at(at, "name", "a string", value, e);
        json_object_set(out, "name", value);
        return true;
    }
    for (size_t i = 0; i < sizeof not_yet / sizeof not_yet[0]; i++) {
        if (strcmp(member, not_yet[i]) != 0)
            continue;
        return is_nothing(value) || api_refuse(e, FAULT_UNSUPPORTED, "messages",
                                               "\"%s.%s\" is not supported yet", at->name, member);
    }
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.", at->name);
    request_ignore(r, prefix, member);
    return true;
}

static bool read_message(struct completion_request *r, size_t i, json_t *message, json_t *out,
                         struct api_error *e)
{
    struct place at;
    char room[32];
    snprintf(at.name, sizeof at.name, "messages[%zu]", i);
    if (!json_is_object(message))
        return api_refuse(e, FAULT_INVALID, "messages", "\"%s\" must be an object, found %s",
                          at.name, json_kind(message, room));
    if (!read_role(&at, json_object_get(message, "role"), out, e))
        return false;
    const char *member;
    json_t *value;
    json_object_foreach(message, member, value)
    {
        if (!read_other(r, &at, member, value, out, e))
            return false;
    }
    if (!read_content(&at, json_object_get(message, "content"), out, e))
        return false;
    return json_object_size(out) >= 2 || api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
}

bool chat_messages_read(struct completion_request *r, const json_t *messages, struct api_error *e)
{
    char room[32];
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return api_refuse(e, FAULT_INVALID, "messages",
                          "\"messages\" must be an array of at least one message, found %s",
                          json_is_array(messages) ? "none" : json_kind(messages, room));
    json_t *list = json_array();
    r->variables = json_pack("{s:o, s:b}", "messages", list, "add_generation_prompt", 1);
    if (r->variables == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        json_t *out = json_object();
        if (json_array_append_new(list, out) != 0)
            return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
        if (!read_message(r, i, message, out, e))
            return false;
    }
    return true;
}
