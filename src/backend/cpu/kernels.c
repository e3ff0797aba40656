/* Choosing the kernels. */
#include "backend/cpu/kernels.h"

#include <stdio.h>
#include <string.h>

void kernels_names(char *text, size_t text_bytes)
{
    size_t used = (size_t)snprintf(text, text_bytes, "ref");
    for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++)
        if (isa->present() && used < text_bytes)
            used += (size_t)snprintf(text + used, text_bytes - used, ", %s", isa->name);
}

/* The ISA of that name, present or not; NULL if this program has none. */
static const struct isa *find_isa(const char *name)
{
    for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++)
        if (strcmp(isa->name, name) == 0)
            return isa;
    return NULL;
}

enum err kernels_select(const char *name, struct kernels *out, struct error *e)
{
    bool best = name == NULL || name[0] == '\0';
    bool ref_only = !best && strcmp(name, "ref") == 0;
    const struct isa *last = best || ref_only ? NULL : find_isa(name);
    if (!best && !ref_only && (last == NULL || !last->present())) {
        char names[64];
        kernels_names(names, sizeof names);
        return error_set(e, ERR_INVALID, "SHOAL_CPU: expected one of %s, found \"%s\"%s", names,
                         name, last ? ", which this processor does not have" : "");
    }
    kernels_ref(out);
    for (const struct isa *isa = kernels_isas; !ref_only && isa->name != NULL; isa++) {
        if (isa->present() && (isa->numerics_id == NULL || isa == last)) {
            isa->fill(out);
            out->variant = isa->name;
            if (isa->numerics_id != NULL)
                out->numerics_id = isa->numerics_id;
        }
        if (isa == last)
            break;
    }
    return OK;
}
