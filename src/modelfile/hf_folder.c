/* A folder in Hugging Face layout: which files it has, which of them hold the tensors.
 *
 * Tensor files, in this order of preference (that of `transformers`): model.safetensors, those
 * that model.safetensors.index.json names, all *.safetensors by name. File names out of the index
 * are plain names inside the folder; one with a slash is refused, so that an index cannot reach
 * other files. */
#include "modelfile/modelfile_impl.h"

#include "base/panic.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";
static const char suffix[] = ".safetensors";

/* The small files that others read; the whole list of modelfile_text. */
static const char *const text_names[] = {
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
};
static_assert(sizeof(text_names) / sizeof(text_names[0]) <= MODEL_MAX_TEXTS, "room for all");

/* File names, each once. */
struct name_list {
    char **names;
    int n, capacity;
};

static void name_list_release(struct name_list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->names[i]);
    free(l->names);
    *l = (struct name_list){0};
}

static enum err name_list_add(struct name_list *l, const char *name, struct error *e)
{
    if (l->n >= MODEL_MAX_FILES)
        return error_set(e, ERR_LIMIT, "more than %d tensor files", MODEL_MAX_FILES);
    if (!table_reserve((void **)&l->names, sizeof(*l->names), l->n, &l->capacity) ||
        (l->names[l->n] = strdup(name)) == NULL)
        return error_set(e, ERR_MEMORY, "no memory for file names");
    l->n++;
    return OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool join(const char *folder, const char *name, char *out, size_t out_bytes)
{
    int n = snprintf(out, out_bytes, "%s/%s", folder, name);
    return n > 0 && (size_t)n < out_bytes;
}

static enum err map_in(const char *folder, const char *name, uint64_t max_bytes,
                       struct mapped_file *out, struct error *e)
{
    char path[4096];
    if (!join(folder, name, path, sizeof(path)))
        return error_set(e, ERR_INVALID, "the path is too long");
    enum err err = file_map(path, max_bytes, out, e);
    if (err != OK)
        error_prefix(e, "%s", name);
    return err;
}

static enum err map_texts(struct modelfile *m, const char *folder, struct error *e)
{
    for (size_t i = 0; i < sizeof(text_names) / sizeof(text_names[0]); i++) {
        struct model_text *text = &m->texts[m->n_texts];
        enum err err = map_in(folder, text_names[i], MODEL_MAX_JSON_BYTES, &text->file, e);
        if (err == ERR_NOT_FOUND)
            continue;
        if (err != OK)
            return err;
        text->name = text_names[i];
        text->file.header_bytes = text->file.bytes;
        m->n_texts++;
    }
    return OK;
}

/* ---- the index ---- */

static bool is_tensor_file(const char *name)
{
    size_t n = strlen(name);
    return n >= sizeof(suffix) && n < 256 && name[0] != '.' && strchr(name, '/') == NULL &&
           strcmp(name + n - (sizeof(suffix) - 1), suffix) == 0;
}

/* The values of the map, each once, as the keys of `set`. */
static enum err collect_files(json_t *map, json_t *set, struct error *e)
{
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file)
    {
        if (!json_is_string(file) || !is_tensor_file(json_string_value(file)))
            return error_set(e, ERR_FORMAT,
                             "%s: tensor %.64s is in \"%.64s\", expected the plain "
                             "name of a .safetensors file",
                             index_name, tensor,
                             json_is_string(file) ? json_string_value(file) : "?");
        if (json_object_set_new(set, json_string_value(file), json_true()) != 0)
            return error_set(e, ERR_MEMORY, "no memory for file names");
    }
    return OK;
}

static enum err list_index(json_t *map, struct name_list *files, struct error *e)
{
    const char *name;
    json_t *ignored, *set = json_object();
    enum err err = collect_files(map, set, e);
    json_object_foreach(set, name, ignored)
    {
        if (err == OK)
            err = name_list_add(files, name, e);
    }
    json_decref(set);
    return err;
}

/* Every tensor of the index must be in the file that the index says. */
static enum err check_index(struct modelfile *m, json_t *map, const struct name_list *files,
                            struct error *e)
{
    const char *name;
    json_t *file;
    char translated[MODEL_MAX_NAME];
    int twice_i = 0;
    struct name_index index;
    if (name_index_build(&index, m->tensors, sizeof(*m->tensors), m->n_tensors, &twice_i) != OK) {
        name_index_release(&index);
        return OK; /* a duplicate: modelfile_finish says it */
    }
    enum err err = OK;
    json_object_foreach(map, name, file)
    {
        int tensor_i = hf_tensor_name(name, translated) ? name_index_find(&index, translated) : -1;
        const char *wanted = json_string_value(file);
        if (tensor_i < 0)
            err = error_set(e, ERR_FORMAT, "%s: tensor %.100s is not in %s", index_name, name,
                            wanted);
        else if (strcmp(files->names[m->tensors[tensor_i].file_i], wanted) != 0)
            err = error_set(e, ERR_FORMAT, "%s: tensor %.64s should be in %s, is in %s", index_name,
                            name, wanted, files->names[m->tensors[tensor_i].file_i]);
        if (err != OK)
            break;
    }
    name_index_release(&index);
    return err;
}

/* ---- the tensor files ---- */

static enum err read_files(struct modelfile *m, const char *folder, struct name_list *files,
                           struct error *e)
{
    if (files->n > 1)
        qsort(files->names, (size_t)files->n, sizeof(*files->names), by_name);
    for (int i = 0; i < files->n; i++) {
        char path[4096];
        int file_i = 0;
        if (!join(folder, files->names[i], path, sizeof(path)))
            return error_set(e, ERR_INVALID, "the path is too long");
        enum err err = modelfile_add_file(m, path, &file_i, e);
        if (err == OK)
            err = safetensors_read(m, file_i, e);
        if (err != OK) {
            error_prefix(e, "%.100s", files->names[i]);
            return err;
        }
        ASSERT(file_i == i);
    }
    return OK;
}

static enum err read_indexed(struct modelfile *m, const char *folder,
                             const struct mapped_file *text, struct error *e)
{
    json_t *index;
    struct name_list files = {0};
    enum err err = json_parse((const char *)text->data, text->bytes, index_name, &index, e);
    if (err != OK)
        return err;
    json_t *map = json_object_get(index, "weight_map");
    err = json_is_object(map) && json_object_size(map) > 0
              ? list_index(map, &files, e)
              : error_set(e, ERR_FORMAT, "%s: no object \"weight_map\"", index_name);
    if (err == OK)
        err = read_files(m, folder, &files, e);
    if (err == OK)
        err = check_index(m, map, &files, e);
    name_list_release(&files);
    json_decref(index);
    return err;
}

static enum err list_folder(const char *folder, struct name_list *files, struct error *e)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return error_errno(e, ERR_IO, errno, "cannot list the folder");
    enum err err = OK;
    struct dirent *entry;
    while (err == OK && (entry = readdir(dir)) != NULL) {
        if (is_tensor_file(entry->d_name))
            err = name_list_add(files, entry->d_name, e);
    }
    closedir(dir);
    return err;
}

static bool has_file(const char *folder, const char *name)
{
    char path[4096];
    return join(folder, name, path, sizeof(path)) && access(path, F_OK) == 0;
}

static enum err read_unindexed(struct modelfile *m, const char *folder, struct error *e)
{
    struct name_list files = {0};
    enum err err = has_file(folder, single_name) ? name_list_add(&files, single_name, e)
                                                 : list_folder(folder, &files, e);
    if (err == OK)
        err = read_files(m, folder, &files, e);
    name_list_release(&files);
    return err;
}

static enum err read_tensors(struct modelfile *m, const char *folder, struct error *e)
{
    struct mapped_file text;
    if (has_file(folder, single_name) || !has_file(folder, index_name))
        return read_unindexed(m, folder, e);
    enum err err = map_in(folder, index_name, MODEL_MAX_JSON_BYTES, &text, e);
    if (err == OK)
        err = read_indexed(m, folder, &text, e);
    file_unmap(&text);
    return err;
}

static enum err tie(struct modelfile *m, struct error *e)
{
    size_t bytes;
    bool is_tied = false;
    const char *config = modelfile_text(m, "config.json", &bytes);
    enum err err = config != NULL ? hf_config_tied(config, bytes, &is_tied, e) : OK;
    if (err == OK)
        hf_tie_embedding(m, is_tied);
    return err;
}

enum err hf_folder_open(struct modelfile *m, const char *path, struct error *e)
{
    m->format = MODEL_HF;
    enum err err = map_texts(m, path, e);
    if (err == OK)
        err = read_tensors(m, path, e);
    if (err == OK && m->n_files == 0 && m->n_texts == 0)
        err = error_set(e, ERR_NOT_FOUND,
                        "not a model folder: neither config.json, tokenizer.json "
                        "nor *.safetensors in it");
    return err == OK ? tie(m, e) : err;
}

/* One .safetensors file alone; path is NULL where it is already there, in memory. */
enum err hf_file_open(struct modelfile *m, const char *path, struct error *e)
{
    int file_i = 0;
    m->format = MODEL_HF;
    enum err err = path != NULL ? modelfile_add_file(m, path, &file_i, e) : OK;
    return err == OK ? safetensors_read(m, file_i, e) : err;
}

enum err hf_params(const struct modelfile *m, struct model_params *p, struct error *e)
{
    size_t bytes;
    const char *config = modelfile_text(m, "config.json", &bytes);
    if (config == NULL)
        return error_set(e, ERR_NOT_FOUND, "no config.json beside the tensors");
    enum err err = hf_config_params(config, bytes, p, e);
    if (err != OK) {
        error_prefix(e, "config.json");
        return err;
    }
    if (p->name[0] == 0) { /* the folder's name is what people call it */
        size_t end = strlen(m->path);
        while (end > 0 && m->path[end - 1] == '/')
            end--;
        size_t start = end;
        while (start > 0 && m->path[start - 1] != '/' && end - start < sizeof(p->name) - 1)
            start--;
        memcpy(p->name, m->path + start, end - start);
    }
    return OK;
}
