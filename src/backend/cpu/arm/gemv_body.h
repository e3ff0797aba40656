/* One token times quantised weights: bound by how fast the panels come from memory, so each is read
 * once from end to end. The body for every Arm instruction set with one way or another to do this:
 *
 *   int32x4_t dot_half(int32x4_t sum, const int8x16_t code[4], int8x16_t x, enum pack_format
 * format)
 *
 * sum + the products of four rows, 16 values of each ([4 rows][4] in each vector), with 16
 * activations. Included by files that define it, after decode_neon.h; they call gemv. The unsigned
 * codes' offset is taken off by the start of the sum, through the activations' sums. */

enum { AHEAD = 1024 }; /* bytes: what is asked for before it is needed */

/* acc + one group. */
FORCE_INLINE void gemv_group(float32x4_t acc[QUADS], struct place p, const struct quant_group *x,
                             const enum pack_format format)
{
    const int offset = code_offset(format);
    const bool halves = format == PACK_Q6_K;
    struct scales s;
    decode_scales(&s, p, format);
    int32x4_t first = vdupq_n_s32((halves ? x->less_first : x->less_sum) * offset);
    int32x4_t second = vdupq_n_s32((x->less_sum - x->less_first) * offset);
    int8x16_t x_first = vld1q_s8(x->codes), x_second = vld1q_s8(x->codes + 16);
    UNROLL
    for (int q = 0; q < QUADS; q++) {
        int8x16_t code[STEPS];
        decode_codes(code, p, q, format);
        int32x4_t sum = dot_half(first, code, x_first, format);
        if (halves) {
            acc[q] = vfmaq_f32(acc[q], vcvtq_f32_s32(sum), vmulq_n_f32(s.scale[0][q], x->scale));
            sum = second;
        }
        sum = dot_half(sum, code + 4, x_second, format);
        acc[q] = vfmaq_f32(acc[q], vcvtq_f32_s32(sum), vmulq_n_f32(s.scale[halves][q], x->scale));
        if (format == PACK_Q4_K)
            acc[q] = vfmsq_f32(acc[q], s.min[q], vdupq_n_f32(x->scaled_sum));
    }
}

FORCE_INLINE void panel_product(const struct packed *w, const uint8_t *panel,
                                const struct quant_group *x, float32x4_t sums[QUADS],
                                const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t n_groups = (size_t)(w->n_cols / GROUP);
    int n_blocks = packed_n_blocks(w);
    float32x4_t section[QUADS][K_SECTIONS];
    for (int s = 0; s < K_SECTIONS; s++) {
        float32x4_t acc[QUADS] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
        for (size_t b = (size_t)section_begin(n_blocks, s);
             b < (size_t)section_begin(n_blocks, s + 1); b++) {
            const uint8_t *block = panel + b * w->block_bytes;
            for (size_t line = 0; line < w->block_bytes; line += 64)
                __builtin_prefetch((const void *)((uintptr_t)block + line + AHEAD));
            UNROLL
            for (size_t i = 0; i < per_block; i++)
                if (b * per_block + i < n_groups)
                    gemv_group(acc, (struct place){block, (int)i}, x + b * per_block + i, format);
        }
        UNROLL
        for (int q = 0; q < QUADS; q++)
            section[q][s] = acc[q];
    }
    UNROLL
    for (int q = 0; q < QUADS; q++)
        sums[q] = section_tree_neon(section[q]);
}

/* Token t. */
FORCE_INLINE void gemv(const struct matmul *m, int panel_begin, int panel_end, int t,
                       const enum pack_format format)
{
    const struct quant_group *x = quant_row(&m->q, (size_t)t);
    for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
        float32x4_t sums[QUADS];
        panel_product(m->w, packed_panel(m->w, panel_i), x, sums, format);
        store_panel(m, panel_i, (size_t)t, sums);
    }
}
