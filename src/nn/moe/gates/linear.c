// One matrix, and a bias where asked for.
#include <ember/ops.h>

struct linear {
    ember_layer base; // param: weight [E, D], bias [E]
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_BOOL(struct linear, bias, false, "whether a bias is added"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t E = ember_build_experts(b);
    EMBER_TRY(ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){E, ember_build_width(b)}, 2));
    if (!((struct linear *)l)->bias) return EMBER_OK;
    return ember_param(b, &l->param[1], "bias", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER, &E, 1);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return ember_linear_f32(f, x, l->param[0], l->param[1], y);
}

extern const ember_layer_type em_layer_linear_gate;
const ember_layer_type em_layer_linear_gate = {
    .name = "linear",
    .kind = EMBER_GATE,
    .size = sizeof(struct linear),
    .options = options,
    .help = "x W^T (+ b)",
    .build = build,
    .forward = forward,
};
