/* For this module's tests: a LLaMA of four layers with weights from a counter, as the bytes of a
 * GGUF file. Nobody trained it; two ways to compute it must agree, that is all. */
#ifndef SHOAL_NODE_TINY_GGUF_IMPL_H
#define SHOAL_NODE_TINY_GGUF_IMPL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TINY_LAYERS = 4,
    TINY_HIDDEN = 64,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_FFN = 96,
    TINY_VOCAB = 96,
    TINY_CONTEXT = 256,
};

struct tiny_gguf {
    uint8_t *data;
    size_t bytes, capacity;
    uint64_t tensor_bytes; /* as the tensor table goes */
};

static inline void tiny_put(struct tiny_gguf *g, const void *data, size_t bytes)
{
    if (g->bytes + bytes > g->capacity) {
        g->capacity = 2 * (g->bytes + bytes);
        g->data = realloc(g->data, g->capacity);
    }
    memcpy(g->data + g->bytes, data, bytes);
    g->bytes += bytes;
}

static inline void tiny_u32(struct tiny_gguf *g, uint32_t v)
{
    tiny_put(g, &v, sizeof(v));
}

static inline void tiny_u64(struct tiny_gguf *g, uint64_t v)
{
    tiny_put(g, &v, sizeof(v));
}

static inline void tiny_text(struct tiny_gguf *g, const char *text)
{
    tiny_u64(g, strlen(text));
    tiny_put(g, text, strlen(text));
}

static inline void tiny_meta_u32(struct tiny_gguf *g, const char *key, uint32_t v)
{
    enum { GGUF_UINT32 = 4 };
    tiny_text(g, key);
    tiny_u32(g, GGUF_UINT32);
    tiny_u32(g, v);
}

static inline void tiny_tensor(struct tiny_gguf *g, const char *name, uint64_t n_cols,
                               uint64_t n_rows)
{
    enum { GGUF_F32 = 0 };
    tiny_text(g, name);
    tiny_u32(g, n_rows > 1 ? 2 : 1);
    tiny_u64(g, n_cols);
    if (n_rows > 1)
        tiny_u64(g, n_rows);
    tiny_u32(g, GGUF_F32);
    tiny_u64(g, g->tensor_bytes);
    g->tensor_bytes += n_cols * n_rows * sizeof(float); /* all are multiples of the alignment */
}

static inline void tiny_layer(struct tiny_gguf *g, int i)
{
    enum { KV = TINY_HIDDEN / TINY_HEADS * TINY_KV_HEADS };
    static const struct {
        const char *name;
        int n_cols, n_rows;
    } tensors[] = {{"attn_norm", TINY_HIDDEN, 1},
                   {"attn_q", TINY_HIDDEN, TINY_HIDDEN},
                   {"attn_k", TINY_HIDDEN, KV},
                   {"attn_v", TINY_HIDDEN, KV},
                   {"attn_output", TINY_HIDDEN, TINY_HIDDEN},
                   {"ffn_norm", TINY_HIDDEN, 1},
                   {"ffn_gate", TINY_HIDDEN, TINY_FFN},
                   {"ffn_up", TINY_HIDDEN, TINY_FFN},
                   {"ffn_down", TINY_FFN, TINY_HIDDEN}};
    for (size_t t = 0; t < sizeof(tensors) / sizeof(tensors[0]); t++) {
        char name[64];
        snprintf(name, sizeof(name), "blk.%d.%s.weight", i, tensors[t].name);
        tiny_tensor(g, name, (uint64_t)tensors[t].n_cols, (uint64_t)tensors[t].n_rows);
    }
}

/* `seed` changes the weights and, through the name in the header, the identity. */
static inline struct tiny_gguf tiny_gguf_make(uint32_t seed)
{
    struct tiny_gguf g = {0};
    char name[32];
    float eps = 1e-5f;
    snprintf(name, sizeof(name), "tiny %u", seed);
    tiny_put(&g, "GGUF", 4);
    tiny_u32(&g, 3);
    tiny_u64(&g, 3 + 9 * TINY_LAYERS);
    tiny_u64(&g, 10);
    tiny_text(&g, "general.architecture");
    tiny_u32(&g, 8);
    tiny_text(&g, "llama");
    tiny_text(&g, "general.name");
    tiny_u32(&g, 8);
    tiny_text(&g, name);
    tiny_meta_u32(&g, "llama.block_count", TINY_LAYERS);
    tiny_meta_u32(&g, "llama.context_length", TINY_CONTEXT);
    tiny_meta_u32(&g, "llama.embedding_length", TINY_HIDDEN);
    tiny_meta_u32(&g, "llama.feed_forward_length", TINY_FFN);
    tiny_meta_u32(&g, "llama.attention.head_count", TINY_HEADS);
    tiny_meta_u32(&g, "llama.attention.head_count_kv", TINY_KV_HEADS);
    tiny_meta_u32(&g, "llama.vocab_size", TINY_VOCAB);
    tiny_text(&g, "llama.attention.layer_norm_rms_epsilon");
    tiny_u32(&g, 6);
    tiny_put(&g, &eps, sizeof(eps));
    tiny_tensor(&g, "token_embd.weight", TINY_HIDDEN, TINY_VOCAB);
    tiny_tensor(&g, "output_norm.weight", TINY_HIDDEN, 1);
    tiny_tensor(&g, "output.weight", TINY_HIDDEN, TINY_VOCAB);
    for (int i = 0; i < TINY_LAYERS; i++)
        tiny_layer(&g, i);
    while (g.bytes % 32 != 0)
        tiny_put(&g, "", 1);
    for (uint64_t i = 0; i < g.tensor_bytes / sizeof(float); i++) {
        seed = seed * 1664525 + 1013904223;
        float value = (float)(int32_t)seed / (float)INT32_MAX / 4;
        tiny_put(&g, &value, sizeof(value));
    }
    return g;
}

#endif
