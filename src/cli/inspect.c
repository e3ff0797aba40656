/* shoal inspect: what is in a model file. Also shows models that cannot be run, with the reason. */
#include "base/printable.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct census {
    uint64_t bytes;
    uint64_t bytes_of[N_DTYPES];
    int tensors_of[N_DTYPES];
    uint64_t elements;
};

static void count(struct census *c, const struct model_tensor *t)
{
    c->bytes += t->bytes;
    c->bytes_of[t->type] += t->bytes;
    c->tensors_of[t->type]++;
    c->elements += t->n_rows * t->n_cols;
}

/* The layer in a tensor's name ("blk.3.…"), or -1. */
static int layer_of(const char *name)
{
    int layer;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : -1;
}

static json_t *types_json(const struct census *c)
{
    json_t *types = json_object();
    for (int i = 0; i < N_DTYPES; i++)
        if (c->tensors_of[i] > 0)
            json_object_set_new(types, dtype_name((uint32_t)i),
                                json_pack("{s:i, s:I}", "tensors", c->tensors_of[i], "bytes",
                                          (json_int_t)c->bytes_of[i]));
    return types;
}

static json_t *tensors_json(const struct modelfile *file)
{
    json_t *list = json_array();
    for (int i = 0; i < modelfile_n_tensors(file); i++) {
        const struct model_tensor *t = modelfile_tensor(file, i);
        json_t *dims = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(dims, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I, s:i, s:I}", "name", t->name,
                                              "type", dtype_name(t->type), "dims", dims, "bytes",
                                              (json_int_t)t->bytes, "file", t->file_i, "offset",
                                              (json_int_t)t->file_offset));
    }
    return list;
}

static json_t *params_json(const struct model_params *p)
{
    return json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:b}",
        "architecture", p->architecture, "name", p->name, "layers", p->n_layers, "hidden",
        p->hidden, "ffn", p->ffn, "heads", p->n_heads, "kv_heads", p->n_kv_heads, "head_size",
        p->head_size, "vocab", p->vocab, "context", p->context, "window", p->window, "norm_eps",
        (double)p->norm_eps, "rope_base", (double)p->rope_base, "rope_pairs",
        p->rope_pairing == ROPE_HALVES ? "halves" : "neighbours", "tied_head", (int)p->tied_head);
}

struct view {
    const struct modelfile *file;
    struct model_params params;
    bool has_params;      /* a vocabulary-only file has none */
    struct error why_not; /* code OK: can be run */
    struct census all;
    uint64_t *layer_bytes; /* [params.n_layers] */
};

static enum err look(struct view *v, const char *path, struct modelfile **file, struct error *e)
{
    enum err err = modelfile_open(path, file, e);
    if (err != OK)
        return err;
    v->file = *file;
    v->has_params = modelfile_params(*file, &v->params, &v->why_not) == OK;
    if (v->has_params)
        model_check(*file, &v->why_not);
    make_printable(v->params.architecture); /* tensor names are ASCII, these may be anything */
    make_printable(v->params.name);
    int n_layers = v->has_params ? v->params.n_layers : 0;
    v->layer_bytes = calloc((size_t)n_layers + 1, sizeof *v->layer_bytes);
    if (v->layer_bytes == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %d layers", n_layers);
    for (int i = 0; i < modelfile_n_tensors(*file); i++) {
        const struct model_tensor *t = modelfile_tensor(*file, i);
        int layer = layer_of(t->name);
        count(&v->all, t);
        if (layer >= 0 && layer < n_layers)
            v->layer_bytes[layer] += t->bytes;
    }
    return OK;
}

static enum err print_as_json(const struct view *v, bool tensors, struct error *e)
{
    json_t *o =
        json_pack("{s:s, s:i, s:I, s:I, s:o}", "format",
                  modelfile_format(v->file) == MODEL_GGUF ? "gguf" : "huggingface", "tensors",
                  modelfile_n_tensors(v->file), "bytes", (json_int_t)v->all.bytes, "parameters",
                  (json_int_t)v->all.elements, "types", types_json(&v->all));
    struct model_identity id;
    char hash[33];
    modelfile_identity(v->file, &id);
    snprintf(hash, sizeof hash, "%016llx%016llx", (unsigned long long)id.hash[1],
             (unsigned long long)id.hash[0]);
    json_object_set_new(o, "identity", json_string(hash));
    json_object_set_new(o, "runnable", json_boolean(v->why_not.code == OK));
    if (v->why_not.code != OK)
        json_object_set_new(o, "reason", json_string(v->why_not.text));
    if (v->has_params) {
        json_t *layers = json_array();
        for (int i = 0; i < v->params.n_layers; i++)
            json_array_append_new(layers, json_integer((json_int_t)v->layer_bytes[i]));
        json_object_set_new(o, "model", params_json(&v->params));
        json_object_set_new(o, "layer_bytes", layers);
    }
    if (tensors)
        json_object_set_new(o, "tensor_list", tensors_json(v->file));
    return print_json(o, e);
}

static void print_params(const struct model_params *p)
{
    printf("architecture   %s%s%s\n", p->architecture, p->name[0] != 0 ? ", " : "", p->name);
    printf("layers         %d of hidden %d, ffn %d\n", p->n_layers, p->hidden, p->ffn);
    printf("attention      %d heads of %d, %d for keys and values\n", p->n_heads, p->head_size,
           p->n_kv_heads);
    printf("rope           base %g, %d of %d dimensions, pairs of %s\n", (double)p->rope_base,
           p->rope_size, p->head_size, p->rope_pairing == ROPE_HALVES ? "halves" : "neighbours");
    printf("vocabulary     %d, %s\n", p->vocab, p->tied_head ? "tied head" : "separate head");
    printf("context        %d\n", p->context);
    if (p->window > 0)
        printf("window         %d positions, in every layer\n", p->window);
}

/* Equal neighbours as one line: "layers 0-27  12.3 MB each". */
static void print_layers(const struct view *v)
{
    int n = v->params.n_layers;
    for (int first = 0, last; first < n; first = last) {
        for (last = first + 1; last < n && v->layer_bytes[last] == v->layer_bytes[first];)
            last++;
        printf("layer bytes    %d-%d: %.2f MB each\n", first, last - 1,
               (double)v->layer_bytes[first] / 1e6);
    }
}

static void print_as_text(const struct view *v, bool tensors)
{
    printf("file           %s (%s)\n", modelfile_path(v->file),
           modelfile_format(v->file) == MODEL_GGUF ? "GGUF" : "Hugging Face folder");
    if (v->has_params)
        print_params(&v->params);
    printf("tensors        %d, %.1f M parameters, %.2f MB\n", modelfile_n_tensors(v->file),
           (double)v->all.elements / 1e6, (double)v->all.bytes / 1e6);
    for (int i = 0; i < N_DTYPES; i++)
        if (v->all.tensors_of[i] > 0)
            printf("  %-12s %5d tensors %10.2f MB\n", dtype_name((uint32_t)i), v->all.tensors_of[i],
                   (double)v->all.bytes_of[i] / 1e6);
    if (v->has_params)
        print_layers(v);
    printf("runs here      %s%s\n",
           v->why_not.code == OK ? "yes" : "no: ", v->why_not.code == OK ? "" : v->why_not.text);
    for (int i = 0; tensors && i < modelfile_n_tensors(v->file); i++) {
        const struct model_tensor *t = modelfile_tensor(v->file, i);
        printf("%-40s %-6s %8llu x %-8llu %12llu bytes at %llu\n", t->name, dtype_name(t->type),
               (unsigned long long)t->n_rows, (unsigned long long)t->n_cols,
               (unsigned long long)t->bytes, (unsigned long long)t->file_offset);
    }
}

enum err verb_inspect(int argc, char **argv, struct error *e)
{
    bool tensors = false, json = false;
    const struct flag table[] = {
        {"tensors", FLAG_BOOL, &tensors, NULL, "list every tensor"},
        {"json", FLAG_BOOL, &json, NULL, "print JSON"},
        {0},
    };
    const struct verb_usage usage = {
        "inspect",
        "MODEL [--tensors] [--json]",
        "Shows architecture, shapes, quantisation and size per layer of a model.",
        table,
        1,
        1};
    const char *model;
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, &model, &n_args, e);
    if (err != OK)
        return err;
    struct view v = {0};
    struct modelfile *file = NULL;
    err = look(&v, model, &file, e);
    if (err == OK && json)
        err = print_as_json(&v, tensors, e);
    else if (err == OK)
        print_as_text(&v, tensors);
    free(v.layer_bytes);
    modelfile_close(file);
    return err;
}
