// Two matrices with an activation between them. Shen et al. 2023, arXiv:2306.04640.
#include <ember/ops.h>

struct mlp {
    ember_layer base; // param: up [F, D], down [E, F]
    size_t hidden;
    int activation;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct mlp, hidden, 256, 1, 1 << 20, "width between the matrices"),
    EMBER_OPT_ENUM(struct mlp, activation, EMBER_GELU, EMBER_ACTIVATION_CHOICES,
                   "between the matrices"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t F = ((struct mlp *)l)->hidden;
    EMBER_TRY(ember_param(b, &l->param[0], "up.weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){F, ember_build_width(b)}, 2));
    return ember_param(b, &l->param[1], "down.weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                       (size_t[]){ember_build_experts(b), F}, 2);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *h;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &h));
    EMBER_TRY(
        ember_activation(f, h, (ember_activation_kind)((const struct mlp *)l)->activation, &h));
    return ember_linear_f32(f, h, l->param[1], NULL, y);
}

extern const ember_layer_type em_layer_mlp_gate;
const ember_layer_type em_layer_mlp_gate = {
    .name = "mlp",
    .kind = EMBER_GATE,
    .size = sizeof(struct mlp),
    .options = options,
    .help = "act(x U^T) V^T. arXiv:2306.04640",
    .build = build,
    .forward = forward,
};
