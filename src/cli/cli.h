/* The verbs of the command line and what they share. Each verb is one file and one row in the table
 * of main.c: it parses its flags, does its work and returns an error that main prints as the one
 * line "shoal VERB: reason" on stderr; results go to stdout and nothing else does. */
#ifndef SHOAL_CLI_CLI_H
#define SHOAL_CLI_CLI_H

#include "base/error.h"
#include "base/strbuf.h"
#include "modelfile/modelfile.h"
#include "text/text.h"

#include <jansson.h>

typedef enum err (*verb_fn)(int argc, char **argv, struct error *e);

enum err verb_run(int argc, char **argv, struct error *e);
enum err verb_serve(int argc, char **argv, struct error *e);
enum err verb_worker(int argc, char **argv, struct error *e);
enum err verb_plan(int argc, char **argv, struct error *e);
enum err verb_inspect(int argc, char **argv, struct error *e);
enum err verb_tokenize(int argc, char **argv, struct error *e);
enum err verb_template(int argc, char **argv, struct error *e);
enum err verb_eval(int argc, char **argv, struct error *e);
enum err verb_top(int argc, char **argv, struct error *e);
enum err verb_bench(int argc, char **argv, struct error *e);

extern const char *const kv_type_names[]; /* for --kv: in the order of enum kv_type */

/* A whole file ("-" is stdin) of at most max_bytes as *out, which is initialised here and needs no
 * release after a failure: ERR_IO, ERR_LIMIT. */
enum err read_whole_file(const char *path, size_t max_bytes, struct strbuf *out, struct error *e);

/* Print a JSON object on one line of stdout and release it. NULL, what jansson answers for text
 * that is not UTF-8 or a number that is not finite, is ERR_INTERNAL: check such values before. */
enum err print_json(json_t *object, struct error *e);

/* A loading bar on stderr when that is a terminal; as model_progress. `context` is a label. */
void show_progress(uint64_t done_bytes, uint64_t total_bytes, void *context);

/* Open a model and its tokenizer; both are the caller's on success. */
enum err open_model_and_tokenizer(const char *path, struct modelfile **file,
                                  struct tokenizer **tokenizer, struct error *e);

#endif
