/* The shared view: opening by kind, the checks that hold for every format, look-up, identity.
 *
 * A file is believed in steps. The format's reader checks counts and bounds as it goes and hands
 * each tensor to modelfile_add_tensor, which works out its size in checked arithmetic; when all
 * are there modelfile_finish refuses duplicates and overlaps. Nothing reads tensor data. */
#include "modelfile/modelfile_impl.h"

#include "base/panic.h"
#include "base/size.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "model files are read in place");

bool table_reserve(void **items, size_t item_bytes, int n, int *capacity)
{
    if (n < *capacity)
        return true;
    int wanted = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(*items, (size_t)wanted * item_bytes);
    if (grown == NULL)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

const char *path_tail(const char *path)
{
    enum { SHOWN = 96 };
    size_t bytes = strlen(path);
    return bytes > SHOWN ? path + bytes - SHOWN : path;
}

/* ---- opening ---- */

struct modelfile *modelfile_new(const char *path)
{
    struct modelfile *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    /* The most that names can be: arena pieces are rounded up to 64 bytes. */
    arena_init(&m->names, (size_t)(MODEL_MAX_TENSORS + MODEL_MAX_METADATA) * (MODEL_MAX_NAME + 64));
    m->path = strdup(path);
    if (m->path == NULL) {
        free(m);
        return NULL;
    }
    return m;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static enum err open_path(struct modelfile *m, const char *path, struct error *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return error_errno(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "cannot open");
    if (S_ISDIR(st.st_mode))
        return hf_folder_open(m, path, e);
    if (ends_with(path, ".safetensors"))
        return hf_file_open(m, path, e);
    return gguf_open(m, path, e);
}

/* Parameters are worked out once; why there are none is kept for modelfile_params. */
static void read_params(struct modelfile *m)
{
    struct error why = {.code = OK};
    enum err err =
        m->format == MODEL_GGUF ? gguf_params(m, &m->params, &why) : hf_params(m, &m->params, &why);
    if (err != OK) {
        m->params_error = why;
        error_prefix(&m->params_error, "%s", path_tail(m->path));
    }
}

/* The end of every open: hand out or undo. */
static enum err open_end(struct modelfile *m, enum err err, struct modelfile **out, struct error *e)
{
    if (err == OK)
        err = modelfile_finish(m, e);
    if (err != OK) {
        error_prefix(e, "%s", path_tail(m->path));
        modelfile_close(m);
        return err;
    }
    read_params(m);
    *out = m;
    return OK;
}

enum err modelfile_open(const char *path, struct modelfile **out, struct error *e)
{
    *out = NULL;
    struct modelfile *m = modelfile_new(path);
    if (m == NULL)
        return error_set(e, ERR_MEMORY, "no memory to open %s", path_tail(path));
    return open_end(m, open_path(m, path, e), out, e);
}

enum err modelfile_open_memory(const char *label, const void *bytes, size_t n_bytes,
                               struct modelfile **out, struct error *e)
{
    *out = NULL;
    struct modelfile *m = modelfile_new(label);
    struct mapped_file *file = calloc(1, sizeof(*file));
    if (m == NULL || file == NULL) {
        free(file);
        modelfile_close(m);
        return error_set(e, ERR_MEMORY, "no memory to open %s", path_tail(label));
    }
    *file = (struct mapped_file){.data = bytes, .bytes = n_bytes, .is_borrowed = true};
    m->files = file;
    m->n_files = 1;
    bool is_gguf = n_bytes >= 4 && memcmp(bytes, "GGUF", 4) == 0;
    return open_end(m, is_gguf ? gguf_open(m, NULL, e) : hf_file_open(m, NULL, e), out, e);
}

void modelfile_close(struct modelfile *m)
{
    if (m == NULL)
        return;
    for (int i = 0; i < m->n_files; i++)
        file_unmap(&m->files[i]);
    for (int i = 0; i < m->n_texts; i++)
        file_unmap(&m->texts[i].file);
    if (m->remote != NULL)
        munmap(m->remote, (size_t)m->remote_bytes);
    name_index_release(&m->tensor_index);
    meta_table_release(&m->meta);
    arena_release(&m->names);
    free(m->files);
    free(m->tensors);
    free(m->path);
    free(m);
}

enum err modelfile_add_file(struct modelfile *m, const char *path, int *file_i, struct error *e)
{
    if (m->n_files >= MODEL_MAX_FILES)
        return error_set(e, ERR_LIMIT, "more than %d files", MODEL_MAX_FILES);
    struct mapped_file *files = realloc(m->files, (size_t)(m->n_files + 1) * sizeof(*files));
    if (files == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the list of files");
    m->files = files;
    enum err err = file_map(path, SIZE_MAX, &files[m->n_files], e);
    if (err == OK)
        *file_i = m->n_files++;
    return err;
}

/* ---- what every tensor must hold ---- */

static enum err check_name(const struct tensor_claim *c, struct error *e)
{
    if (c->name_bytes == 0)
        return error_set(e, ERR_FORMAT, "a tensor has an empty name");
    if (c->name_bytes >= MODEL_MAX_NAME)
        return error_set(e, ERR_LIMIT, "tensor \"%.64s…\" has a name of %zu bytes, limit %d",
                         c->name, c->name_bytes, MODEL_MAX_NAME - 1);
    for (size_t i = 0; i < c->name_bytes; i++) {
        unsigned char byte = (unsigned char)c->name[i];
        if (byte < 0x20 || byte > 0x7e)
            return error_set(e, ERR_FORMAT,
                             "tensor \"%.*s\" has byte 0x%02x in its name, expected ASCII", (int)i,
                             c->name, byte);
    }
    return OK;
}

/* The sizes of `t`, whose name, type and dims are set. */
static enum err measure(struct model_tensor *t, struct error *e)
{
    const struct dtype_info *info = dtype_info(t->type);
    uint64_t row_bytes;
    t->n_cols = t->dims[0];
    t->n_rows = 1;
    for (int i = 0; i < MODEL_MAX_DIMS; i++) {
        if (t->dims[i] == 0)
            return error_set(e, ERR_FORMAT, "tensor %s: dimension %d is 0", t->name, i);
        if (i > 0 && !size_mul(t->n_rows, t->dims[i], &t->n_rows))
            return error_set(e, ERR_FORMAT, "tensor %s: its shape overflows", t->name);
    }
    if (t->n_cols % (uint64_t)info->block_elems != 0)
        return error_set(e, ERR_FORMAT,
                         "tensor %s: rows of %llu elements, %s needs multiples of %d", t->name,
                         (unsigned long long)t->n_cols, info->name, info->block_elems);
    if (!dtype_row_bytes(t->type, t->n_cols, &row_bytes) ||
        !size_mul(row_bytes, t->n_rows, &t->bytes) || t->bytes > INT64_MAX)
        return error_set(e, ERR_FORMAT, "tensor %s: its size overflows", t->name);
    return OK;
}

enum err modelfile_add_tensor(struct modelfile *m, const struct tensor_claim *c, struct error *e)
{
    enum err err = check_name(c, e);
    if (err != OK)
        return err;
    if (m->n_tensors >= MODEL_MAX_TENSORS)
        return error_set(e, ERR_LIMIT, "more than %d tensors", MODEL_MAX_TENSORS);
    const char *name = arena_strndup(&m->names, c->name, c->name_bytes);
    if (name == NULL || !table_reserve((void **)&m->tensors, sizeof(*m->tensors), m->n_tensors,
                                       &m->tensors_capacity))
        return error_set(e, ERR_MEMORY, "no memory for %d tensors", m->n_tensors + 1);
    if (dtype_info(c->type) == NULL)
        return error_set(e, ERR_UNSUPPORTED, "tensor %s: unknown element type %u", name, c->type);
    if (c->n_dims < 0 || c->n_dims > MODEL_MAX_DIMS)
        return error_set(e, ERR_FORMAT, "tensor %s: more than %d dimensions", name, MODEL_MAX_DIMS);
    struct model_tensor t = {.name = name,
                             .type = c->type,
                             .n_dims = c->n_dims,
                             .file_i = c->file_i,
                             .file_offset = c->file_offset};
    for (int i = 0; i < MODEL_MAX_DIMS; i++)
        t.dims[i] = i < c->n_dims ? c->dims[i] : 1;
    err = measure(&t, e);
    if (err == OK)
        m->tensors[m->n_tensors++] = t;
    return err;
}

/* ---- what all tensors together must hold ---- */

static int by_place(const void *left, const void *right)
{
    const struct model_tensor *a = *(const struct model_tensor *const *)left;
    const struct model_tensor *b = *(const struct model_tensor *const *)right;
    if (a->file_i != b->file_i)
        return a->file_i < b->file_i ? -1 : 1;
    return (a->file_offset > b->file_offset) - (a->file_offset < b->file_offset);
}

static enum err check_overlap(const struct modelfile *m, struct error *e)
{
    const struct model_tensor **sorted = malloc(((size_t)m->n_tensors + 1) * sizeof(*sorted));
    if (sorted == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %d tensors", m->n_tensors);
    for (int i = 0; i < m->n_tensors; i++)
        sorted[i] = &m->tensors[i];
    qsort(sorted, (size_t)m->n_tensors, sizeof(*sorted), by_place);
    enum err err = OK;
    for (int i = 1; i < m->n_tensors && err == OK; i++) {
        const struct model_tensor *a = sorted[i - 1], *b = sorted[i];
        if (a->file_i == b->file_i && b->file_offset - a->file_offset < a->bytes)
            err = error_set(e, ERR_FORMAT, "tensors %.80s and %.80s overlap at byte %llu", a->name,
                            b->name, (unsigned long long)b->file_offset);
    }
    free(sorted);
    return err;
}

static void hash_part(XXH3_state_t *state, const struct mapped_file *f)
{
    /* The length in front keeps the border between two headers part of what is hashed. */
    uint64_t bytes = f->header_bytes;
    XXH3_128bits_update(state, &bytes, sizeof(bytes));
    XXH3_128bits_update(state, f->data, (size_t)bytes);
}

static enum err make_identity(struct modelfile *m, struct error *e)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a hash");
    XXH3_128bits_reset(state);
    for (int i = 0; i < m->n_texts; i++) {
        if (strcmp(m->texts[i].name, "config.json") == 0) {
            hash_part(state, &m->texts[i].file);
            m->identity.total_bytes += m->texts[i].file.bytes;
        }
    }
    for (int i = 0; i < m->n_files; i++) {
        hash_part(state, &m->files[i]);
        m->identity.total_bytes += m->files[i].bytes;
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    m->identity.hash[0] = hash.low64;
    m->identity.hash[1] = hash.high64;
    XXH3_freeState(state);
    return OK;
}

enum err modelfile_finish(struct modelfile *m, struct error *e)
{
    int twice_i = 0;
    enum err err =
        name_index_build(&m->tensor_index, m->tensors, sizeof(*m->tensors), m->n_tensors, &twice_i);
    if (err == ERR_FORMAT)
        return error_set(e, err, "two tensors are named %s", m->tensors[twice_i].name);
    if (err != OK)
        return error_set(e, err, "no memory for the index of %d tensors", m->n_tensors);
    err = check_overlap(m, e);
    return err != OK ? err : make_identity(m, e);
}

/* ---- the view ---- */

enum model_format modelfile_format(const struct modelfile *m)
{
    return m->format;
}

const char *modelfile_path(const struct modelfile *m)
{
    return m->path;
}

enum err modelfile_params(const struct modelfile *m, struct model_params *out, struct error *e)
{
    if (m->params_error.code != OK) {
        if (e != NULL)
            *e = m->params_error;
        return m->params_error.code;
    }
    *out = m->params;
    return OK;
}

int modelfile_n_tensors(const struct modelfile *m)
{
    return m->n_tensors;
}

const struct model_tensor *modelfile_tensor(const struct modelfile *m, int tensor_i)
{
    ASSERT(tensor_i >= 0 && tensor_i < m->n_tensors);
    return &m->tensors[tensor_i];
}

const struct model_tensor *modelfile_find(const struct modelfile *m, const char *name)
{
    int tensor_i = name_index_find(&m->tensor_index, name);
    return tensor_i < 0 ? NULL : &m->tensors[tensor_i];
}

enum err modelfile_computable(const struct model_tensor *t, struct error *e)
{
    if (dtype_info(t->type)->computable)
        return OK;
    char can[96] = "";
    for (uint32_t type = 0; type < N_DTYPES; type++) {
        const struct dtype_info *info = dtype_info(type);
        if (info == NULL || !info->computable)
            continue;
        if (can[0] != 0)
            strncat(can, ", ", sizeof(can) - strlen(can) - 1);
        strncat(can, info->name, sizeof(can) - strlen(can) - 1);
    }
    return error_set(e, ERR_UNSUPPORTED, "tensor %s has type %s; supported are %s", t->name,
                     dtype_name(t->type), can);
}

static const uint8_t *storage_of(const struct modelfile *m, const struct model_tensor *t)
{
    ASSERT(t >= m->tensors && t < m->tensors + m->n_tensors);
    return m->remote != NULL ? m->remote : m->files[t->file_i].data;
}

const void *modelfile_data(const struct modelfile *m, const struct model_tensor *t)
{
    return storage_of(m, t) + t->file_offset;
}

void modelfile_advise(const struct modelfile *m, const struct model_tensor *t, bool will_need)
{
    const uint8_t *base = storage_of(m, t);
    /* Memory of our own has nothing behind it that could be read again: leave it alone. */
    if (m->remote == NULL && !m->files[t->file_i].is_borrowed)
        pages_advise(base, t->file_offset, t->bytes, will_need ? MADV_WILLNEED : MADV_DONTNEED);
}

void modelfile_discard(struct modelfile *m, const struct model_tensor *t)
{
    if (m->remote != NULL)
        pages_advise(m->remote, t->file_offset, t->bytes, MADV_DONTNEED);
    else
        modelfile_advise(m, t, false);
}

int modelfile_n_meta(const struct modelfile *m)
{
    return m->meta.n;
}

const char *modelfile_meta_key(const struct modelfile *m, int meta_i)
{
    ASSERT(meta_i >= 0 && meta_i < m->meta.n);
    return m->meta.entries[meta_i].name;
}

bool modelfile_meta_at(const struct modelfile *m, int meta_i, struct meta_value *out)
{
    if (meta_i < 0 || meta_i >= m->meta.n)
        return false;
    *out = m->meta.entries[meta_i].value;
    return true;
}

bool modelfile_meta(const struct modelfile *m, const char *key, struct meta_value *out)
{
    const struct meta_value *value = meta_table_find(&m->meta, key);
    if (value != NULL)
        *out = *value;
    return value != NULL;
}

const char *modelfile_text(const struct modelfile *m, const char *file_name, size_t *bytes)
{
    for (int i = 0; i < m->n_texts; i++) {
        if (strcmp(m->texts[i].name, file_name) == 0) {
            *bytes = (size_t)m->texts[i].file.bytes;
            return (const char *)m->texts[i].file.data;
        }
    }
    return NULL;
}

void modelfile_identity(const struct modelfile *m, struct model_identity *out)
{
    *out = m->identity;
}
