/* Small pieces come from the heap, very large ones are mappings of their own. What is between,
 * which is nearly every weight, is cut one after the other from regions: a matrix is seldom a whole
 * number of huge pages, and in a mapping of its own its end (of a 1B model's weights one byte in
 * seven) would stand on small pages. A region is address space, not memory: what nobody has written
 * takes none.
 *
 *     region   [header | piece | piece | piece | … not cut yet ]   REGION bytes, aligned to as many
 *
 * Freeing a piece gives its whole pages back to the system at once; it is not cut again (so that
 * every piece is zero), and the region goes with its last piece. A page that two pieces share stays
 * until its whole huge page is without pieces. It must go then: of a huge page with a single small
 * page in memory the system may at any time make a whole one again, filled with zeros. */
#include "backend/cpu/memory.h"

#include "base/size.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ALIGNMENT = 64,
    HEAP_LIMIT = 64 << 10,
    HUGE_PAGE = 2 << 20,
    REGION = 256 << 20,
    REGION_LIMIT = REGION / 4, /* from here up a piece has a mapping of its own */
    HUGE_PAGES = REGION / HUGE_PAGE,
};

/* The first bytes of a region. */
struct region {
    size_t used; /* the header included */
    size_t n_pieces;
    uint32_t n_living[HUGE_PAGES]; /* pieces with a byte in it; the header counts as one */
};

enum { HEADER = (sizeof(struct region) + ALIGNMENT - 1) & -ALIGNMENT };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards `current` and all headers */
static struct region *current;                           /* where pieces are cut; NULL: none yet */

/* A mapping of `bytes` at a multiple of `alignment`: it is made longer, and the overhangs are given
 * back. NULL: no memory. */
static void *map_aligned(size_t bytes, size_t alignment)
{
    uint64_t longer, whole, page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!size_align(bytes, page, &whole) || !size_add(whole, alignment, &longer))
        return NULL;
    char *start = mmap(NULL, longer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)start % alignment;
    size_t after = longer - before - whole;
    if (before > 0)
        munmap(start, before);
    if (after > 0)
        munmap(start + before + whole, after);
    madvise(start + before, whole, MADV_HUGEPAGE); /* a wish: without it the memory works too */
    return start + before;
}

static struct region *region_of(const char *piece)
{
    return (struct region *)((uintptr_t)piece & -(uintptr_t)REGION);
}

/* Where a piece begins and ends, in huge pages of its region: the last is one of its own. */
static size_t first_huge(const char *piece)
{
    return (size_t)(piece - (char *)region_of(piece)) / HUGE_PAGE;
}

static size_t last_huge(const char *piece, size_t bytes)
{
    return (size_t)(piece + bytes - 1 - (char *)region_of(piece)) / HUGE_PAGE;
}

/* `lock` is held. */
static void *cut(size_t bytes)
{
    if (current == NULL || bytes > REGION - current->used) {
        struct region *fresh = map_aligned(REGION, REGION);
        if (fresh == NULL)
            return NULL;
        current = fresh; /* the one before goes with its last piece */
        current->used = HEADER;
        current->n_living[0] = 1;
    }
    char *piece = (char *)current + current->used;
    current->used += bytes;
    current->n_pieces++;
    for (size_t i = first_huge(piece); i <= last_huge(piece, bytes); i++)
        current->n_living[i]++;
    return piece;
}

/* `lock` is held. */
static void give_back(char *piece, size_t bytes)
{
    struct region *r = region_of(piece);
    if (--r->n_pieces == 0) {
        munmap(r, REGION);
        current = r == current ? NULL : current;
        return;
    }
    size_t first = first_huge(piece), last = last_huge(piece, bytes);
    for (size_t i = first; i <= last; i++)
        r->n_living[i]--;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), region = (uintptr_t)r,
              start = ((uintptr_t)piece + page - 1) & -page,
              end = ((uintptr_t)piece + bytes) & -page;
    if (r->n_living[first] == 0)
        start = region + first * HUGE_PAGE;
    if (r->n_living[last] == 0)
        end = region + (last + 1) * HUGE_PAGE;
    if (start < end)
        madvise((void *)start, end - start, MADV_DONTNEED);
}

void *cpu_alloc(size_t bytes)
{
    uint64_t whole;
    if (bytes >= REGION_LIMIT)
        return map_aligned(bytes, HUGE_PAGE);
    if (!size_align(bytes ? bytes : 1, ALIGNMENT, &whole))
        return NULL;
    if (bytes >= HEAP_LIMIT) {
        pthread_mutex_lock(&lock);
        void *piece = cut(whole);
        pthread_mutex_unlock(&lock);
        return piece;
    }
    void *p = aligned_alloc(ALIGNMENT, whole);
    if (p != NULL)
        memset(p, 0, whole);
    return p;
}

void cpu_free(void *p, size_t bytes)
{
    if (p == NULL)
        return;
    if (bytes >= REGION_LIMIT) {
        munmap(p, bytes);
    } else if (bytes >= HEAP_LIMIT) {
        pthread_mutex_lock(&lock);
        give_back(p, bytes);
        pthread_mutex_unlock(&lock);
    } else {
        free(p);
    }
}
