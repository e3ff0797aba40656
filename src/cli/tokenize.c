/* shoal tokenize: text to ids, or ids to text. */
#include "cli/cli.h"
#include "cli/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenize_flags {
    const char *file, *decode;
    bool no_bos, no_parse_special, json;
};

/* Decimal ids separated by blanks, commas or line ends. */
static enum err read_ids(const char *text, struct token_list *ids, struct error *e)
{
    enum err err = OK;
    for (const char *at = text; err == OK;) {
        at += strspn(at, " ,\t\r\n");
        if (*at == 0)
            return OK;
        char *end;
        unsigned long id = strtoul(at, &end, 10); /* which would also take blanks and a sign */
        if (*at < '0' || *at > '9' || id >= TOKEN_NONE)
            return error_set(e, ERR_USAGE,
                             "--decode: expected token ids separated by blanks, found \"%.20s\"",
                             at);
        at = end;
        err = token_list_append(ids, &(uint32_t){(uint32_t)id}, 1, e);
    }
    return err;
}

static enum err decode(const struct tokenizer *t, const char *text, bool json, struct error *e)
{
    struct token_list ids = {0};
    struct strbuf out;
    strbuf_init(&out, TEXT_MAX_BYTES);
    enum err err = read_ids(text, &ids, e);
    if (err == OK)
        err = tokenizer_decode(t, ids.ids, ids.n, 0, &out, e);
    if (err == OK && json) {
        err = print_json(json_pack("{s:s%}", "text", out.data, out.bytes), e);
    } else if (err == OK) {
        fwrite(out.data, 1, out.bytes, stdout);
        putchar('\n');
    }
    strbuf_release(&out);
    token_list_release(&ids);
    return err;
}

static enum err print_ids(const struct token_list *ids, bool json, struct error *e)
{
    json_t *array = json ? json_array() : NULL;
    for (size_t i = 0; i < ids->n; i++) {
        if (json)
            json_array_append_new(array, json_integer(ids->ids[i]));
        else
            printf(i > 0 ? " %u" : "%u", ids->ids[i]);
    }
    if (json)
        return print_json(json_pack("{s:o}", "ids", array), e);
    putchar('\n');
    return OK;
}

static enum err encode(const struct tokenizer *t, const struct tokenize_flags *f, const char *text,
                       struct error *e)
{
    struct strbuf whole;
    strbuf_init(&whole, TEXT_MAX_BYTES);
    enum err err = OK;
    if (f->file != NULL)
        err = read_whole_file(f->file, TEXT_MAX_BYTES, &whole, e);
    else
        strbuf_puts(&whole, text);
    if (err == OK && whole.failed)
        err = error_set(e, ERR_MEMORY, "no memory for the text");
    if (err != OK)
        return err;
    struct token_list ids = {0};
    unsigned flags = (f->no_bos ? 0 : TOKENIZER_ADD_SPECIAL) |
                     (f->no_parse_special ? 0 : TOKENIZER_PARSE_SPECIAL);
    err = tokenizer_encode(t, whole.data, whole.bytes, flags, &ids, e);
    if (err == OK)
        err = print_ids(&ids, f->json, e);
    token_list_release(&ids);
    strbuf_release(&whole);
    return err;
}

enum err verb_tokenize(int argc, char **argv, struct error *e)
{
    struct tokenize_flags f = {0};
    const struct flag table[] = {
        {"f", FLAG_STRING, &f.file, "FILE", "read the text from FILE (- is standard input)"},
        {"no-bos", FLAG_BOOL, &f.no_bos, NULL, "leave out the tokens that the model puts around"},
        {"no-parse-special", FLAG_BOOL, &f.no_parse_special, NULL,
         "names of special tokens in the text are ordinary text"},
        {"decode", FLAG_STRING, &f.decode, "IDS", "print the text of these ids instead"},
        {"json", FLAG_BOOL, &f.json, NULL, "print {\"ids\":[…]} or {\"text\":…}"},
        {0},
    };
    const struct verb_usage usage = {
        "tokenize",
        "MODEL [TEXT | -f FILE] [flags]",
        "Prints the token ids of a text on one line. MODEL may be a vocabulary-only GGUF or a\n"
        "folder with just tokenizer.json.",
        table,
        1,
        2};
    const char *args[2];
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, args, &n_args, e);
    if (err != OK)
        return err;
    int sources = (n_args == 2) + (f.file != NULL) + (f.decode != NULL);
    if (sources > 1)
        return error_set(e, ERR_USAGE, "expected one of TEXT, -f FILE and --decode IDS, found %d",
                         sources);
    if (sources == 0)
        f.file = "-";
    struct modelfile *file;
    struct tokenizer *t;
    err = open_model_and_tokenizer(args[0], &file, &t, e);
    if (err != OK)
        return err;
    err = f.decode != NULL ? decode(t, f.decode, f.json, e)
                           : encode(t, &f, n_args == 2 ? args[1] : NULL, e);
    tokenizer_close(t);
    modelfile_close(file);
    return err;
}
