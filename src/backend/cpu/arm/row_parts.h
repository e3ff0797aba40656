/* The vocabulary of gemm_body.h where a vector of four products is four rows by one token; the file
 * that includes it defines dot_half of gemv_body.h before. */

enum { COLUMN_TOKENS = 1, PARTS = QUADS };

struct column {
    int8x16_t x[2];
    float scale, scaled_sum;
};

FORCE_INLINE struct column load_column(const struct quant_group *a, const struct quant_group *b)
{
    (void)b;
    return (struct column){{vld1q_s8(a->codes), vld1q_s8(a->codes + 16)}, a->scale, a->scaled_sum};
}

FORCE_INLINE void arrange(int8x16_t to[PARTS][STEPS], const int8x16_t code[STEPS], int quad)
{
    UNROLL
    for (int i = 0; i < STEPS; i++)
        to[quad][i] = code[i];
}

FORCE_INLINE void spread(float32x4_t to[PARTS], float32x4_t rows, int quad)
{
    to[quad] = rows;
}

FORCE_INLINE int32x4_t dot_part(int32x4_t sum, const int8x16_t code[STEPS], const struct column *x,
                                int half, const enum pack_format format)
{
    return dot_half(sum, code + 4 * half, x->x[half], format);
}

FORCE_INLINE float32x4_t add_scaled(float32x4_t acc, int32x4_t sum, float32x4_t scale,
                                    const struct column *x)
{
    return vfmaq_f32(acc, vcvtq_f32_s32(sum), vmulq_n_f32(scale, x->scale));
}

FORCE_INLINE float32x4_t less_min(float32x4_t acc, float32x4_t min, const struct column *x)
{
    return vfmsq_f32(acc, min, vdupq_n_f32(x->scaled_sum));
}

FORCE_INLINE void panel_sums(float32x4_t sums[QUADS], const float *at, int i)
{
    (void)i;
    UNROLL
    for (int q = 0; q < QUADS; q++)
        sums[q] = vld1q_f32(at + 4 * q);
}
