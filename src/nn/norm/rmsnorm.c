// The operation rmsnorm with its weight.
#include <ember/ops.h>

struct rmsnorm {
    ember_layer base; // param[0] is w
    float eps;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(struct rmsnorm, eps, 1e-5, 0, 1, "added to the mean square before the root"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    return ember_param(b, &l->param[0], "weight", EMBER_INIT_ONES, EMBER_ROLE_NORM,
                       (size_t[]){ember_build_width(b)}, 1);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return ember_rmsnorm(f, x, l->param[0], ((const struct rmsnorm *)l)->eps, y);
}

extern const ember_layer_type em_layer_rmsnorm;
const ember_layer_type em_layer_rmsnorm = {
    .name = "rmsnorm",
    .kind = EMBER_NORM,
    .size = sizeof(struct rmsnorm),
    .options = options,
    .help = "x / sqrt(mean(x^2) + eps) * w. Zhang and Sennrich 2019, arXiv:1910.07467",
    .build = build,
    .forward = forward,
};
