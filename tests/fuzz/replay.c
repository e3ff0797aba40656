/* Runs a libFuzzer entry over stored inputs without libFuzzer: every build, with any compiler,
 * replays the corpora as an ordinary test (tests/corpora), and a crash found elsewhere is looked
 * at by naming its file. Arguments are files, or folders whose regular files are taken in the
 * order of their names (not recursively). Each input is a heap block of exactly its size, so
 * that AddressSanitizer sees a read past the end.
 *
 *     tokenizer_json_fuzz tests/corpora/tokenizer_json crash-1234
 *
 * Prints how many inputs ran; exit status 1 if there was none or one could not be read. */
#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { REPLAY_MAX_BYTES = 64 << 20 };

static bool read_file(const char *path, size_t bytes, uint8_t *data)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return false;
    size_t n = fread(data, 1, bytes, f);
    fclose(f);
    return n == bytes;
}

static bool replay_file(const char *path, size_t bytes, int *n_inputs)
{
    /* malloc(0) may be NULL: an empty input still needs a pointer to nothing. */
    uint8_t *data = bytes <= REPLAY_MAX_BYTES ? malloc(bytes > 0 ? bytes : 1) : NULL;
    if (data == NULL || !read_file(path, bytes, data)) {
        fprintf(stderr, "replay: cannot read %s\n", path);
        free(data);
        return false;
    }
    uint8_t *exact = bytes > 0 ? realloc(data, bytes) : data;
    LLVMFuzzerTestOneInput(exact != NULL ? exact : data, bytes);
    free(exact != NULL ? exact : data);
    ++*n_inputs;
    return true;
}

static bool replay_folder(const char *path, int *n_inputs)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, alphasort);
    bool good = n >= 0;
    for (int i = 0; i < n; i++) {
        char file[4096];
        struct stat st;
        int length = snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
        bool fits = length > 0 && (size_t)length < sizeof(file);
        if (!fits || stat(file, &st) != 0)
            good = false;
        else if (S_ISREG(st.st_mode) && !replay_file(file, (size_t)st.st_size, n_inputs))
            good = false;
        free(entries[i]);
    }
    free(entries);
    return good;
}

int main(int argc, char **argv)
{
    int n_inputs = 0;
    bool good = true;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0) {
            fprintf(stderr, "replay: no such file or folder: %s\n", argv[i]);
            good = false;
        } else if (S_ISDIR(st.st_mode)) {
            good &= replay_folder(argv[i], &n_inputs);
        } else {
            good &= replay_file(argv[i], (size_t)st.st_size, &n_inputs);
        }
    }
    printf("replayed %d inputs\n", n_inputs);
    return good && n_inputs > 0 ? 0 : 1;
}
