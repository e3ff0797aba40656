/* A model whose tensors arrive from a peer: the same tables over one anonymous mapping.
 *
 * Every tensor begins on a page of its own, so that giving one back (modelfile_discard after it
 * was packed) frees exactly its pages and disturbs no neighbour. Pages are backed only once they
 * are written: a stage that fetches and packs tensor by tensor never holds them all. */
#include "modelfile/modelfile_impl.h"

#include "base/panic.h"
#include "base/size.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static enum err add_tensors(struct modelfile *m, const struct modelfile_remote_tensor *tensors,
                            int n_tensors, struct error *e)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), at = 0;
    for (int i = 0; i < n_tensors; i++) {
        const struct modelfile_remote_tensor *r = &tensors[i];
        struct tensor_claim claim = {.name = r->name,
                                     .name_bytes = strnlen(r->name, MODEL_MAX_NAME),
                                     .type = r->type,
                                     .n_dims = r->n_dims,
                                     .file_offset = at};
        memcpy(claim.dims, r->dims, sizeof(claim.dims));
        enum err err = modelfile_add_tensor(m, &claim, e);
        if (err != OK)
            return err;
        const struct model_tensor *t = &m->tensors[m->n_tensors - 1];
        if (!size_add(at, t->bytes, &at) || !size_align(at, page, &at) || at > INT64_MAX)
            return error_set(e, ERR_LIMIT, "tensor %s: the sizes overflow together", t->name);
    }
    m->remote_bytes = at > 0 ? at : page;
    return OK;
}

static enum err map_buffer(struct modelfile *m, struct error *e)
{
    void *memory = mmap(NULL, (size_t)m->remote_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return error_errno(e, ERR_MEMORY, errno, "cannot reserve %llu bytes for tensors",
                           (unsigned long long)m->remote_bytes);
    m->remote = memory;
    return OK;
}

enum err modelfile_new_remote(const char *label, const struct model_params *params,
                              const struct modelfile_remote_tensor *tensors, int n_tensors,
                              struct modelfile **out, struct error *e)
{
    *out = NULL;
    struct modelfile *m = modelfile_new(label);
    if (m == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %s", path_tail(label));
    m->params = *params;
    enum err err = add_tensors(m, tensors, n_tensors, e);
    if (err == OK)
        err = map_buffer(m, e);
    if (err == OK)
        err = modelfile_finish(m, e);
    if (err != OK) {
        error_prefix(e, "%s", path_tail(label));
        modelfile_close(m);
        return err;
    }
    *out = m;
    return OK;
}

void *modelfile_remote_buffer(struct modelfile *m, const struct model_tensor *t)
{
    ASSERT(m->remote != NULL);
    ASSERT(t >= m->tensors && t < m->tensors + m->n_tensors);
    return m->remote + t->file_offset;
}

void modelfile_set_fetch(struct modelfile *m, modelfile_fetch fetch, void *context)
{
    ASSERT(m->remote != NULL);
    m->fetch = fetch;
    m->fetch_context = context;
}

enum err modelfile_need(struct modelfile *m, const struct model_tensor *t, struct error *e)
{
    if (m->fetch != NULL)
        return m->fetch(m->fetch_context, t, modelfile_remote_buffer(m, t), e);
    return OK;
}
