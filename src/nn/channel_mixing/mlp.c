// Two matrices with an activation between them: y = act(x U^T + a) V^T + b.
#include <ember/ops.h>
#include <math.h>

struct mlp {
    ember_layer base; // param: up [F, D], down [D, F], and their biases
    size_t hidden, residual_blocks;
    int activation;
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct mlp, hidden, 0, 0, 1 << 20,
                   "width between the matrices; 0: four times the model's"),
    EMBER_OPT_ENUM(struct mlp, activation, EMBER_GELU, EMBER_ACTIVATION_CHOICES,
                   "between the matrices"),
    EMBER_OPT_BOOL(struct mlp, bias, false, "whether biases are added"),
    EMBER_OPT_SIZE(struct mlp, residual_blocks, 0, 0, 4096,
                   "the second matrix starts divided by the root of twice this; 0: it does not"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct mlp *m = (const struct mlp *)l;
    const size_t D = ember_build_width(b), F = m->hidden ? m->hidden : 4 * D;
    EMBER_TRY(ember_param(b, &l->param[0], "up.weight", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                          (size_t[]){F, D}, 2));
    if (m->bias)
        EMBER_TRY(ember_param(b, &l->param[1], "up.bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, &F, 1));
    EMBER_TRY(ember_param(b, &l->param[2], "down.weight", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                          (size_t[]){D, F}, 2));
    if (m->residual_blocks)
        ember_param_fill(b, l->param[2],
                         &(ember_filling){.scale = 1 / sqrtf(2 * (float)m->residual_blocks)});
    if (m->bias)
        EMBER_TRY(
            ember_param(b, &l->param[3], "down.bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, &D, 1));
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *up, *h;
    EMBER_TRY(ember_linear(f, x, l->param[0], l->param[1], NULL, &up));
    EMBER_TRY(
        ember_activation(f, up, (ember_activation_kind)((const struct mlp *)l)->activation, &h));
    return ember_linear(f, h, l->param[2], l->param[3], NULL, y);
}

extern const ember_layer_type em_layer_mlp;
const ember_layer_type em_layer_mlp = {
    .name = "mlp",
    .kind = EMBER_CHANNEL_MIXER,
    .flags = EMBER_GROUPABLE,
    .size = sizeof(struct mlp),
    .options = options,
    .help = "act(x U^T) V^T",
    .build = build,
    .forward = forward,
};
