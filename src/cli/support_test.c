#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void write_file(char *path, const void *data, size_t bytes)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

static void a_file_is_read_whole(void **state)
{
    (void)state;
    char path[] = "/tmp/shoal-support-XXXXXX";
    static char data[200000];
    struct strbuf s;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7); /* zeros among them */
    write_file(path, data, sizeof data);
    assert_int_equal(read_whole_file(path, sizeof data, &s, NULL), OK);
    assert_int_equal(s.bytes, sizeof data);
    assert_memory_equal(s.data, data, sizeof data);
    strbuf_release(&s);
    struct error e;
    assert_int_equal(read_whole_file(path, sizeof data - 1, &s, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "expected at most 199999 bytes"));
    unlink(path);
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct strbuf s;
    struct error e;
    assert_int_equal(read_whole_file("/no/such/file", 10, &s, &e), ERR_IO);
    assert_string_equal(e.text, "/no/such/file: No such file or directory");
    assert_int_equal(read_whole_file("/tmp", 10, &s, &e), ERR_IO);
    assert_string_equal(e.text, "reading /tmp: Is a directory");
}

/* A device without an end must not be read for ever. */
static void a_file_without_end_is_too_long(void **state)
{
    (void)state;
    struct strbuf s;
    struct error e;
    assert_int_equal(read_whole_file("/dev/zero", 1 << 20, &s, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "/dev/zero: expected at most 1048576 bytes"));
}

static void json_that_is_none_is_an_error(void **state)
{
    (void)state;
    struct error e;
    assert_int_equal(print_json(json_pack("{s:s}", "name", "\xff"), &e), ERR_INTERNAL);
    assert_non_null(strstr(e.text, "JSON"));
}

static void a_model_without_tokenizer_leaves_nothing_open(void **state)
{
    (void)state;
    char path[] = "/tmp/shoal-support-XXXXXX";
    struct modelfile *file = NULL;
    struct tokenizer *tokenizer = NULL;
    struct error e;
    /* GGUF v3 without tensors and metadata. */
    static const unsigned char empty[24] = {'G', 'G', 'U', 'F', 3};
    write_file(path, empty, sizeof empty);
    assert_int_not_equal(open_model_and_tokenizer(path, &file, &tokenizer, &e), OK);
    assert_null(file);
    assert_null(tokenizer);
    assert_true(e.text[0] != 0);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_whole),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(a_file_without_end_is_too_long),
        cmocka_unit_test(json_that_is_none_is_an_error),
        cmocka_unit_test(a_model_without_tokenizer_leaves_nothing_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
