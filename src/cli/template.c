/* shoal template: render a chat template. */
#include "cli/cli.h"
#include "cli/flags.h"

#include "base/bounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err open_template(const char *model, const char *source_path,
                              struct chat_template **out, struct error *e)
{
    if (source_path != NULL) {
        struct strbuf source;
        enum err err = read_whole_file(source_path, MODEL_MAX_JSON_BYTES, &source, e);
        if (err != OK)
            return err;
        err = chat_template_new(source.data, source.bytes, out, e);
        strbuf_release(&source);
        if (err != OK)
            error_prefix(e, "%s", source_path);
        return err;
    }
    struct modelfile *file;
    struct tokenizer *tokenizer = NULL;
    enum err err = modelfile_open(model, &file, e);
    if (err != OK)
        return err;
    err = tokenizer_open(file, &tokenizer, e);
    if (err == OK)
        err = chat_template_open(file, tokenizer, out, e);
    tokenizer_close(tokenizer);
    modelfile_close(file);
    return err;
}

enum err verb_template(int argc, char **argv, struct error *e)
{
    const char *source = NULL, *conversation = "-", *args[1];
    int n_args;
    const struct flag table[] = {
        {"template", FLAG_STRING, &source, "FILE",
         "render this Jinja file, not a model's template"},
        {"f", FLAG_STRING, &conversation, "FILE",
         "the conversation; - (standard input) by default"},
        {0},
    };
    const struct verb_usage usage = {
        "template",
        "MODEL | --template FILE.jinja [-f CONVERSATION.json]",
        "Reads a JSON object {messages, tools?, add_generation_prompt, bos_token?, eos_token?, "
        "now?,\n"
        "any other template variable} and prints the prompt and nothing else.",
        table,
        0,
        1};
    enum err err = flags_parse(&usage, argc, argv, args, &n_args, e);
    if (err != OK)
        return err;
    if ((n_args == 1) == (source != NULL))
        return error_set(e, ERR_USAGE, "expected either MODEL or --template FILE");
    struct chat_template *t = NULL;
    struct strbuf json;
    err = open_template(n_args == 1 ? args[0] : NULL, source, &t, e);
    if (err != OK)
        return err;
    err = read_whole_file(conversation, HTTP_MAX_BODY_BYTES, &json, e);
    if (err == OK) {
        char *out = NULL;
        size_t bytes;
        err = chat_template_render(t, json.data, json.bytes, &out, &bytes, e);
        if (err == OK)
            fwrite(out, 1, bytes, stdout);
        free(out);
        strbuf_release(&json);
    }
    chat_template_free(t);
    return err;
}
