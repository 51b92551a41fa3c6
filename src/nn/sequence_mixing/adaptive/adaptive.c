#include "nn/sequence_mixing/adaptive/adaptive.h"

#include <math.h>

enum { W, BIAS, NORM, FEATURES, FEATURES_BIAS, GAIN, GAIN_BIAS, SHIFT, SHIFT_BIAS, U, V };

// Variance 1 / (columns): what comes out is as large as what goes in, at any width.
static void fill_scaled(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context;
    float *w = param->data;
    const double deviation = 1 / sqrt((double)param->dim[param->ndim - 1]);
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++)
        w[i] = (float)(deviation * ember_random_normal(random));
}

static ember_status matrix(ember_build *b, ember_layer *l, unsigned i, const char *name,
                           size_t rows, size_t columns)
{
    EMBER_TRY(ember_param(b, &l->param[i], name, EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                          (size_t[]){rows, columns}, 2));
    ember_param_fill(b, l->param[i], &(ember_filling){.fill = fill_scaled});
    return EMBER_OK;
}

static ember_status vector(ember_build *b, ember_layer *l, unsigned i, const char *name,
                           ember_init init, ember_role role, size_t n)
{
    return ember_param(b, &l->param[i], name, init, role, &n, 1);
}

ember_status em_adaptive_build(ember_layer *l, ember_build *b)
{
    const struct em_adaptive *a = (const struct em_adaptive *)l;
    const size_t D = ember_build_width(b), A = a->adapt;
    const bool low_rank = a->generator == EM_ADAPTIVE_LOW_RANK;
    const size_t gains = low_rank ? a->rank : D;
    EMBER_TRY(matrix(b, l, W, "weight", D, D));
    if (a->bias) EMBER_TRY(vector(b, l, BIAS, "bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, D));
    EMBER_TRY(vector(b, l, NORM, "context_norm.weight", EMBER_INIT_ONES, EMBER_ROLE_NORM, D));
    EMBER_TRY(matrix(b, l, FEATURES, "featurizer.weight", A, D));
    EMBER_TRY(vector(b, l, FEATURES_BIAS, "featurizer.bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, A));
    EMBER_TRY(matrix(b, l, GAIN, "gain.weight", gains, A));
    EMBER_TRY(vector(b, l, GAIN_BIAS, "gain.bias", low_rank ? EMBER_INIT_ZEROS : EMBER_INIT_ONES,
                     EMBER_ROLE_FFN, gains));
    if (a->generator == EM_ADAPTIVE_FILM) {
        EMBER_TRY(matrix(b, l, SHIFT, "shift.weight", D, A));
        EMBER_TRY(vector(b, l, SHIFT_BIAS, "shift.bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, D));
    }
    if (!low_rank) return EMBER_OK;
    EMBER_TRY(matrix(b, l, U, "up.weight", D, a->rank));
    return matrix(b, l, V, "down.weight", a->rank, D);
}

ember_status em_adaptive_forward(const ember_layer *l, ember_flow *f, ember_tensor *x,
                                 ember_tensor *context, ember_tensor **y)
{
    const struct em_adaptive *a = (const struct em_adaptive *)l;
    ember_tensor *const *p = l->param;
    ember_tensor *normed, *features, *vector_a, *gain, *wx, *inner;
    EMBER_TRY(ember_rmsnorm(f, context, p[NORM], a->norm_eps, &normed));
    EMBER_TRY(ember_linear(f, normed, p[FEATURES], p[FEATURES_BIAS], NULL, &features));
    EMBER_TRY(ember_activation(f, features, (ember_activation_kind)a->activation, &vector_a));
    EMBER_TRY(ember_linear(f, vector_a, p[GAIN], p[GAIN_BIAS], NULL, &gain));
    EMBER_TRY(ember_linear(f, x, p[W], p[BIAS], NULL, &wx));
    if (a->generator == EM_ADAPTIVE_LOW_RANK) {
        EMBER_TRY(ember_linear(f, x, p[V], NULL, NULL, &inner));
        EMBER_TRY(ember_gated(f, gain, inner, EMBER_IDENTITY, &normed));
        return ember_linear(f, normed, p[U], NULL, wx, y);
    }
    if (a->generator == EM_ADAPTIVE_DIAGONAL) return ember_gated(f, gain, wx, EMBER_IDENTITY, y);
    EMBER_TRY(ember_gated(f, gain, wx, EMBER_IDENTITY, &inner));
    return ember_linear(f, vector_a, p[SHIFT], p[SHIFT_BIAS], inner, y);
}
