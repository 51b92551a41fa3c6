// The operation layernorm with its weight and bias.
#include <ember/ops.h>

struct layernorm {
    ember_layer base; // param[0] is w, param[1] b
    float eps;
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(struct layernorm, eps, 1e-5, 0, 1, "added to the variance before the root"),
    EMBER_OPT_BOOL(struct layernorm, bias, true, "whether a bias is added"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t width = ember_build_width(b);
    EMBER_TRY(ember_param(b, &l->param[0], "weight", EMBER_INIT_ONES, EMBER_ROLE_NORM, &width, 1));
    if (!((struct layernorm *)l)->bias) return EMBER_OK;
    return ember_param(b, &l->param[1], "bias", EMBER_INIT_ZEROS, EMBER_ROLE_NORM, &width, 1);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return ember_layernorm(f, x, l->param[0], l->param[1], ((const struct layernorm *)l)->eps, y);
}

extern const ember_layer_type em_layer_layernorm;
const ember_layer_type em_layer_layernorm = {
    .name = "layernorm",
    .kind = EMBER_NORM,
    .size = sizeof(struct layernorm),
    .options = options,
    .help = "(x - mean) / sqrt(var + eps) * w + b. Ba, Kiros and Hinton 2016, arXiv:1607.06450",
    .build = build,
    .forward = forward,
};
