/* GGUF: header, metadata, tensor table (docs/formats/gguf.md).
 *
 * One pass over the header with a cursor that never goes past the end of the file; every length is
 * compared with what is left before it is used, and tables grow as elements really appear, so a
 * file that lies about a count is refused before it costs memory. Strings and arrays stay in the
 * mapping; only names are copied. A split model is its first part's metadata plus the tensor
 * tables of all parts. */
#include "modelfile/modelfile_impl.h"

#include "base/panic.h"
#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GGUF_MAX_ARRAY_DEPTH = 4,
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_MAX_ALIGNMENT = 1 << 20,
};

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    N_GGUF_TYPES
};

static const struct {
    enum meta_type type;
    int bytes; /* of a number; 0 where it varies */
} gguf_types[N_GGUF_TYPES] = {
    [GGUF_U8] = {META_UINT, 1},     [GGUF_I8] = {META_INT, 1},    [GGUF_U16] = {META_UINT, 2},
    [GGUF_I16] = {META_INT, 2},     [GGUF_U32] = {META_UINT, 4},  [GGUF_I32] = {META_INT, 4},
    [GGUF_F32] = {META_FLOAT, 4},   [GGUF_BOOL] = {META_BOOL, 1}, [GGUF_STRING] = {META_STRING, 0},
    [GGUF_ARRAY] = {META_ARRAY, 0}, [GGUF_U64] = {META_UINT, 8},  [GGUF_I64] = {META_INT, 8},
    [GGUF_F64] = {META_FLOAT, 8},
};

/* ---- the cursor ---- */

struct cursor {
    const uint8_t *data;
    uint64_t bytes, at; /* at <= bytes */
};

static bool take(struct cursor *c, uint64_t n, const uint8_t **out)
{
    if (n > c->bytes - c->at)
        return false;
    *out = c->data + c->at;
    c->at += n;
    return true;
}

static bool take_u32(struct cursor *c, uint32_t *out)
{
    const uint8_t *p;
    if (!take(c, sizeof(*out), &p))
        return false;
    memcpy(out, p, sizeof(*out));
    return true;
}

static bool take_u64(struct cursor *c, uint64_t *out)
{
    const uint8_t *p;
    if (!take(c, sizeof(*out), &p))
        return false;
    memcpy(out, p, sizeof(*out));
    return true;
}

static bool take_string(struct cursor *c, const char **out, uint64_t *bytes)
{
    const uint8_t *p;
    if (!take_u64(c, bytes) || !take(c, *bytes, &p))
        return false;
    *out = (const char *)p;
    return true;
}

static enum err error_short(const struct cursor *c, const char *what, struct error *e)
{
    return error_set(e, ERR_FORMAT, "%s at byte %llu goes past the end of the file (%llu bytes)",
                     what, (unsigned long long)c->at, (unsigned long long)c->bytes);
}

/* ---- metadata ---- */

static int64_t sign_extend(uint64_t bits, int bytes)
{
    int shift = 64 - 8 * bytes;
    return (int64_t)(bits << shift) >> shift;
}

/* A number, or ERR_FORMAT for a boolean that is neither 0 nor 1. */
static enum err decode_number(enum gguf_type type, const uint8_t *p, struct meta_value *v,
                              struct error *e)
{
    int bytes = gguf_types[type].bytes;
    uint64_t bits = 0;
    memcpy(&bits, p, (size_t)bytes);
    v->type = gguf_types[type].type;
    switch (v->type) {
    case META_FLOAT:
        if (bytes == 4) {
            float f;
            memcpy(&f, p, sizeof(f));
            v->f = (double)f;
        } else {
            memcpy(&v->f, p, sizeof(v->f));
        }
        return OK;
    case META_INT: v->i = sign_extend(bits, bytes); return OK;
    case META_BOOL:
        if (bits > 1)
            return error_set(e, ERR_FORMAT, "a boolean is %llu, expected 0 or 1",
                             (unsigned long long)bits);
        v->u = bits;
        return OK;
    default:
        v->u = bits;
        v->i = bits <= INT64_MAX ? (int64_t)bits : INT64_MAX;
        return OK;
    }
}

static enum err read_array(struct cursor *c, int depth, struct meta_value *v, struct error *e);

/* Step over one string or array that is an array's element. */
static enum err skip_element(struct cursor *c, enum gguf_type type, int depth, struct error *e)
{
    const char *string;
    uint64_t bytes;
    struct meta_value ignored;
    if (type == GGUF_ARRAY)
        return read_array(c, depth + 1, &ignored, e);
    return take_string(c, &string, &bytes) ? OK : error_short(c, "a string", e);
}

static enum err check_booleans(const uint8_t *p, uint64_t n, struct error *e)
{
    for (uint64_t i = 0; i < n; i++) {
        if (p[i] > 1)
            return error_set(e, ERR_FORMAT, "boolean %llu of an array is %d, expected 0 or 1",
                             (unsigned long long)i, p[i]);
    }
    return OK;
}

static enum err read_number_array(struct cursor *c, enum gguf_type type, struct meta_value *v,
                                  struct error *e)
{
    const uint8_t *p;
    v->elem_bytes = gguf_types[type].bytes;
    v->bytes = v->n_elems * (uint64_t)v->elem_bytes; /* n_elems <= MODEL_MAX_ARRAY */
    if (!take(c, v->bytes, &p))
        return error_short(c, "an array", e);
    v->elems = p;
    return type == GGUF_BOOL ? check_booleans(p, v->n_elems, e) : OK;
}

static enum err read_array(struct cursor *c, int depth, struct meta_value *v, struct error *e)
{
    uint32_t type;
    if (depth > GGUF_MAX_ARRAY_DEPTH)
        return error_set(e, ERR_LIMIT, "arrays are nested more than %d deep", GGUF_MAX_ARRAY_DEPTH);
    if (!take_u32(c, &type) || !take_u64(c, &v->n_elems))
        return error_short(c, "an array", e);
    if (type >= N_GGUF_TYPES)
        return error_set(e, ERR_FORMAT, "array elements of unknown type %u", type);
    if (v->n_elems > MODEL_MAX_ARRAY)
        return error_set(e, ERR_LIMIT, "an array of %llu elements, limit %d",
                         (unsigned long long)v->n_elems, MODEL_MAX_ARRAY);
    v->type = META_ARRAY;
    v->elem = gguf_types[type].type;
    if (gguf_types[type].bytes > 0)
        return read_number_array(c, (enum gguf_type)type, v, e);

    uint64_t start = c->at;
    v->elems = c->data + start;
    for (uint64_t i = 0; i < v->n_elems; i++) {
        enum err err = skip_element(c, (enum gguf_type)type, depth, e);
        if (err != OK)
            return err;
    }
    v->bytes = c->at - start;
    return OK;
}

static enum err read_value(struct cursor *c, struct meta_value *v, struct error *e)
{
    uint32_t type;
    const uint8_t *p;
    *v = (struct meta_value){0};
    if (!take_u32(c, &type))
        return error_short(c, "its type", e);
    if (type >= N_GGUF_TYPES)
        return error_set(e, ERR_FORMAT, "unknown value type %u", type);
    if (type == GGUF_ARRAY)
        return read_array(c, 1, v, e);
    if (type == GGUF_STRING) {
        v->type = META_STRING;
        return take_string(c, &v->string, &v->bytes) ? OK : error_short(c, "its string", e);
    }
    if (!take(c, (uint64_t)gguf_types[type].bytes, &p))
        return error_short(c, "its value", e);
    return decode_number((enum gguf_type)type, p, v, e);
}

static enum err read_key(struct modelfile *m, struct cursor *c, const char **key, struct error *e)
{
    const char *text;
    uint64_t bytes;
    if (!take_string(c, &text, &bytes))
        return error_short(c, "a metadata key", e);
    if (bytes == 0 || bytes >= MODEL_MAX_NAME)
        return error_set(e, bytes ? ERR_LIMIT : ERR_FORMAT,
                         "a metadata key has %llu bytes, "
                         "expected 1 to %d",
                         (unsigned long long)bytes, MODEL_MAX_NAME - 1);
    for (uint64_t i = 0; i < bytes; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return error_set(e, ERR_FORMAT,
                             "metadata key \"%.*s\" has byte 0x%02x in it, expected ASCII", (int)i,
                             text, (unsigned char)text[i]);
    }
    *key = arena_strndup(&m->names, text, (size_t)bytes);
    return *key != NULL ? OK : error_set(e, ERR_MEMORY, "no memory for metadata");
}

static enum err read_metadata(struct modelfile *m, struct cursor *c, uint64_t n,
                              struct meta_table *meta, struct error *e)
{
    for (uint64_t i = 0; i < n; i++) {
        struct meta_entry entry;
        enum err err = read_key(m, c, &entry.name, e);
        if (err != OK)
            return err;
        err = read_value(c, &entry.value, e);
        if (err != OK) {
            error_prefix(e, "metadata %.100s", entry.name);
            return err;
        }
        if (!table_reserve((void **)&meta->entries, sizeof(entry), meta->n, &meta->capacity))
            return error_set(e, ERR_MEMORY, "no memory for metadata");
        meta->entries[meta->n++] = entry;
    }
    int twice_i = 0;
    enum err err =
        name_index_build(&meta->index, meta->entries, sizeof(*meta->entries), meta->n, &twice_i);
    if (err == ERR_FORMAT)
        return error_set(e, err, "metadata %s stands twice", meta->entries[twice_i].name);
    return err == OK ? OK : error_set(e, err, "no memory for metadata");
}

const struct meta_value *meta_table_find(const struct meta_table *t, const char *key)
{
    int entry_i = name_index_find(&t->index, key);
    return entry_i < 0 ? NULL : &t->entries[entry_i].value;
}

void meta_table_release(struct meta_table *t)
{
    name_index_release(&t->index);
    free(t->entries);
    *t = (struct meta_table){0};
}

bool modelfile_array_string(const struct meta_value *array, uint64_t elem_i, const void **cursor,
                            const char **string, uint64_t *bytes)
{
    if (array->type != META_ARRAY || array->elem != META_STRING || elem_i >= array->n_elems)
        return false;
    struct cursor c = {.data = array->elems, .bytes = array->bytes};
    uint64_t n_skip = elem_i;
    if (cursor != NULL && *cursor != NULL) {
        c.at = (uint64_t)((const uint8_t *)*cursor - c.data);
        n_skip = 0;
        if (c.at > c.bytes)
            return false;
    }
    for (uint64_t i = 0; i <= n_skip; i++) {
        if (!take_string(&c, string, bytes))
            return false;
    }
    if (cursor != NULL)
        *cursor = c.data + c.at;
    return true;
}

/* ---- tensors ---- */

static enum err read_tensor(struct modelfile *m, struct cursor *c, struct tensor_claim *claim,
                            struct error *e)
{
    uint64_t name_bytes;
    uint32_t n_dims;
    if (!take_string(c, &claim->name, &name_bytes) || !take_u32(c, &n_dims))
        return error_short(c, "the tensor table", e);
    claim->name_bytes = (size_t)name_bytes;
    claim->n_dims = n_dims <= MODEL_MAX_DIMS ? (int)n_dims : MODEL_MAX_DIMS + 1;
    for (uint32_t i = 0; i < n_dims && i < MODEL_MAX_DIMS; i++) {
        if (!take_u64(c, &claim->dims[i]))
            return error_short(c, "the tensor table", e);
    }
    if (n_dims <= MODEL_MAX_DIMS &&
        (!take_u32(c, &claim->type) || !take_u64(c, &claim->file_offset)))
        return error_short(c, "the tensor table", e);
    enum err err = modelfile_add_tensor(m, claim, e);
    if (err == OK && claim->type >= N_GGUF_DTYPES)
        err = error_set(e, ERR_UNSUPPORTED, "tensor %s: unknown element type %u",
                        m->tensors[m->n_tensors - 1].name, claim->type);
    return err;
}

/* From offset in the data section to offset in the file, with all bounds. */
static enum err place_tensor(struct model_tensor *t, const struct mapped_file *f,
                             uint64_t alignment, struct error *e)
{
    uint64_t start, end;
    if (t->file_offset % alignment != 0)
        return error_set(e, ERR_FORMAT,
                         "tensor %s: offset %llu is no multiple of the alignment %llu", t->name,
                         (unsigned long long)t->file_offset, (unsigned long long)alignment);
    if (!size_add(f->header_bytes, t->file_offset, &start) || !size_add(start, t->bytes, &end))
        return error_set(e, ERR_FORMAT, "tensor %s: offset %llu overflows", t->name,
                         (unsigned long long)t->file_offset);
    if (end > f->bytes)
        return error_set(e, ERR_FORMAT, "tensor %s ends at byte %llu, the file at %llu: truncated?",
                         t->name, (unsigned long long)end, (unsigned long long)f->bytes);
    t->file_offset = start;
    return OK;
}

static enum err read_alignment(const struct meta_table *meta, uint64_t *alignment, struct error *e)
{
    const struct meta_value *v = meta_table_find(meta, "general.alignment");
    *alignment = GGUF_DEFAULT_ALIGNMENT;
    if (v == NULL)
        return OK;
    if (v->type != META_UINT || v->u == 0 || v->u > GGUF_MAX_ALIGNMENT || (v->u & (v->u - 1)) != 0)
        return error_set(e, ERR_FORMAT,
                         "general.alignment is %lld, expected a power of two up to %d",
                         (long long)v->i, GGUF_MAX_ALIGNMENT);
    *alignment = v->u;
    return OK;
}

static enum err read_tensors(struct modelfile *m, struct cursor *c, uint64_t n, int file_i,
                             const struct meta_table *meta, struct error *e)
{
    struct mapped_file *f = &m->files[file_i];
    uint64_t alignment;
    int first = m->n_tensors;
    enum err err = read_alignment(meta, &alignment, e);
    for (uint64_t i = 0; i < n && err == OK; i++) {
        struct tensor_claim claim = {.file_i = file_i};
        err = read_tensor(m, c, &claim, e);
    }
    if (err != OK)
        return err;
    if (!size_align(c->at, alignment, &f->header_bytes) || f->header_bytes > f->bytes) {
        if (n > 0)
            return error_short(c, "the tensor data", e);
        f->header_bytes = f->bytes; /* a vocabulary needs no padding behind it */
    }
    for (int i = first; i < m->n_tensors && err == OK; i++)
        err = place_tensor(&m->tensors[i], f, alignment, e);
    return err;
}

/* ---- a file ---- */

static enum err read_counts(struct cursor *c, uint64_t *n_tensors, uint64_t *n_meta,
                            struct error *e)
{
    const uint8_t *magic;
    uint32_t version;
    if (!take(c, 4, &magic))
        return error_set(e, ERR_FORMAT, "has %llu bytes, too short for a GGUF file",
                         (unsigned long long)c->bytes);
    if (memcmp(magic, "GGUF", 4) != 0)
        return error_set(e, ERR_FORMAT,
                         "not a GGUF file: begins with %02x %02x %02x %02x, expected \"GGUF\"",
                         magic[0], magic[1], magic[2], magic[3]);
    if (!take_u32(c, &version) || !take_u64(c, n_tensors) || !take_u64(c, n_meta))
        return error_short(c, "the GGUF header", e);
    if (version != 0 && (version & 0xffff) == 0)
        return error_set(e, ERR_UNSUPPORTED,
                         "a big-endian GGUF file (version bytes swapped); "
                         "only little-endian ones are supported");
    if (version != 2 && version != 3)
        return error_set(e, ERR_UNSUPPORTED, "GGUF version %u, supported are 2 and 3", version);
    if (*n_tensors > MODEL_MAX_TENSORS || *n_meta > MODEL_MAX_METADATA)
        return error_set(e, ERR_LIMIT,
                         "declares %llu tensors and %llu metadata pairs, limits %d, %d",
                         (unsigned long long)*n_tensors, (unsigned long long)*n_meta,
                         MODEL_MAX_TENSORS, MODEL_MAX_METADATA);
    return OK;
}

enum err gguf_read(struct modelfile *m, int file_i, struct meta_table *meta, struct error *e)
{
    const struct mapped_file *f = &m->files[file_i];
    struct cursor c = {.data = f->data, .bytes = f->bytes};
    uint64_t n_tensors = 0, n_meta = 0;
    enum err err = read_counts(&c, &n_tensors, &n_meta, e);
    if (err == OK)
        err = read_metadata(m, &c, n_meta, meta, e);
    if (err == OK)
        err = read_tensors(m, &c, n_tensors, file_i, meta, e);
    return err;
}

/* ---- split models ---- */

static uint64_t uint_or(const struct meta_table *meta, const char *key, uint64_t fallback)
{
    const struct meta_value *v = meta_table_find(meta, key);
    return v != NULL && (v->type == META_UINT || (v->type == META_INT && v->i >= 0))
               ? (v->type == META_UINT ? v->u : (uint64_t)v->i)
               : fallback;
}

/* The path of part `part` (from 0) beside the path of the first; false if that has no such name. */
static bool part_path(const char *first, int part, int n_parts, char *out, size_t out_bytes)
{
    char tail[40];
    int n_tail = snprintf(tail, sizeof(tail), "-%05d-of-%05d.gguf", 1, n_parts);
    size_t n = strlen(first);
    if (n < (size_t)n_tail || strcmp(first + n - n_tail, tail) != 0)
        return false;
    int n_out = snprintf(out, out_bytes, "%.*s-%05d-of-%05d.gguf", (int)(n - (size_t)n_tail), first,
                         part + 1, n_parts);
    return n_out > 0 && (size_t)n_out < out_bytes;
}

static enum err read_part(struct modelfile *m, const char *path, int part, int n_parts,
                          struct error *e)
{
    int file_i;
    struct meta_table meta = {0};
    enum err err = modelfile_add_file(m, path, &file_i, e);
    if (err == OK)
        err = gguf_read(m, file_i, &meta, e);
    if (err == OK && (uint_or(&meta, "split.no", UINT64_MAX) != (uint64_t)part ||
                      uint_or(&meta, "split.count", 0) != (uint64_t)n_parts))
        err = error_set(e, ERR_MISMATCH, "says it is part %lld of %lld, expected %d of %d",
                        (long long)uint_or(&meta, "split.no", 0) + 1,
                        (long long)uint_or(&meta, "split.count", 0), part + 1, n_parts);
    if (err != OK)
        error_prefix(e, "part %d of %d", part + 1, n_parts);
    meta_table_release(&meta);
    return err;
}

static enum err read_other_parts(struct modelfile *m, const char *path, struct error *e)
{
    uint64_t n_parts = uint_or(&m->meta, "split.count", 1);
    uint64_t part_no = uint_or(&m->meta, "split.no", 0);
    uint64_t n_tensors = uint_or(&m->meta, "split.tensors.count", 0);
    if (n_parts <= 1)
        return OK;
    if (n_parts > MODEL_MAX_FILES)
        return error_set(e, ERR_LIMIT, "a model in %llu parts, limit %d",
                         (unsigned long long)n_parts, MODEL_MAX_FILES);
    if (part_no != 0)
        return error_set(e, ERR_INVALID, "part %llu of %llu of a split model: give the first part",
                         (unsigned long long)part_no + 1, (unsigned long long)n_parts);
    for (int part = 1; part < (int)n_parts; part++) {
        char next[4096];
        if (path == NULL || !part_path(path, part, (int)n_parts, next, sizeof(next)))
            return error_set(e, ERR_INVALID,
                             "a model in %llu parts, whose first must be named "
                             "…-00001-of-%05llu.gguf",
                             (unsigned long long)n_parts, (unsigned long long)n_parts);
        enum err err = read_part(m, next, part, (int)n_parts, e);
        if (err != OK)
            return err;
    }
    if (n_tensors != (uint64_t)m->n_tensors)
        return error_set(e, ERR_MISMATCH, "%d parts hold %d tensors, split.tensors.count is %llu",
                         (int)n_parts, m->n_tensors, (unsigned long long)n_tensors);
    return OK;
}

/* path is NULL where the one file is already there, in memory. */
enum err gguf_open(struct modelfile *m, const char *path, struct error *e)
{
    int file_i = 0;
    m->format = MODEL_GGUF;
    enum err err = path != NULL ? modelfile_add_file(m, path, &file_i, e) : OK;
    if (err == OK)
        err = gguf_read(m, file_i, &m->meta, e);
    if (err == OK)
        err = read_other_parts(m, path, e);
    return err;
}
