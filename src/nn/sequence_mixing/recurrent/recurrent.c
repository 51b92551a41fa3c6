#include "nn/sequence_mixing/recurrent/recurrent.h"

#include <math.h>
#include <stdio.h>

#include "tensor/tensor.h"

void em_fill_range(const void *context, ember_random *random, ember_tensor *param)
{
    const struct em_range *r = context;
    for (size_t i = 0; i < ember_tensor_count(param); i++)
        em_f32(param)[i] = (float)(r->low + (r->high - r->low) * ember_random_uniform(random));
}

static void fill_within(double bound, ember_random *random, ember_tensor *param)
{
    const struct em_range r = {-bound, bound};
    em_fill_range(&r, random, param);
}

// Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
// networks".
void em_fill_xavier(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context;
    const size_t rows = param->dim[param->ndim - 2], columns = param->dim[param->ndim - 1];
    fill_within(sqrt(6 / (double)(rows + columns)), random, param);
}

void em_fill_fan_in(const void *context, ember_random *random, ember_tensor *param)
{
    const ember_tensor *matrix = context;
    fill_within(1 / sqrt((double)matrix->dim[matrix->ndim - 1]), random, param);
}

// Columns that are orthonormal, by Gram and Schmidt. Saxe et al. 2013, arXiv:1312.6120.
static void fill_orthogonal(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context;
    const size_t rows = param->dim[0], columns = param->dim[1];
    float *w = em_f32(param);
    for (size_t j = 0; j < columns; j++) {
        for (size_t i = 0; i < rows; i++)
            w[i * columns + j] = (float)ember_random_normal(random);
        for (size_t k = 0; k < j; k++) {
            double along = 0;
            for (size_t i = 0; i < rows; i++)
                along += (double)w[i * columns + j] * (double)w[i * columns + k];
            for (size_t i = 0; i < rows; i++)
                w[i * columns + j] -= (float)along * w[i * columns + k];
        }
        double square = 1e-30;
        for (size_t i = 0; i < rows; i++)
            square += (double)w[i * columns + j] * (double)w[i * columns + j];
        for (size_t i = 0; i < rows; i++)
            w[i * columns + j] *= (float)(1 / sqrt(square));
    }
}

ember_status em_filled_param(ember_build *b, ember_tensor **param, const char *name,
                             const size_t *dim, unsigned ndim, const ember_filling *filling)
{
    EMBER_TRY(ember_param(b, param, name, EMBER_INIT_ZEROS, EMBER_ROLE_OTHER, dim, ndim));
    ember_param_fill(b, *param, filling);
    return EMBER_OK;
}

ember_status em_product_params(ember_build *b, const char *name, size_t rows, size_t columns,
                               bool xavier, ember_tensor **weight, ember_tensor **bias)
{
    char text[96];
    snprintf(text, sizeof text, "%s.weight", name);
    EMBER_TRY(ember_param(b, weight, text, EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){rows, columns}, 2));
    ember_param_fill(
        b, *weight,
        &(ember_filling){.fill = xavier ? em_fill_xavier : em_fill_fan_in, .context = *weight});
    snprintf(text, sizeof text, "%s.bias", name);
    return em_filled_param(b, bias, text, &rows, 1,
                           &(ember_filling){.fill = em_fill_fan_in, .context = *weight});
}

ember_status em_memory_params(ember_build *b, const char *prefix, size_t I, size_t U,
                              ember_recurrent_memory *m)
{
    static const struct em_range bias = {-0.1, 0.1};
    const size_t U4 = 4 * U;
    char text[96];
    snprintf(text, sizeof text, "%slstm.input_map.weight", prefix);
    EMBER_TRY(em_filled_param(b, &m->input_map, text, (size_t[]){U4, I}, 2,
                              &(ember_filling){.fill = em_fill_xavier}));
    snprintf(text, sizeof text, "%slstm.input_map.bias", prefix);
    EMBER_TRY(em_filled_param(b, &m->input_bias, text, &U4, 1,
                              &(ember_filling){.fill = em_fill_range, .context = &bias}));
    snprintf(text, sizeof text, "%slstm.recurrent_map.weight", prefix);
    return em_filled_param(b, &m->recurrent_map, text, (size_t[]){U4, U}, 2,
                           &(ember_filling){.fill = fill_orthogonal});
}

ember_status em_readout_build(ember_build *b, bool projection, size_t M, size_t output_size,
                              struct em_readout *r)
{
    const size_t D = ember_build_width(b), made = output_size ? output_size : D;
    if (projection) EMBER_TRY(em_product_params(b, "fc", made, M, false, &r->weight, &r->bias));
    if (!projection && output_size && output_size != M)
        return ember_build_refuse(b, "output_size", "%zu without a projection from the %zu outputs",
                                  output_size, M);
    return em_build_output(b, projection ? made : M);
}

ember_status em_readout_forward(const struct em_readout *r, ember_flow *f, ember_tensor *x,
                                ember_tensor **y)
{
    if (r->weight) return ember_linear_f32(f, x, r->weight, r->bias, y);
    *y = x;
    return EMBER_OK;
}

ember_status em_wiring_of(ember_build *b, const char *specification, size_t inputs, size_t units,
                          size_t outputs, size_t seed, struct em_wiring *wiring)
{
    const ember_status status = em_wiring_make(
        &(struct em_wiring_request){specification, inputs, units, outputs, seed}, b->arena, wiring);
    return status == EMBER_OK ? EMBER_OK : em_fail_in(status, "%s", b->where);
}
