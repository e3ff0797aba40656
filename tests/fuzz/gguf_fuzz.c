/* Fuzz entry: any bytes as a GGUF file. Whatever opens is walked to the last promised byte: each
 * tensor's first and last one, each metadata value, each string of an array, the parameters. */
#include "modelfile/modelfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Read a byte where the optimiser cannot see that nobody wants it. */
static void touch(const void *p)
{
    (void)*(const volatile uint8_t *)p;
}

static void walk_strings(const struct meta_value *array)
{
    const void *cursor = NULL;
    const char *string;
    uint64_t bytes;
    for (uint64_t i = 0; i < array->n_elems; i++) {
        if (!modelfile_array_string(array, i, &cursor, &string, &bytes))
            abort(); /* opening has counted them */
        if (bytes > 0)
            touch(string + bytes - 1);
    }
}

static void walk_metadata(const struct modelfile *m)
{
    for (int i = 0; i < modelfile_n_meta(m); i++) {
        struct meta_value v;
        if (!modelfile_meta(m, modelfile_meta_key(m, i), &v))
            abort();
        if (v.type == META_STRING && v.bytes > 0)
            touch(v.string + v.bytes - 1);
        if (v.type == META_ARRAY && v.bytes > 0)
            touch((const char *)v.elems + v.bytes - 1);
        if (v.type == META_ARRAY && v.elem == META_STRING)
            walk_strings(&v);
    }
}

static void walk_tensors(const struct modelfile *m)
{
    for (int i = 0; i < modelfile_n_tensors(m); i++) {
        const struct model_tensor *t = modelfile_tensor(m, i);
        const char *start = modelfile_data(m, t);
        if (modelfile_find(m, t->name) != t || t->bytes == 0 || strlen(t->name) >= MODEL_MAX_NAME)
            abort();
        touch(start);
        touch(start + t->bytes - 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct modelfile *m;
    struct model_params p;
    struct error e;
    if (bytes < 4 || memcmp(data, "GGUF", 4) != 0)
        return 0; /* the other reader's: safetensors_fuzz */
    if (modelfile_open_memory("input", data, bytes, &m, &e) != OK)
        return 0;
    walk_metadata(m);
    walk_tensors(m);
    (void)modelfile_params(m, &p, &e);
    modelfile_close(m);
    return 0;
}
