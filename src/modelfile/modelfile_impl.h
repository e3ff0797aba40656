/* What the files of this module share: the mapped files, the tables being filled while a model is
 * opened, and the steps that every format goes through.
 *
 *     modelfile_open ── mapping.c        maps each file
 *        ├─ gguf.c + gguf_params.c        fills tensors, metadata, parameters
 *        └─ hf_folder.c + safetensors.c + hf_names.c + hf_config.c
 *     then modelfile.c: index, overlap check, identity. remote.c fills the same tables itself. */
#ifndef SHOAL_MODELFILE_MODELFILE_IMPL_H
#define SHOAL_MODELFILE_MODELFILE_IMPL_H

#include "modelfile/modelfile.h"

#include "base/arena.h"

/* One file: mapped, or (is_borrowed) memory of the caller. */
struct mapped_file {
    char *path;
    const uint8_t *data; /* "" for an empty file */
    uint64_t bytes;
    uint64_t header_bytes; /* before the tensor data; all of it enters the identity */
    bool is_borrowed;
};

/* Map a regular file of at most max_bytes. ERR_NOT_FOUND if there is none of that name. */
enum err file_map(const char *path, uint64_t max_bytes, struct mapped_file *out, struct error *e);
void file_unmap(struct mapped_file *f);
/* madvise over the pages that [offset, offset + bytes) of a mapping touches. */
void pages_advise(const void *base, uint64_t offset, uint64_t bytes, int advice);

/* Open-addressing index over an array whose elements begin with a `const char *` name. */
struct name_index {
    int32_t *slots; /* element or -1 */
    uint32_t mask;
    uint64_t seed;
    const char *base;
    size_t stride;
};
/* ERR_FORMAT and *duplicate_i where two elements have the same name. */
enum err name_index_build(struct name_index *x, const void *base, size_t stride, int n,
                          int *duplicate_i);
int name_index_find(const struct name_index *x, const char *name); /* or -1 */
void name_index_release(struct name_index *x);

struct meta_entry {
    const char *name; /* first: name_index reads it */
    struct meta_value value;
};
struct meta_table {
    struct meta_entry *entries;
    int n, capacity;
    struct name_index index;
};
const struct meta_value *meta_table_find(const struct meta_table *t, const char *key); /* or NULL */
void meta_table_release(struct meta_table *t);

struct model_text {
    const char *name;
    struct mapped_file file;
};
enum { MODEL_MAX_TEXTS = 16 };

struct modelfile {
    enum model_format format;
    char *path;
    struct mapped_file *files;
    int n_files;
    struct model_tensor *tensors; /* name is the first member: name_index reads it */
    int n_tensors, tensors_capacity;
    struct name_index tensor_index;
    struct meta_table meta;
    struct model_text texts[MODEL_MAX_TEXTS];
    int n_texts;
    struct arena names; /* copies, as long as the model is open */
    struct model_params params;
    struct error params_error; /* code is OK where params are valid */
    struct model_identity identity;
    uint8_t *remote; /* the anonymous mapping of a remote model, else NULL */
    uint64_t remote_bytes;
    modelfile_fetch fetch; /* or NULL */
    void *fetch_context;
};

/* An empty model of that path; NULL without memory. modelfile_close undoes it. */
struct modelfile *modelfile_new(const char *path);

/* Room for one more element; false when memory ran out. Capacities double. */
bool table_reserve(void **items, size_t item_bytes, int n, int *capacity);

/* The tail of a path that still leaves room for the message in a struct error. */
const char *path_tail(const char *path);

/* The steps of opening. Errors name the tensor or key; the callers put the file in front. */
enum err modelfile_add_file(struct modelfile *m, const char *path, int *file_i, struct error *e);

/* A tensor as a file describes it, not yet believed. */
struct tensor_claim {
    const char *name;
    size_t name_bytes;
    uint32_t type;
    int n_dims;
    uint64_t dims[MODEL_MAX_DIMS]; /* innermost first */
    int file_i;
    uint64_t file_offset;
};
/* Check name, type and shape, work out the sizes and append. Bounds in the file: the caller. */
enum err modelfile_add_tensor(struct modelfile *m, const struct tensor_claim *c, struct error *e);

/* Index the names and refuse duplicates and overlaps; then hash the headers. */
enum err modelfile_finish(struct modelfile *m, struct error *e);

/* Formats. gguf_read and safetensors_read parse a file that is already in m->files. */
enum err gguf_open(struct modelfile *m, const char *path, struct error *e);
enum err gguf_read(struct modelfile *m, int file_i, struct meta_table *meta, struct error *e);
enum err gguf_params(const struct modelfile *m, struct model_params *p, struct error *e);
enum err safetensors_read(struct modelfile *m, int file_i, struct error *e);
enum err hf_params(const struct modelfile *m, struct model_params *p, struct error *e);
enum err hf_folder_open(struct modelfile *m, const char *path, struct error *e);
enum err hf_file_open(struct modelfile *m, const char *path, struct error *e);

/* GGUF's name of a Hugging Face tensor, or the name itself where it has no counterpart; written to
 * out (MODEL_MAX_NAME bytes). False if the result is too long. */
bool hf_tensor_name(const char *name, char *out);
/* A model with tied embeddings may store only its head: rename that to the embedding. */
void hf_tie_embedding(struct modelfile *m, bool is_tied);

/* JSON text of at most MODEL_MAX_JSON_BYTES; duplicate keys refused. `what` names it in errors. */
struct json_t;
enum err json_parse(const char *text, uint64_t bytes, const char *what, struct json_t **out,
                    struct error *e);

/* config.json (its whole text) to parameters. */
enum err hf_config_params(const char *text, uint64_t bytes, struct model_params *p,
                          struct error *e);
/* What config.json says of tied embeddings (absent: the family's default). */
enum err hf_config_tied(const char *text, uint64_t bytes, bool *is_tied, struct error *e);

/* Ranges of bounds.h, the same for both formats; key names a parameter in errors. */
enum err params_check(const struct model_params *p, struct error *e);

#endif
