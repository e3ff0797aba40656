#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const kv_type_names[] = {"f16", "f32", "q8", NULL};

enum err read_whole_file(const char *path, size_t max_bytes, struct strbuf *out, struct error *e)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    if (f == NULL)
        return error_errno(e, ERR_IO, errno, "%s", path);
    char piece[1 << 16];
    size_t n;
    strbuf_init(out, max_bytes);
    /* A device may have no end: reading stops where nothing more may be kept. */
    while (!out->failed && (n = fread(piece, 1, sizeof piece, f)) > 0)
        strbuf_append(out, piece, n);
    enum err err = OK;
    if (ferror(f))
        err = error_errno(e, ERR_IO, errno, "reading %s", path);
    else if (out->failed)
        err = error_set(e, ERR_LIMIT, "%s: expected at most %zu bytes that fit in memory", path,
                        max_bytes);
    if (!is_stdin)
        fclose(f);
    if (err != OK)
        strbuf_release(out);
    return err;
}

enum err print_json(json_t *object, struct error *e)
{
    if (object == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for the JSON output, or a value that is none");
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (text == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the JSON output");
    puts(text);
    free(text);
    return OK;
}

void show_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    enum { WIDTH = 40 };
    if (!isatty(STDERR_FILENO) || total_bytes == 0)
        return;
    double share = (double)done_bytes / (double)total_bytes;
    int full = (int)(share * WIDTH);
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f %% of %.0f MB", (const char *)context, full,
            "########################################", WIDTH - full, "", share * 100,
            (double)total_bytes / 1e6);
    if (done_bytes >= total_bytes)
        fputs("\r\x1b[K", stderr);
    fflush(stderr);
}

enum err open_model_and_tokenizer(const char *path, struct modelfile **file,
                                  struct tokenizer **tokenizer, struct error *e)
{
    *tokenizer = NULL;
    enum err err = modelfile_open(path, file, e);
    if (err != OK)
        return err;
    err = tokenizer_open(*file, tokenizer, e);
    if (err != OK) {
        modelfile_close(*file);
        *file = NULL;
    }
    return err;
}
