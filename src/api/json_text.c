#include "api/json_text_impl.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <string.h>

/* ---- out ---- */

/* As Unicode's table 3-7 has it. */
size_t utf8_character(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
        return 0;
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* json_text for text that needs repair. */
static json_t *repaired_text(const char *text, size_t bytes)
{
    struct strbuf fixed;
    strbuf_init(&fixed, 3 * bytes);
    for (size_t i = 0; i < bytes;) {
        size_t n = utf8_character((const unsigned char *)text + i, bytes - i);
        if (n > 0)
            strbuf_append(&fixed, text + i, n);
        else
            strbuf_puts(&fixed, "\xef\xbf\xbd");
        i += n > 0 ? n : 1;
    }
    json_t *string = fixed.failed ? NULL : json_stringn(fixed.data, fixed.bytes);
    strbuf_release(&fixed);
    return string;
}

json_t *json_text(const char *text, size_t bytes)
{
    json_t *string = json_stringn(text, bytes);
    return string != NULL ? string : repaired_text(text, bytes);
}

static int append_to_strbuf(const char *data, size_t bytes, void *out)
{
    strbuf_append(out, data, bytes);
    return 0;
}

void json_append(struct strbuf *out, json_t *value)
{
    /* Nine digits are more than a time or a speed has, and print 0.051 as 0.051. */
    size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY;
    if (value == NULL || json_dump_callback(value, append_to_strbuf, out, flags) != 0)
        out->failed = true;
    json_decref(value);
}

void json_append_open(struct strbuf *out, json_t *object)
{
    ASSERT(object == NULL || json_object_size(object) > 0);
    json_append(out, object);
    if (!out->failed)
        out->data[--out->bytes] = 0;
}

void json_append_member(struct strbuf *out, const char *name, json_t *value)
{
    strbuf_printf(out, ",\"%s\":", name);
    json_append(out, value);
}

void json_append_text(struct strbuf *out, const char *text, size_t bytes)
{
    json_append(out, json_text(text, bytes));
}

/* ---- in ---- */

struct json_counts {
    size_t depth, containers, values;
};

/* One byte outside strings. False: a bound is passed. */
static bool count_byte(struct json_counts *c, char byte, struct api_error *e)
{
    if (byte == '{' || byte == '[') {
        c->depth++;
        c->containers++;
    } else if (byte == '}' || byte == ']') {
        c->depth -= c->depth > 0;
    } else if (byte == ',') {
        c->values++;
    }
    if (c->depth > JSON_MAX_DEPTH)
        return api_refuse(e, FAULT_JSON, NULL, "the JSON is nested deeper than %d levels",
                          JSON_MAX_DEPTH);
    if (c->containers > JSON_MAX_CONTAINERS)
        return api_refuse(e, FAULT_JSON, NULL, "the JSON has more than %d arrays and objects",
                          JSON_MAX_CONTAINERS);
    if (c->values > JSON_MAX_VALUES)
        return api_refuse(e, FAULT_JSON, NULL, "the JSON has more than %d values", JSON_MAX_VALUES);
    return true;
}

/* Within bounds? Malformed text may pass or not: the parser has the last word on it. */
static bool check_bounds(const char *text, size_t bytes, struct api_error *e)
{
    struct json_counts counts = {0};
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && !count_byte(&counts, text[i], e))
            return false;
    }
    return true;
}

json_t *json_parse_request(const char *text, size_t bytes, struct api_error *e)
{
    if (bytes == 0) {
        api_refuse(e, FAULT_JSON, NULL, "the body is empty; expected a JSON object");
        return NULL;
    }
    if (!check_bounds(text, bytes, e))
        return NULL;
    json_error_t fault;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &fault);
    if (root == NULL) {
        api_refuse(e, FAULT_JSON, NULL, "the body is not valid JSON: line %d column %d: %s",
                   fault.line, fault.column, fault.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        api_refuse(e, FAULT_JSON, NULL, "the body must be a JSON object");
        json_decref(root);
        return NULL;
    }
    return root;
}
