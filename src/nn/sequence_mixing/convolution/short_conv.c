// LFM2's gated short convolution: [B | C | X] = x W_in^T, u = B * X, y = (C * conv(u)) W_out^T.
#include <ember/ops.h>

struct short_conv {
    ember_layer base; // param: in_proj [3D, D], conv [D, L], out_proj [D, D], and their biases
    size_t width;
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct short_conv, width, 3, 1, 4096,
                   "tokens that the convolution spans, the current one included"),
    EMBER_OPT_BOOL(struct short_conv, bias, false,
                   "biases on both projections and on the convolution"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct short_conv *s = (const struct short_conv *)l;
    const size_t D = ember_build_width(b), D3 = 3 * D;
    const ember_role role = EMBER_ROLE_CONVOLUTION;
    EMBER_TRY(ember_param(b, &l->param[0], "in_proj.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){D3, D}, 2));
    if (s->bias)
        EMBER_TRY(ember_param(b, &l->param[1], "in_proj.bias", EMBER_INIT_ZEROS, role, &D3, 1));
    EMBER_TRY(ember_param(b, &l->param[2], "conv.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){D, s->width}, 2));
    if (s->bias)
        EMBER_TRY(ember_param(b, &l->param[3], "conv.bias", EMBER_INIT_ZEROS, role, &D, 1));
    EMBER_TRY(ember_param(b, &l->param[4], "out_proj.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){D, D}, 2));
    if (s->bias)
        EMBER_TRY(ember_param(b, &l->param[5], "out_proj.bias", EMBER_INIT_ZEROS, role, &D, 1));
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *bcx, *v;
    EMBER_TRY(ember_linear(f, x, l->param[0], l->param[1], NULL, &bcx));
    EMBER_TRY(ember_short_conv(f, bcx, l->param[2], l->param[3], &v));
    return ember_linear(f, v, l->param[4], l->param[5], NULL, y);
}

extern const ember_layer_type em_layer_short_conv;
const ember_layer_type em_layer_short_conv = {
    .name = "short_conv",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct short_conv),
    .options = options,
    .help = "gated causal depthwise convolution over a few tokens (LFM2)",
    .build = build,
    .forward = forward,
};
