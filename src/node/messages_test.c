/* Messages there and back, and bytes that are none: truncations, wrong lengths, too many or too
 * much. */
#include "node/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const struct model_params params = {.architecture = "llama",
                                           .name = "tiny",
                                           .n_layers = 5,
                                           .hidden = 64,
                                           .ffn = 172,
                                           .n_heads = 8,
                                           .n_kv_heads = 4,
                                           .head_size = 8,
                                           .rope_size = 8,
                                           .vocab = 512,
                                           .context = 2048,
                                           .norm_eps = 1e-5f,
                                           .rope_base = 10000,
                                           .rope_pairing = ROPE_HALVES,
                                           .rope_scaling = ROPE_SCALING_LLAMA3,
                                           .rope_factor = 8,
                                           .rope_low_freq_factor = 1,
                                           .rope_high_freq_factor = 4,
                                           .rope_original_context = 8192,
                                           .tied_head = true,
                                           .window = 4096};

static struct tensor_list make_tensors(int n)
{
    struct tensor_list l = {0};
    for (int i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof(name), "blk.%d.attn_q.weight", i);
        struct model_tensor t = {.name = name,
                                 .type = (uint32_t)(i % 3),
                                 .n_dims = 1 + i % 4,
                                 .dims = {64u + (unsigned)i, 1, 1, 1}};
        assert_int_equal(tensor_list_add(&l, &t, NULL), OK);
    }
    return l;
}

static shoal_v1_AssignRequest *make_assign(void)
{
    shoal_v1_AssignRequest *r = calloc(1, sizeof(*r));
    *r = (shoal_v1_AssignRequest){.protocol = NODE_PROTOCOL,
                                  .epoch = UINT64_MAX,
                                  .has_identity = true,
                                  .identity = {1234567890123, 0x1122334455667788, 42},
                                  .has_params = true,
                                  .first = 3,
                                  .last = 5,
                                  .kv_type = 1,
                                  .n_blocks = 100,
                                  .n_slots = 4,
                                  .max_rows = 64,
                                  .max_context = 512,
                                  .credits = 5,
                                  .stage = 1,
                                  .fetch_port = 999};
    strcpy(r->version, "9.8.7");
    strcpy(r->path, "/models/tiny.gguf");
    strcpy(r->next, "[::1]:50100");
    strcpy(r->fetch_host, "10.0.0.1");
    params_to_message(&params, &r->params);
    return r;
}

static struct rpc_buffer encode_assign(int n_tensors)
{
    struct tensor_list l = make_tensors(n_tensors);
    shoal_v1_AssignRequest *r = make_assign();
    struct rpc_buffer b;
    assert_int_equal(assign_encode(r, &l, &b, NULL), OK);
    tensor_list_release(&l);
    free(r);
    return b;
}

static void assign_comes_back(void **state)
{
    (void)state;
    struct rpc_buffer b = encode_assign(200);
    shoal_v1_AssignRequest *r = make_assign(), *got = calloc(1, sizeof(*got));
    struct tensor_list l, expected = make_tensors(200);
    struct error e = {.code = OK};
    assert_int_equal(assign_decode(b.data, b.bytes, got, &l, &e), OK);
    assert_int_equal(got->epoch, UINT64_MAX);
    assert_string_equal(got->version, r->version);
    assert_string_equal(got->path, r->path);
    assert_string_equal(got->next, r->next);
    assert_string_equal(got->fetch_host, r->fetch_host);
    assert_int_equal(got->identity.total_bytes, r->identity.total_bytes);
    assert_int_equal(got->identity.hash_low, r->identity.hash_low);
    assert_int_equal(got->fetch_port, 999);
    assert_int_equal(got->first * 100 + got->last, 305);
    assert_int_equal(l.n, 200);
    for (int i = 0; i < l.n; i++) {
        assert_string_equal(l.items[i].name, expected.items[i].name);
        assert_int_equal(l.items[i].type, expected.items[i].type);
        assert_int_equal(l.items[i].n_dims, expected.items[i].n_dims);
        for (int d = 0; d < l.items[i].n_dims; d++)
            assert_int_equal(l.items[i].dims[d], expected.items[i].dims[d]);
    }
    struct model_params back;
    assert_int_equal(params_from_message(&got->params, &back, NULL), OK);
    assert_memory_equal(&back, &params, sizeof(back));
    tensor_list_release(&l);
    tensor_list_release(&expected);
    rpc_buffer_release(&b);
    free(r);
    free(got);
}

/* Cut short it is either refused or, at a border between fields, a message with less in it. */
static void cut_assigns(void **state)
{
    (void)state;
    struct rpc_buffer b = encode_assign(3);
    shoal_v1_AssignRequest *got = calloc(1, sizeof(*got));
    int n_refused = 0;
    for (size_t n = 0; n < b.bytes; n++) {
        struct tensor_list l;
        uint8_t *exact = malloc(n + 1);
        memcpy(exact, b.data, n);
        enum err err = assign_decode(exact, n, got, &l, NULL);
        assert_true(err == OK || err == ERR_FORMAT);
        n_refused += err != OK;
        if (err != OK)
            assert_null(l.items);
        tensor_list_release(&l);
        free(exact);
    }
    assert_true(n_refused > (int)b.bytes / 2);
    rpc_buffer_release(&b);
    free(got);
}

static void flipped_assigns(void **state)
{
    (void)state;
    struct rpc_buffer b = encode_assign(3);
    shoal_v1_AssignRequest *got = calloc(1, sizeof(*got));
    for (size_t bit = 0; bit < b.bytes * 8; bit++) {
        struct tensor_list l;
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum err err = assign_decode(b.data, b.bytes, got, &l, NULL);
        assert_true(err == OK || err == ERR_FORMAT);
        assert_true(strlen(got->path) < sizeof(got->path));
        tensor_list_release(&l);
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    rpc_buffer_release(&b);
    free(got);
}

static void refuse_assign(const void *data, size_t bytes, const char *part)
{
    shoal_v1_AssignRequest *got = calloc(1, sizeof(*got));
    struct tensor_list l;
    struct error e;
    assert_int_equal(assign_decode(data, bytes, got, &l, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "Assign: a malformed message"));
    assert_non_null(strstr(e.text, part));
    assert_null(l.items);
    free(got);
}

static void too_much_in_an_assign(void **state)
{
    (void)state;
    /* A path of 5000 bytes: field 4. */
    uint8_t *path = malloc(5003);
    memset(path, 'x', 5003);
    path[0] = 4 << 3 | 2;
    path[1] = (5000 & 0x7f) | 0x80;
    path[2] = 5000 >> 7;
    refuse_assign(path, 5003, "overflow");
    free(path);
    /* A tensor with five dimensions: field 7, packed field 3. */
    static const uint8_t dims[] = {7 << 3 | 2, 7, 3 << 3 | 2, 5, 1, 1, 1, 1, 1};
    refuse_assign(dims, sizeof(dims), "");
    /* More empty tensors than a part can have. */
    size_t n = (ASSIGN_MAX_TENSORS + 1) * 2;
    uint8_t *many = malloc(n);
    for (size_t i = 0; i < n; i += 2) {
        many[i] = 7 << 3 | 2;
        many[i + 1] = 0;
    }
    refuse_assign(many, n, "too many tensors");
    free(many);
}

static void chunks(void **state)
{
    (void)state;
    uint8_t data[1000], room[1000], message[CHUNK_HEAD_MAX + 1000];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * i);
    uint64_t hash = XXH3_64bits(data, sizeof(data));
    size_t head = chunk_head_encode(1ull << 40, hash, sizeof(data), message);
    memcpy(message + head, data, sizeof(data));
    shoal_v1_TensorChunk chunk;
    struct byte_field field = {.data = room, .capacity = sizeof(room)};
    assert_int_equal(chunk_decode(message, head + sizeof(data), &chunk, &field, NULL), OK);
    assert_int_equal(chunk.offset, 1ull << 40);
    assert_int_equal(chunk.xxh3, hash);
    assert_int_equal(field.bytes, sizeof(data));
    assert_memory_equal(room, data, sizeof(data));
    /* The largest numbers fit the room for a head. */
    assert_true(chunk_head_encode(UINT64_MAX, UINT64_MAX, CHUNK_BYTES, message) <= CHUNK_HEAD_MAX);
    /* More than there is room for, and cut ones. */
    head = chunk_head_encode(0, hash, sizeof(data), message);
    memcpy(message + head, data, sizeof(data));
    field.capacity = sizeof(data) - 1;
    assert_int_equal(chunk_decode(message, head + sizeof(data), &chunk, &field, NULL), ERR_FORMAT);
    field.capacity = sizeof(data);
    assert_int_equal(chunk_decode(message, head + 500, &chunk, &field, NULL), ERR_FORMAT);
    assert_int_equal(chunk_decode("", 0, &chunk, &field, NULL), OK);
    assert_int_equal(field.bytes, 0);
}

static void probes(void **state)
{
    (void)state;
    uint8_t data[64] = "there", room[64];
    struct byte_field there = {.data = data, .bytes = 64}, field = {.data = room, .capacity = 64};
    struct rpc_buffer b;
    uint32_t answer_bytes;
    uint64_t handling_us;
    assert_int_equal(probe_request_encode(77, &there, &b, NULL), OK);
    assert_int_equal(probe_request_decode(b.data, b.bytes, &answer_bytes, &field, NULL), OK);
    assert_int_equal(answer_bytes, 77);
    assert_int_equal(field.bytes, 64);
    assert_memory_equal(room, data, 64);
    rpc_buffer_release(&b);
    assert_int_equal(probe_response_encode(123, &there, &b, NULL), OK);
    assert_int_equal(probe_response_decode(b.data, b.bytes, &handling_us, &field, NULL), OK);
    assert_int_equal(handling_us, 123);
    field.capacity = 63;
    assert_int_equal(probe_response_decode(b.data, b.bytes, &handling_us, &field, NULL),
                     ERR_FORMAT);
    rpc_buffer_release(&b);
    field.capacity = 64;
    assert_int_equal(probe_request_encode(PROBE_MAX_BYTES + 1, &there, &b, NULL), OK);
    assert_int_equal(probe_request_decode(b.data, b.bytes, &answer_bytes, &field, NULL), ERR_LIMIT);
    rpc_buffer_release(&b);
}

static void params_out_of_range(void **state)
{
    (void)state;
    shoal_v1_ModelParams m;
    struct model_params p;
    params_to_message(&params, &m);
    m.hidden = 1u << 31;
    assert_int_equal(params_from_message(&m, &p, NULL), ERR_INVALID);
    params_to_message(&params, &m);
    m.rope_pairing = 2;
    assert_int_equal(params_from_message(&m, &p, NULL), ERR_INVALID);
    params_to_message(&params, &m);
    m.rope_scaling = 3;
    assert_int_equal(params_from_message(&m, &p, NULL), ERR_INVALID);
    params_to_message(&params, &m);
    m.window = SHAPE_MAX_CONTEXT;
    assert_int_equal(params_from_message(&m, &p, NULL), OK);
    m.window++;
    assert_int_equal(params_from_message(&m, &p, NULL), ERR_LIMIT);
}

static void identities(void **state)
{
    (void)state;
    struct model_identity a = {100, {1, 2}};
    shoal_v1_ModelIdentity m;
    identity_to_message(&a, &m);
    assert_true(identity_equals(&a, &m));
    struct model_identity others[] = {{101, {1, 2}}, {100, {3, 2}}, {100, {1, 3}}};
    for (int i = 0; i < 3; i++)
        assert_false(identity_equals(&others[i], &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(assign_comes_back),
                                       cmocka_unit_test(cut_assigns),
                                       cmocka_unit_test(flipped_assigns),
                                       cmocka_unit_test(too_much_in_an_assign),
                                       cmocka_unit_test(chunks),
                                       cmocka_unit_test(probes),
                                       cmocka_unit_test(params_out_of_range),
                                       cmocka_unit_test(identities)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
