/* Fuzzes tokenizer.json: whatever the bytes are, opening them must give a tokenizer or an error,
 * and a tokenizer must encode, decode and be walked through without a crash. Decoding what was
 * encoded must give valid UTF-8, and the same bytes at once and step by step. */
#include "base/panic.h"
#include "text/text.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Spaces, letters, digits, emoji, a special token's name, and bytes that are no UTF-8. */
static const char TEXT[] = " Hello  world 123\n\té 日本 😀 <s></s><|eot|> \xff\xc3";

static void decode_both_ways(const struct tokenizer *t, const struct token_list *ids)
{
    struct strbuf whole, steps;
    strbuf_init(&whole, 1 << 24);
    strbuf_init(&steps, 1 << 24);
    struct detokenizer d;
    detokenizer_init(&d, t, 0);
    enum err err = tokenizer_decode(t, ids->ids, ids->n, 0, &whole, NULL);
    for (size_t i = 0; i < ids->n && err == OK; i++)
        err = detokenizer_push(&d, ids->ids[i], &steps, NULL);
    if (err == OK)
        err = detokenizer_finish(&d, &steps, NULL);
    if (err == OK) {
        ASSERT(whole.bytes == steps.bytes);
        ASSERT(memcmp(whole.data, steps.data, whole.bytes) == 0);
    }
    strbuf_release(&whole);
    strbuf_release(&steps);
}

static void use(const struct tokenizer *t)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct token_list ids = {0};
        if (tokenizer_encode(t, TEXT, sizeof(TEXT) - 1, flags, &ids, NULL) == OK)
            decode_both_ways(t, &ids);
        token_list_release(&ids);
    }
    size_t n_bytes = 0;
    for (uint32_t id = 0; id < tokenizer_n_tokens(t); id++) {
        size_t n;
        ASSERT(tokenizer_piece(t, id, &n) != NULL);
        n_bytes += n;
    }
    ASSERT(n_bytes < (size_t)1 << 30);
    ASSERT(tokenizer_bos(t) == TOKEN_NONE || tokenizer_is_special(t, tokenizer_bos(t)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct tokenizer *t = NULL;
    struct error e;
    if (tokenizer_new_json(data, bytes, &t, &e) == OK)
        use(t);
    else
        ASSERT(t == NULL && e.text[0] != '\0');
    tokenizer_close(t);
    return 0;
}
