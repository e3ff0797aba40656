/* Small pieces come from the heap. From HEAP_LIMIT up a piece is a mapping of its own, so that
 * unloading a model returns its memory at once; from HUGE_PAGE up it starts on a huge page
 * boundary: the mapping is made one huge page longer and both overhangs are given back. */
#include "backend/cpu/memory.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HEAP_LIMIT = 64 << 10, HUGE_PAGE = 2 << 20 };

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void *map_huge(size_t bytes)
{
    uint64_t longer, whole;
    if (!size_align(bytes, 4096, &whole) || !size_add(whole, HUGE_PAGE, &longer))
        return NULL;
    char *start = map(longer);
    if (start == NULL)
        return NULL;
    size_t before = -(uintptr_t)start % HUGE_PAGE;
    size_t after = longer - before - whole;
    if (before > 0)
        munmap(start, before);
    if (after > 0)
        munmap(start + before + whole, after);
    madvise(start + before, whole, MADV_HUGEPAGE); /* a wish: without it the memory works too */
    return start + before;
}

void *cpu_alloc(size_t bytes)
{
    if (bytes >= HUGE_PAGE)
        return map_huge(bytes);
    if (bytes >= HEAP_LIMIT)
        return map(bytes);
    uint64_t whole;
    if (!size_align(bytes ? bytes : 1, ALIGNMENT, &whole))
        return NULL;
    void *p = aligned_alloc(ALIGNMENT, whole);
    if (p != NULL)
        memset(p, 0, whole);
    return p;
}

void cpu_free(void *p, size_t bytes)
{
    if (p == NULL)
        return;
    if (bytes >= HEAP_LIMIT)
        munmap(p, bytes);
    else
        free(p);
}
