/* Files and memory as pages: read-only mappings of what is on disk. */
#include "modelfile/modelfile_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Map an open descriptor; *out has its path already. */
static enum err map_descriptor(int fd, uint64_t max_bytes, struct mapped_file *out, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_errno(e, ERR_IO, errno, "cannot examine the file");
    if (!S_ISREG(st.st_mode))
        return error_set(e, ERR_INVALID, "not a regular file");
    if ((uint64_t)st.st_size > max_bytes)
        return error_set(e, ERR_LIMIT, "has %llu bytes, limit %llu", (unsigned long long)st.st_size,
                         (unsigned long long)max_bytes);
    if (st.st_size == 0) {
        out->data = (const uint8_t *)"";
        return OK;
    }
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return error_errno(e, ERR_IO, errno, "cannot map %llu bytes",
                           (unsigned long long)st.st_size);
    out->data = data;
    out->bytes = (uint64_t)st.st_size;
    return OK;
}

enum err file_map(const char *path, uint64_t max_bytes, struct mapped_file *out, struct error *e)
{
    memset(out, 0, sizeof(*out));
    /* O_NONBLOCK: opening a FIFO without a writer must fail, not hang. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_errno(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "cannot open");
    out->path = strdup(path);
    enum err err = out->path ? map_descriptor(fd, max_bytes, out, e)
                             : error_set(e, ERR_MEMORY, "no memory for a path");
    close(fd);
    if (err != OK)
        file_unmap(out);
    return err;
}

void file_unmap(struct mapped_file *f)
{
    if (f->bytes > 0 && !f->is_borrowed)
        munmap((void *)(uintptr_t)f->data, (size_t)f->bytes);
    free(f->path);
    memset(f, 0, sizeof(*f));
}

void pages_advise(const void *base, uint64_t offset, uint64_t bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)base + (uintptr_t)offset) & ~(page - 1);
    uintptr_t end = (uintptr_t)base + (uintptr_t)(offset + bytes);
    /* Advice only: a system that refuses it works the same, with other memory use. */
    (void)madvise((void *)start, end - start, advice);
}
