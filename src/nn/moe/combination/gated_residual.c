// y = c * sum of weight * output + (1 - c) * x, c = sigmoid(u . x + b) for each token: the experts'
// answer, or the token as it was. Srivastava et al. 2015, arXiv:1505.00387; Rajbhandari et al. 2022
// (Residual-MoE), arXiv:2201.05596.
#include "nn/moe/token_gate.h"

struct gated_residual {
    ember_layer base; // param: weight [1, D], bias [1]
    float start;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(struct gated_residual, start, 2, -20, 20,
                    "the gate's bias at the start: sigmoid(2) = 0.88 is for the experts"),
    {0},
};

static void fill_bias(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    ((float *)param->data)[0] = ((const struct gated_residual *)context)->start;
}

static ember_status build(ember_layer *l, ember_build *b)
{
    EMBER_TRY(ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){1, ember_build_width(b)}, 2));
    EMBER_TRY(ember_param(b, &l->param[1], "bias", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER,
                          (size_t[]){1}, 1));
    ember_param_fill(b, l->param[1], &(ember_filling){.fill = fill_bias, .context = l});
    return EMBER_OK;
}

static ember_status combine(const ember_layer *l, ember_flow *f, ember_tensor *x,
                            ember_tensor *rows, const ember_routing *routing, ember_tensor **y)
{
    ember_tensor *sum, *back;
    EMBER_TRY(ember_weighted_sum(f, rows, routing, &sum));
    EMBER_TRY(ember_scale(f, x, -1, &back)); // x + c (sum - x)
    EMBER_TRY(ember_add(f, sum, back, &sum));
    EMBER_TRY(em_token_gate(f, x, l->param[0], l->param[1], sum, &sum));
    return ember_add(f, x, sum, y);
}

extern const ember_layer_type em_layer_gated_residual;
const ember_layer_type em_layer_gated_residual = {
    .name = "gated_residual",
    .kind = EMBER_COMBINER,
    .size = sizeof(struct gated_residual),
    .options = options,
    .help = "the weighted sum or the token itself, by a sigmoid gate. arXiv:2201.05596",
    .build = build,
    .combine = combine,
};
