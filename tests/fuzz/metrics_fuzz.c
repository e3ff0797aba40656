/* What `shoal top` may be given in the place of a server's metrics, and the views of it: the text
 * is read whole, and its two halves as two snapshots. */
#include "cli/top_view.h"

#include "base/panic.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct metrics_snapshot a, b;
    static struct top_view view;
    const char *text = (const char *)data;
    struct error e;
    if (metrics_read(text, bytes / 2, &a, &e) != OK || metrics_read(text, bytes, &b, &e) != OK)
        return 0;
    b.at_s = a.at_s + 1;
    ASSERT(b.n_stages >= 0 && b.n_stages <= RING_MAX_STAGES);
    if (!top_view_make(&a, &b, &view))
        return 0;
    ASSERT(view.bottleneck < view.n_stages);
    struct strbuf out;
    strbuf_init(&out, 1 << 20);
    top_view_append(&out, &view);
    ASSERT(!out.failed);
    strbuf_release(&out);
    json_t *json = top_view_json(&view);
    ASSERT(json != NULL);
    json_decref(json);
    return 0;
}
