/* The ranges that hyper-parameters of any format must lie in, before a product of two of them is
 * formed anywhere. Whether tensors have the shapes that follow from them: the model module. */
#include "modelfile/modelfile_impl.h"

#include <math.h>

static enum err check_int(const char *name, int value, int least, int most, struct error *e)
{
    if (value >= least && value <= most)
        return OK;
    return error_set(e, value > most ? ERR_LIMIT : ERR_INVALID, "%s is %d, expected %d to %d", name,
                     value, least, most);
}

static enum err check_float(const char *name, float value, float least, float most, struct error *e)
{
    if (value >= least && value <= most) /* false for NaN */
        return OK;
    return error_set(e, ERR_INVALID, "%s is %g, expected %g to %g", name, (double)value,
                     (double)least, (double)most);
}

static enum err check_relations(const struct model_params *p, struct error *e)
{
    if (p->n_heads % p->n_kv_heads != 0)
        return error_set(e, ERR_INVALID, "%d heads cannot share %d key-value heads evenly",
                         p->n_heads, p->n_kv_heads);
    if (p->rope_size % 2 != 0)
        return error_set(e, ERR_INVALID,
                         "the rotated part of a head has %d dimensions, expected "
                         "an even number",
                         p->rope_size);
    if (p->rope_scaling == ROPE_SCALING_LLAMA3 &&
        !(p->rope_low_freq_factor < p->rope_high_freq_factor))
        return error_set(e, ERR_INVALID,
                         "low_freq_factor is %g, expected less than "
                         "high_freq_factor %g",
                         (double)p->rope_low_freq_factor, (double)p->rope_high_freq_factor);
    return OK;
}

static enum err check_llama3(const struct model_params *p, struct error *e)
{
    enum err err = check_float("low_freq_factor", p->rope_low_freq_factor, 1e-3f, 1e6f, e);
    if (err == OK)
        err = check_float("high_freq_factor", p->rope_high_freq_factor, 1e-3f, 1e6f, e);
    if (err == OK)
        err = check_int("original_max_position_embeddings", p->rope_original_context, 1,
                        SHAPE_MAX_CONTEXT, e);
    return err;
}

enum err params_check(const struct model_params *p, struct error *e)
{
    const struct {
        const char *name;
        int value, most;
    } ints[] = {
        {"the number of layers", p->n_layers, SHAPE_MAX_LAYERS},
        {"the hidden size", p->hidden, SHAPE_MAX_WIDTH},
        {"the feed-forward size", p->ffn, SHAPE_MAX_WIDTH},
        {"the number of heads", p->n_heads, SHAPE_MAX_HEADS},
        {"the number of key-value heads", p->n_kv_heads, SHAPE_MAX_HEADS},
        {"the head size", p->head_size, SHAPE_MAX_HEAD_SIZE},
        {"the rotated part of a head", p->rope_size, p->head_size},
        {"the vocabulary size", p->vocab, SHAPE_MAX_VOCAB},
        {"the context length", p->context, SHAPE_MAX_CONTEXT},
    };
    enum err err = OK;
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]) && err == OK; i++)
        err = check_int(ints[i].name, ints[i].value, 1, ints[i].most, e);
    if (err == OK)
        err = check_int("the attention window", p->window, 0, SHAPE_MAX_CONTEXT, e);
    if (err == OK)
        err = check_float("the norm epsilon", p->norm_eps, 1e-12f, 1, e);
    if (err == OK)
        err = check_float("the rope base", p->rope_base, 1, 1e12f, e);
    if (err == OK)
        err = check_float("the rope factor", p->rope_factor, 1e-3f, 1e6f, e);
    if (err == OK && p->rope_scaling == ROPE_SCALING_LLAMA3)
        err = check_llama3(p, e);
    return err == OK ? check_relations(p, e) : err;
}
