#include "model/model_impl.h"

#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct tiny_shape shape = {.n_layers = 3,
                                        .hidden = 64,
                                        .ffn = 96,
                                        .n_heads = 4,
                                        .n_kv_heads = 2,
                                        .head_size = 16,
                                        .vocab = 100,
                                        .type = DTYPE_F32};

static void a_whole_model_passes(void **state)
{
    (void)state;
    struct modelfile *m = tiny_model(&shape, 1);
    assert_int_equal(model_check(m, NULL), OK);
    modelfile_close(m);
}

static void check_refused(struct tiny_shape s, enum err code, const char *reason)
{
    struct error e;
    struct modelfile *m = tiny_model(&s, 1);
    assert_int_equal(model_check(m, &e), code);
    assert_string_equal(e.text, reason);
    modelfile_close(m);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    struct tiny_shape s = shape;
    s.without = "blk.1.ffn_up.weight";
    check_refused(s, ERR_NOT_FOUND,
                  "tensor blk.1.ffn_up.weight is missing (architecture llama, 3 layers)");
    s = shape;
    s.without = "output.weight";
    check_refused(s, ERR_NOT_FOUND,
                  "tensor output.weight is missing (architecture llama, 3 layers)");
    s = shape;
    s.transposed = "blk.2.ffn_down.weight";
    check_refused(s, ERR_MISMATCH,
                  "tensor blk.2.ffn_down.weight: expected shape 64 x 96, found 96 x 64");
    s = shape;
    s.extra = "blk.0.attn_q.bias";
    check_refused(s, ERR_UNSUPPORTED,
                  "tensor blk.0.attn_q.bias: architecture llama with 3 layers has no such tensor");
    s.extra = "blk.3.attn_norm.weight";
    check_refused(s, ERR_UNSUPPORTED,
                  "tensor blk.3.attn_norm.weight: architecture llama with 3 layers has no such "
                  "tensor");
    s.extra = "blk.01.attn_norm.weight";
    check_refused(s, ERR_UNSUPPORTED,
                  "tensor blk.01.attn_norm.weight: architecture llama with 3 layers has no such "
                  "tensor");
    s.extra = "blk.99999999999999999999.attn_norm.weight";
    check_refused(s, ERR_UNSUPPORTED,
                  "tensor blk.99999999999999999999.attn_norm.weight: architecture llama with 3 "
                  "layers has no such tensor");
}

struct listed {
    int n;
    uint64_t bytes;
    bool embedding, head;
};

static enum err list(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    struct listed *l = context;
    l->n++;
    l->bytes += t->bytes;
    l->embedding |= strcmp(t->name, "token_embd.weight") == 0;
    l->head |= strcmp(t->name, "output.weight") == 0;
    return OK;
}

static void a_part_needs_only_its_own_tensors(void **state)
{
    (void)state;
    struct modelfile *m = tiny_model(&shape, 1);
    struct listed middle = {0}, last = {0};
    struct model_part part = {.first = 1, .last = 2};
    assert_int_equal(model_part_tensors(m, &part, list, &middle, NULL), OK);
    assert_int_equal(middle.n, 9);
    assert_false(middle.embedding || middle.head);
    assert_int_equal(middle.bytes, 4 * (64 + 64 * 64 * 2 + 32 * 64 * 2 + 64 + 3 * 64 * 96));
    part = (struct model_part){.first = 3, .last = 3, .head = true};
    assert_int_equal(model_part_tensors(m, &part, list, &last, NULL), OK);
    assert_int_equal(last.n, 2);
    assert_true(last.head);
    part = (struct model_part){.first = 2, .last = 4};
    struct error e;
    assert_int_equal(model_part_tensors(m, &part, list, &last, &e), ERR_INVALID);
    assert_string_equal(e.text, "layers 2-4: expected a range within 0-3");
    modelfile_close(m);
}

static void a_tied_head_is_one_tensor(void **state)
{
    (void)state;
    struct tiny_shape s = shape;
    s.tied = true;
    struct modelfile *m = tiny_model(&s, 1);
    struct listed both = {0}, head = {0};
    struct model_part part = {.last = 3, .embedding = true, .head = true};
    assert_int_equal(model_check(m, NULL), OK);
    assert_int_equal(model_part_tensors(m, &part, list, &both, NULL), OK);
    assert_int_equal(both.n, 3 * 9 + 2);
    part = (struct model_part){.first = 3, .last = 3, .head = true};
    assert_int_equal(model_part_tensors(m, &part, list, &head, NULL), OK);
    assert_true(head.embedding);
    modelfile_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_model_passes),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(a_part_needs_only_its_own_tensors),
        cmocka_unit_test(a_tied_head_is_one_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
