/* Quantising, norm, activation, addition, rotation and conversion of rows with NEON. */
#include "backend/cpu/arm/neon_impl.h"

/* The greatest magnitude of a group, as bits: they order like the magnitudes, NaN above infinity.
 */
FORCE_INLINE uint32_t greatest_magnitude(const float32x4_t v[GROUP / 4])
{
    uint32x4_t magnitude[GROUP / 4];
    UNROLL
    for (int i = 0; i < GROUP / 4; i++)
        magnitude[i] = vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffff));
    UNROLL
    for (int width = GROUP / 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            magnitude[i] = vmaxq_u32(magnitude[i], magnitude[i + width]);
    return vmaxvq_u32(magnitude[0]);
}

/* 16 values scaled and rounded to codes (to nearest even). */
FORCE_INLINE int8x16_t codes_of(const float32x4_t v[4], float inverse)
{
    int16x8_t low = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[0], inverse))),
                                 vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[1], inverse))));
    int16x8_t high = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[2], inverse))),
                                  vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[3], inverse))));
    return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

FORCE_INLINE void quantise_group(struct quant_group *q, const float *x)
{
    float32x4_t v[GROUP / 4];
    UNROLL
    for (int i = 0; i < GROUP / 4; i++)
        v[i] = vld1q_f32(x + 4 * i);
    uint32_t bits = greatest_magnitude(v);
    float amax = f32_from_bits(bits), inverse = 127.0f / amax;
    if (bits < 0x7f800000u && f32_bits(inverse) < 0x7f800000u) {
        int8x16_t first = codes_of(v, inverse), second = codes_of(v + 4, inverse);
        vst1q_s8(q->codes, first);
        vst1q_s8(q->codes + 16, second);
        q->scale = amax / 127.0f;
        q->less_first = -vaddlvq_s8(first);
        q->less_sum = q->less_first - vaddlvq_s8(second);
        q->scaled_sum = (float)-q->less_sum * q->scale;
    } else { /* zeros, or something that is not finite: as ref */
        *q = (struct quant_group){0};
        q->scale = q->scaled_sum = bits < 0x7f800000u ? 0.0f : NAN;
    }
}

void quantise_neon(const struct quant_rows *to, size_t row, size_t group, const float *x,
                   size_t n_rows, size_t n_groups)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t g = 0; g < n_groups; g++, x += GROUP)
            quantise_group(quant_at(to, row + r, group + g), x);
}

void rms_norm_neon(float *y, const float *x, const float *gain, float eps, int n_cols)
{
    size_t n = (size_t)n_cols, i = 0;
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (; n - i >= STRIPES; i += STRIPES) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            float32x4_t v = vld1q_f32(x + i + 4 * j);
            sums[j] = vfmaq_f32(sums[j], v, v);
        }
    }
    /* Zeros behind the end change no sum of squares. */
    for (int j = 0; i + 4 * j < n; j++) {
        float32x4_t v = load_first(x + i + 4 * j, n - i - 4 * j);
        sums[j] = vfmaq_f32(sums[j], v, v);
    }
    float scale = 1.0f / sqrtf(stripe_tree_neon(sums) / (float)n_cols + eps);
    for (i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_n_f32(load_first(x + i, n - i), scale);
        store_first(y + i, n - i, vmulq_f32(v, load_first(gain + i, n - i)));
    }
}

void silu_mul_neon(float *y, const float *gate, const float *up, size_t n)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t g = load_first(gate + i, n - i);
        float32x4_t divisor = vaddq_f32(one, exact_expf_neon(vnegq_f32(g)));
        store_first(y + i, n - i, vmulq_f32(vdivq_f32(g, divisor), load_first(up + i, n - i)));
    }
}

void add_neon(float *x, const float *y, size_t n)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
        vst1q_f32(x + i + 4, vaddq_f32(vld1q_f32(x + i + 4), vld1q_f32(y + i + 4)));
    }
    for (; i < n; i++)
        x[i] += y[i];
}

/* Pairs (a, b) turned: fma(a, c, -(b s)), fma(b, c, a s). */
FORCE_INLINE float32x4x2_t turned(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t s)
{
    float32x4x2_t y = {
        {vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c), vfmaq_f32(vmulq_f32(a, s), b, c)}};
    return y;
}

static void rotate_halves(float *head, const float *turn, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i += 4) {
        size_t left = n_pairs - i;
        float32x4x2_t y = turned(load_first(head + i, left), load_first(head + n_pairs + i, left),
                                 load_first(turn + i, left), load_first(turn + n_pairs + i, left));
        store_first(head + i, left, y.val[0]);
        store_first(head + n_pairs + i, left, y.val[1]);
    }
}

static void rotate_neighbours(float *head, const float *turn, size_t n_pairs)
{
    size_t i = 0;
    for (; n_pairs - i >= 4; i += 4) {
        float32x4x2_t x = vld2q_f32(head + 2 * i);
        vst2q_f32(head + 2 * i,
                  turned(x.val[0], x.val[1], vld1q_f32(turn + i), vld1q_f32(turn + n_pairs + i)));
    }
    for (; i < n_pairs; i++) {
        float a = head[2 * i], b = head[2 * i + 1], c = turn[i], s = turn[n_pairs + i];
        head[2 * i] = fmaf(a, c, -(b * s));
        head[2 * i + 1] = fmaf(b, c, a * s);
    }
}

void rotate_neon(float *head, const float *turn, int rope_size, bool halves)
{
    if (halves)
        rotate_halves(head, turn, (size_t)(rope_size / 2));
    else
        rotate_neighbours(head, turn, (size_t)(rope_size / 2));
}

void to_f16_neon(struct f16 *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        uint16_t buffer[4];
        float16x4_t half = vcvt_f16_f32(load_first(src + i, n - i));
        vst1_u16(buffer, vreinterpret_u16_f16(half));
        memcpy(dst + i, buffer, (n - i < 4 ? n - i : 4) * sizeof *dst);
    }
}
