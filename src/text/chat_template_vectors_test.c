/* Every rendering in the shared templates/rendered.json: real templates, each with ten
 * conversations, printed by Python's Jinja2 as `transformers` sets it up. Where Python refused a
 * combination ({"error": …}) there is no expectation. */
#include "text/test_data_impl.h"

struct counts {
    int equal, differ, refused;
};

/* The conversation's own variables and those that all renderings had. */
static char *variables_of(const json_t *root, const json_t *conversation)
{
    json_t *all = json_copy((json_t *)conversation);
    json_object_set(all, "bos_token", json_object_get(root, "bos_token"));
    json_object_set(all, "eos_token", json_object_get(root, "eos_token"));
    json_object_set_new(all, "now", json_string("2025-01-15T12:00:00"));
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

static void show_difference(const char *name, const char *expected, const char *found)
{
    size_t i = 0;
    while (expected[i] != '\0' && expected[i] == found[i])
        i++;
    size_t from = i > 60 ? i - 60 : 0;
    printf("%s: differs at byte %zu\n  expected …%.160s\n  found    …%.160s\n", name, i,
           expected + from, found + from);
}

static void check_rendering(const struct chat_template *c, const char *name, const json_t *root,
                            const json_t *conversation, const char *expected,
                            struct counts *counts)
{
    struct error e = {0};
    char *out = NULL, *variables = variables_of(root, conversation);
    size_t bytes = 0;
    enum err err = chat_template_render(c, variables, strlen(variables), &out, &bytes, &e);
    if (expected == NULL) {
        counts->refused++;
    } else if (err != OK) {
        printf("%s: %s\n", name, e.text);
        counts->differ++;
    } else if (bytes != strlen(expected) || strcmp(out, expected) != 0) {
        show_difference(name, expected, out);
        counts->differ++;
    } else {
        counts->equal++;
    }
    free(variables);
    free(out);
}

static void check_template(const char *name, const json_t *root, const json_t *cases,
                           struct counts *counts)
{
    char path[256];
    snprintf(path, sizeof(path), "templates/%s.jinja", name);
    size_t bytes;
    char *source = read_whole_file(shared_path(path), &bytes);
    struct chat_template *c = NULL;
    ASSERT_OK(chat_template_new(source, bytes, &c, e));
    const json_t *conversations = json_object_get(root, "conversations");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)cases, key, value) {
        char label[256];
        snprintf(label, sizeof(label), "%s/%s", name, key);
        check_rendering(c, label, root, json_object_get(conversations, key),
                        json_string_value(value), counts);
    }
    chat_template_free(c);
    free(source);
}

static void test_rendered(void **state)
{
    (void)state;
    json_t *root = read_json_file(shared_path("templates/rendered.json"));
    struct counts counts = {0};
    const char *name;
    json_t *cases;
    json_object_foreach(json_object_get(root, "expected"), name, cases)
        check_template(name, root, cases, &counts);
    printf("%d renderings equal, %d differ, %d refused by Python\n", counts.equal, counts.differ,
           counts.refused);
    assert_int_equal(counts.differ, 0);
    assert_true(counts.equal > 300);
    json_decref(root);
}

int main(void)
{
    skip_without_shared_data();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rendered)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
