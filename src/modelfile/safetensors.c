/* Safetensors: the JSON header of one file (docs/formats/safetensors.md).
 *
 * The format promises that the tensors cover the data section without hole or overlap. That is
 * checked too: a header whose entries were lost or changed then rarely passes. Names come out in
 * GGUF's words. */
#include "modelfile/modelfile_impl.h"

#include "base/size.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The format's own limit; a tree of the JSON takes about ten times its text. */
enum { SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 };

enum err json_parse(const char *text, uint64_t bytes, const char *what, json_t **out,
                    struct error *e)
{
    json_error_t why;
    if (bytes > MODEL_MAX_JSON_BYTES)
        return error_set(e, ERR_LIMIT, "%s has %llu bytes, limit %d", what,
                         (unsigned long long)bytes, MODEL_MAX_JSON_BYTES);
    *out = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &why);
    if (*out == NULL)
        return error_set(e, ERR_FORMAT, "%s is not valid JSON: line %d: %s", what, why.line,
                         why.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return error_set(e, ERR_FORMAT, "%s is not a JSON object", what);
    }
    return OK;
}

static enum err read_type(const char *name, const json_t *entry, uint32_t *type, struct error *e)
{
    const json_t *value = json_object_get(entry, "dtype");
    if (!json_is_string(value))
        return error_set(e, ERR_FORMAT, "tensor %s: no string \"dtype\"", name);
    /* The table also has GGUF's block types, whose names mean nothing here. */
    if (!dtype_from_name(json_string_value(value), type) ||
        (*type < DTYPE_BOOL && dtype_info(*type)->block_elems != 1))
        return error_set(e, ERR_UNSUPPORTED, "tensor %s: unknown dtype \"%.32s\"", name,
                         json_string_value(value));
    return OK;
}

static bool read_uint(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* The file has the outermost dimension first. */
static enum err read_shape(const char *name, const json_t *entry, struct tensor_claim *claim,
                           struct error *e)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return error_set(e, ERR_FORMAT, "tensor %s: no array \"shape\"", name);
    size_t n = json_array_size(shape);
    if (n > MODEL_MAX_DIMS)
        return error_set(e, ERR_UNSUPPORTED, "tensor %s: %zu dimensions, at most %d", name, n,
                         MODEL_MAX_DIMS);
    claim->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        if (!read_uint(json_array_get(shape, n - 1 - i), &claim->dims[i]))
            return error_set(e, ERR_FORMAT, "tensor %s: shape has an entry that is no size", name);
    }
    return OK;
}

/* data_offsets, relative to the data section; *end as the file says it. */
static enum err read_offsets(const char *name, const json_t *entry, uint64_t *begin, uint64_t *end,
                             struct error *e)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (json_array_size(offsets) != 2 || !read_uint(json_array_get(offsets, 0), begin) ||
        !read_uint(json_array_get(offsets, 1), end) || *begin > *end)
        return error_set(e, ERR_FORMAT,
                         "tensor %s: \"data_offsets\" is not [begin, end] with begin <= end", name);
    return OK;
}

/* `t` was appended from the claim; its place now has to be inside the file and as long as it is. */
static enum err place(struct model_tensor *t, const struct mapped_file *f, uint64_t end,
                      struct error *e)
{
    uint64_t data_bytes = f->bytes - f->header_bytes;
    if (end > data_bytes)
        return error_set(e, ERR_FORMAT,
                         "tensor %s ends at byte %llu of the data, which has %llu: "
                         "truncated?",
                         t->name, (unsigned long long)end, (unsigned long long)data_bytes);
    if (end - t->file_offset != t->bytes)
        return error_set(e, ERR_FORMAT,
                         "tensor %s: its offsets span %llu bytes, its shape needs %llu", t->name,
                         (unsigned long long)(end - t->file_offset), (unsigned long long)t->bytes);
    t->file_offset += f->header_bytes;
    return OK;
}

static enum err read_entry(struct modelfile *m, int file_i, const char *name, const json_t *entry,
                           struct error *e)
{
    char translated[MODEL_MAX_NAME];
    struct tensor_claim claim = {.file_i = file_i};
    uint64_t end = 0;
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return error_set(e, ERR_FORMAT,
                         "tensor %.100s: expected exactly \"dtype\", \"shape\" and "
                         "\"data_offsets\"",
                         name);
    enum err err = read_type(name, entry, &claim.type, e);
    if (err == OK)
        err = read_shape(name, entry, &claim, e);
    if (err == OK)
        err = read_offsets(name, entry, &claim.file_offset, &end, e);
    if (err != OK)
        return err;
    claim.name = name;
    if (hf_tensor_name(name, translated))
        claim.name = translated; /* else too long: refused as it is */
    claim.name_bytes = strlen(claim.name);
    err = modelfile_add_tensor(m, &claim, e);
    return err == OK ? place(&m->tensors[m->n_tensors - 1], &m->files[file_i], end, e) : err;
}

static enum err check_metadata(const json_t *metadata, struct error *e)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return error_set(e, ERR_FORMAT, "\"__metadata__\" is not an object");
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return error_set(e, ERR_FORMAT, "\"__metadata__\": %.64s is not a string", key);
    }
    return OK;
}

/* Overlaps are found later, so equal sums mean that there is no hole either. */
static enum err check_cover(const struct modelfile *m, int file_i, int first, struct error *e)
{
    const struct mapped_file *f = &m->files[file_i];
    uint64_t sum = 0;
    for (int i = first; i < m->n_tensors; i++)
        sum += m->tensors[i].bytes; /* each lies inside the file: no wrap before 2^20 tensors */
    if (sum != f->bytes - f->header_bytes)
        return error_set(e, ERR_FORMAT, "its tensors take %llu bytes, the data has %llu",
                         (unsigned long long)sum, (unsigned long long)(f->bytes - f->header_bytes));
    return OK;
}

static enum err read_entries(struct modelfile *m, int file_i, json_t *header, struct error *e)
{
    const char *name;
    json_t *entry;
    int first = m->n_tensors;
    json_object_foreach(header, name, entry)
    {
        enum err err = strcmp(name, "__metadata__") == 0 ? check_metadata(entry, e)
                                                         : read_entry(m, file_i, name, entry, e);
        if (err != OK)
            return err;
    }
    return check_cover(m, file_i, first, e);
}

enum err safetensors_read(struct modelfile *m, int file_i, struct error *e)
{
    struct mapped_file *f = &m->files[file_i];
    uint64_t header_bytes;
    if (f->bytes < sizeof(header_bytes))
        return error_set(e, ERR_FORMAT, "has %llu bytes, too short for a safetensors file",
                         (unsigned long long)f->bytes);
    memcpy(&header_bytes, f->data, sizeof(header_bytes));
    if (header_bytes > f->bytes - sizeof(header_bytes))
        return error_set(e, ERR_FORMAT, "declares a header of %llu bytes, the file has %llu",
                         (unsigned long long)header_bytes, (unsigned long long)f->bytes);
    if (header_bytes > SAFETENSORS_MAX_HEADER)
        return error_set(e, ERR_LIMIT, "declares a header of %llu bytes, limit %d",
                         (unsigned long long)header_bytes, SAFETENSORS_MAX_HEADER);
    f->header_bytes = sizeof(header_bytes) + header_bytes;

    json_t *header;
    enum err err = json_parse((const char *)f->data + sizeof(header_bytes), header_bytes,
                              "the header", &header, e);
    if (err != OK)
        return err;
    err = read_entries(m, file_i, header, e);
    json_decref(header);
    return err;
}
