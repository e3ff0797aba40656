/* A model on disk as one directory of named tensors plus a description, whatever its format.
 *
 * Opens a GGUF file (v2, v3), or a folder in Hugging Face layout (config.json and one or
 * several .safetensors, perhaps with an index), checks everything (magic, counts, types, shapes,
 * offsets inside the file, no overlap, no duplicates) and maps the data read-only. Nothing of the
 * tensor data is touched by opening; a caller that reads only some layers' tensors makes only
 * their pages resident (modelfile_advise helps both ways).
 *
 * Tensor names are GGUF's ("blk.3.attn_q.weight"), also for Hugging Face folders, whose names are
 * translated when opening. Values are never changed: a folder's q and k weights keep the "halves"
 * order of rope pairs, GGUF's "llama" ones neighbouring pairs; `rope_pairing` tells.
 *
 * A struct modelfile is immutable after opening and may be used from any number of threads
 * (filling a remote one's buffers is the caller's to order).
 * Strings and pointers that it hands out live until modelfile_close.
 * Files must not shrink while they are open: reading a page that is gone ends the process, as with
 * every mapping.
 * Formats: docs/formats/gguf.md, docs/formats/safetensors.md. */
#ifndef SHOAL_MODELFILE_MODELFILE_H
#define SHOAL_MODELFILE_MODELFILE_H

#include "base/bounds.h"
#include "base/error.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct modelfile;

enum model_format {
    MODEL_GGUF,
    MODEL_HF, /* Hugging Face folder */
};

/* One tensor. Shapes are row-major: n_rows rows of n_cols elements (a vector is one row);
 * GGUF's ne[0] is n_cols. Tensors with more than two dimensions fold the outer ones into n_rows,
 * dims keeps them as the file states them, innermost first. */
struct model_tensor {
    const char *name;
    uint32_t type; /* enum dtype; a known type, not necessarily a computable one */
    int n_dims;
    uint64_t dims[MODEL_MAX_DIMS]; /* innermost first; unused are 1 */
    uint64_t n_rows, n_cols;
    uint64_t bytes;       /* of the data */
    int file_i;           /* which file of the model holds it; remote: 0 */
    uint64_t file_offset; /* of the data from that file's start; remote: from the buffer's */
};

/* A metadata value. Strings are not 0-terminated: use bytes. Arrays of strings are read element
 * by element with modelfile_array_string; other arrays give their packed little-endian elements
 * (booleans are checked to be 0 or 1); arrays of arrays are only counted. */
enum meta_type { META_UINT, META_INT, META_FLOAT, META_BOOL, META_STRING, META_ARRAY };

struct meta_value {
    enum meta_type type;
    uint64_t u; /* META_UINT, META_BOOL */
    int64_t i;  /* META_INT, and META_UINT where it fits */
    double f;   /* META_FLOAT */
    const char *string;
    uint64_t bytes;          /* of the string, of all elements of the array */
    enum meta_type elem;     /* of an array */
    int elem_bytes;          /* of a number array: 1, 2, 4, 8 */
    uint64_t n_elems;
    const void *elems;       /* packed numbers (perhaps unaligned), or opaque for strings */
};

/* The hyper-parameters of a decoder-only transformer, from GGUF metadata or config.json, each
 * inside the ranges of base/bounds.h. Architecture-specific ones are zero where absent. */
enum rope_pairing {
    ROPE_NEIGHBOURS, /* pairs (0,1), (2,3), …  GGUF "llama" */
    ROPE_HALVES,     /* pairs (0,n/2), (1,n/2+1), …  Hugging Face, GGUF "qwen2" */
};

/* Besides, a tensor rope_freqs.weight may hold a divisor for each frequency (GGUF). */
enum rope_scaling {
    ROPE_SCALING_NONE,
    ROPE_SCALING_LINEAR, /* positions divided by factor */
    ROPE_SCALING_LLAMA3, /* per frequency, by wavelength */
};

struct model_params {
    char architecture[64]; /* as the file says: "llama", "LlamaForCausalLM" */
    char name[128];
    int n_layers;
    int hidden;
    int ffn;
    int n_heads;
    int n_kv_heads;
    int head_size;
    int rope_size; /* dimensions of a head that are rotated; = head_size usually */
    int vocab;
    int context; /* positions the model was trained for */
    int window;  /* in every layer a position sees so many, its own the last of them; 0: all */
    float norm_eps;
    float rope_base;
    enum rope_pairing rope_pairing;
    enum rope_scaling rope_scaling;
    float rope_factor;
    float rope_low_freq_factor, rope_high_freq_factor; /* llama3 */
    int rope_original_context;                         /* llama3 */
    bool tied_head;                                    /* no separate output matrix in the file */
};

/* Open and validate `path`: a GGUF file (of a split one the first part, "-00001-of-0000N.gguf";
 * the others are found beside it), a Hugging Face folder, or one .safetensors file alone. On
 * failure *out is NULL and *e names file, expectation and finding. A vocabulary-only GGUF (no
 * tensors) and a folder with only tokenizer.json or only config.json open too. */
enum err modelfile_open(const char *path, struct modelfile **out, struct error *e);

/* The same over the bytes of one GGUF or .safetensors file in memory, which stay the caller's and
 * must live until modelfile_close. `label` stands for the path. */
enum err modelfile_open_memory(const char *label, const void *bytes, size_t n_bytes,
                               struct modelfile **out, struct error *e);
void modelfile_close(struct modelfile *m); /* NULL allowed */

enum model_format modelfile_format(const struct modelfile *m);
const char *modelfile_path(const struct modelfile *m);

/* The hyper-parameters; ERR_NOT_FOUND / ERR_UNSUPPORTED / ERR_INVALID with the key named where one
 * is missing, not understood (an unknown configuration key that would change results) or out of
 * range. A vocabulary-only GGUF and a folder without config.json have none (ERR_NOT_FOUND).
 * Tensors are not compared with them: that is the model module's part. */
enum err modelfile_params(const struct modelfile *m, struct model_params *out, struct error *e);

int modelfile_n_tensors(const struct modelfile *m);
const struct model_tensor *modelfile_tensor(const struct modelfile *m, int tensor_i);
const struct model_tensor *modelfile_find(const struct modelfile *m, const char *name); /* or NULL */

/* OK if the backends can multiply with the tensor's type, else ERR_UNSUPPORTED naming tensor,
 * type and the types that they can. */
enum err modelfile_computable(const struct model_tensor *t, struct error *e);

/* The mapped bytes of a tensor (read-only, alignment as in the file: possibly none). */
const void *modelfile_data(const struct modelfile *m, const struct model_tensor *t);

/* Tell the system that a tensor's bytes will be read soon (will_need) or no more (not). */
void modelfile_advise(const struct modelfile *m, const struct model_tensor *t, bool will_need);

/* Metadata: GGUF pairs; a Hugging Face folder has none (its JSON texts are below). */
int modelfile_n_meta(const struct modelfile *m);
const char *modelfile_meta_key(const struct modelfile *m, int meta_i);
bool modelfile_meta(const struct modelfile *m, const char *key, struct meta_value *out);
bool modelfile_meta_at(const struct modelfile *m, int meta_i, struct meta_value *out);
/* Element elem_i of a string array; false if there is none. `*cursor` starts at NULL and makes a
 * walk linear: each further call with the same cursor must ask for the next element. Without a
 * walk pass cursor = NULL (each call then costs elem_i steps). */
bool modelfile_array_string(const struct meta_value *array, uint64_t elem_i, const void **cursor,
                            const char **string, uint64_t *bytes);

/* A text file of a Hugging Face folder, mapped when opening if present: "config.json",
 * "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json",
 * "added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt".
 * Not 0-terminated. NULL if absent or a GGUF. */
const char *modelfile_text(const struct modelfile *m, const char *file_name, size_t *bytes);

/* What makes two copies of a model the same model: total size of the files and a 128-bit xxh3 hash
 * of headers and tensor tables (every file's bytes before its tensor data, config.json included).
 * Two nodes whose identities agree may each use their own copy. */
struct model_identity {
    uint64_t total_bytes;
    uint64_t hash[2];
};
void modelfile_identity(const struct modelfile *m, struct model_identity *out);

/* The same view over tensors that did not come from a local file but from a peer: `params`,
 * tensor descriptions as in struct model_tensor, data in memory of our own (anonymous mapping, one
 * piece, filled by the caller through modelfile_remote_buffer before anything reads it).
 * Used by a worker that has no copy of the model. */
struct modelfile_remote_tensor {
    char name[MODEL_MAX_NAME];
    uint32_t type;
    int n_dims;
    uint64_t dims[MODEL_MAX_DIMS];
};
enum err modelfile_new_remote(const char *label, const struct model_params *params,
                              const struct modelfile_remote_tensor *tensors, int n_tensors,
                              struct modelfile **out, struct error *e);
/* Writable memory of one tensor of a remote modelfile (t->bytes bytes). */
void *modelfile_remote_buffer(struct modelfile *m, const struct model_tensor *t);
/* Let the tensors of a remote modelfile be fetched one by one, when modelfile_need asks: so a worker
 * never holds more than one of them beside its packed weights. `fetch` fills `into`. */
typedef enum err (*modelfile_fetch)(void *context, const struct model_tensor *t, void *into,
                                    struct error *e);
void modelfile_set_fetch(struct modelfile *m, modelfile_fetch fetch, void *context);
/* About to read a tensor's data: fetch it (remote with a fetch function). Of a file's, only
 * modelfile_advise makes reading faster. */
enum err modelfile_need(struct modelfile *m, const struct model_tensor *t, struct error *e);
/* Give one tensor's memory back after it was packed (remote) or drop its pages (mapped). */
void modelfile_discard(struct modelfile *m, const struct model_tensor *t);

#endif
