/* Rotary frequencies (Su et al. 2021, RoFormer) and their scalings: linear position interpolation
 * (Chen et al. 2023) and Llama 3's, which leaves short wavelengths alone, divides long ones by the
 * factor and blends between. All depends on the configuration only, never on the current length. */
#include "model/model_impl.h"
#include "tensor/exact_math.h"

static double llama3_scaled(const struct model_params *p, double frequency)
{
    const double two_pi = 6.283185307179586476925286766559;
    double wavelength = two_pi / frequency;
    double low = p->rope_original_context / (double)p->rope_low_freq_factor;
    double high = p->rope_original_context / (double)p->rope_high_freq_factor;
    if (wavelength < high)
        return frequency;
    if (wavelength > low)
        return frequency / (double)p->rope_factor;
    double smooth = (p->rope_original_context / wavelength - (double)p->rope_low_freq_factor) /
                    ((double)p->rope_high_freq_factor - (double)p->rope_low_freq_factor);
    return (1 - smooth) * (frequency / (double)p->rope_factor) + smooth * frequency;
}

void rope_frequencies(const struct model_params *p, const float *factors, double *inv_freq)
{
    for (int i = 0; i < p->rope_size / 2; i++) {
        double f = exact_pow((double)p->rope_base, -2.0 * i / p->rope_size);
        if (p->rope_scaling == ROPE_SCALING_LINEAR)
            f /= (double)p->rope_factor;
        else if (p->rope_scaling == ROPE_SCALING_LLAMA3)
            f = llama3_scaled(p, f);
        inv_freq[i] = factors != NULL ? f / (double)factors[i] : f;
    }
}
