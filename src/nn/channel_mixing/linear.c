// One matrix: y = x W^T (+ b).
#include <ember/ops.h>

struct linear {
    ember_layer base; // param: weight [D, D], bias [D]
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_BOOL(struct linear, bias, false, "whether a bias is added"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t D = ember_build_width(b);
    EMBER_TRY(ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                          (size_t[]){D, D}, 2));
    if (!((struct linear *)l)->bias) return EMBER_OK;
    return ember_param(b, &l->param[1], "bias", EMBER_INIT_ZEROS, EMBER_ROLE_FFN, &D, 1);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return ember_linear(f, x, l->param[0], l->param[1], NULL, y);
}

extern const ember_layer_type em_layer_linear;
const ember_layer_type em_layer_linear = {
    .name = "linear",
    .kind = EMBER_CHANNEL_MIXER,
    .flags = EMBER_GROUPABLE,
    .size = sizeof(struct linear),
    .options = options,
    .help = "one matrix, x W^T (+ b)",
    .build = build,
    .forward = forward,
};
