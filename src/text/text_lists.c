/* The growing lists of this module: ids, and tables of strings. */
#include "text/text.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

/* Make room for n_more elements behind n: the capacity at least doubles. */
static enum err grow(void **p, size_t *capacity, size_t n, size_t n_more, size_t elem_bytes,
                     struct error *e)
{
    uint64_t wanted, bytes;
    if (size_add(n, n_more, &wanted) && wanted <= *capacity)
        return OK;
    if (wanted < 2 * *capacity)
        wanted = 2 * *capacity;
    if (wanted < 16)
        wanted = 16;
    if (!size_add(n, n_more, &bytes) || !size_mul(wanted, elem_bytes, &bytes))
        return error_set(e, ERR_MEMORY, "%zu elements: size overflows", n_more);
    void *grown = realloc(*p, (size_t)bytes);
    if (grown == NULL)
        return error_set(e, ERR_MEMORY, "out of memory for %zu elements", (size_t)wanted);
    *p = grown;
    *capacity = (size_t)wanted;
    return OK;
}

enum err token_list_append(struct token_list *list, const uint32_t *ids, size_t n, struct error *e)
{
    void *p = list->ids;
    enum err err = grow(&p, &list->capacity, list->n, n, sizeof(*ids), e);
    if (err != OK)
        return err;
    list->ids = p;
    if (n > 0)
        memcpy(list->ids + list->n, ids, n * sizeof(*ids));
    list->n += n;
    return OK;
}

enum err string_table_append(struct string_table *table, const char *string, size_t bytes,
                             struct error *e)
{
    size_t used = table->n > 0 ? (size_t)table->offsets[table->n] : 0;
    void *p = table->offsets;
    /* One offset more than strings. */
    enum err err = grow(&p, &table->capacity, table->n, 2, sizeof(*table->offsets), e);
    if (err != OK)
        return err;
    table->offsets = p;
    p = table->blob;
    err = grow(&p, &table->blob_capacity, used, bytes, 1, e);
    if (err != OK)
        return err;
    table->blob = p;
    if (bytes > 0)
        memcpy(table->blob + used, string, bytes);
    table->offsets[table->n++] = used;
    table->offsets[table->n] = used + bytes;
    return OK;
}

void token_list_release(struct token_list *list)
{
    free(list->ids);
    memset(list, 0, sizeof(*list));
}

void string_table_release(struct string_table *table)
{
    free(table->blob);
    free(table->offsets);
    memset(table, 0, sizeof(*table));
}
