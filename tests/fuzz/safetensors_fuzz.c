/* Fuzz entry: any bytes as a .safetensors file. Whatever opens has tensors that lie inside the
 * input, end to end without a hole. */
#include "modelfile/modelfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct modelfile *m;
    struct error e;
    uint64_t sum = 0;
    if (bytes >= 4 && memcmp(data, "GGUF", 4) == 0)
        return 0; /* the other reader's: gguf_fuzz */
    if (modelfile_open_memory("input", data, bytes, &m, &e) != OK)
        return 0;
    for (int i = 0; i < modelfile_n_tensors(m); i++) {
        const struct model_tensor *t = modelfile_tensor(m, i);
        const uint8_t *start = modelfile_data(m, t);
        if (modelfile_find(m, t->name) != t || start < data || t->bytes == 0 ||
            t->bytes > (uint64_t)(data + bytes - start))
            abort();
        sum += t->bytes;
    }
    if (sum > bytes - 8)
        abort();
    modelfile_close(m);
    return 0;
}
