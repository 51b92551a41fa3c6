// A gated feed-forward layer: y = (act(x G^T) * (x U^T)) V^T. SwiGLU with silu, GeGLU with gelu.
#include <ember/ops.h>

struct swiglu {
    ember_layer base; // param: gate [F, D], up [F, D], down [D, F], and their biases
    size_t hidden;
    int activation;
    bool bias;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(
        struct swiglu, hidden, 0, 0, 1 << 20,
        "width of the gated middle; 0: 8/3 of the model's width, up to a multiple of 64"),
    EMBER_OPT_ENUM(struct swiglu, activation, EMBER_SILU, EMBER_ACTIVATION_CHOICES,
                   "of the gate: silu is SwiGLU, gelu GeGLU"),
    EMBER_OPT_BOOL(struct swiglu, bias, false, "whether biases are added"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct swiglu *s = (const struct swiglu *)l;
    const size_t D = ember_build_width(b), F = s->hidden ? s->hidden : (8 * D / 3 + 63) / 64 * 64;
    static const char *const weight[] = {"gate.weight", "up.weight", "down.weight"};
    static const char *const bias[] = {"gate.bias", "up.bias", "down.bias"};
    for (unsigned i = 0; i < 3; i++) {
        const size_t out = i == 2 ? D : F, in = i == 2 ? F : D;
        EMBER_TRY(ember_param(b, &l->param[2 * i], weight[i], EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){out, in}, 2));
        if (s->bias)
            EMBER_TRY(ember_param(b, &l->param[2 * i + 1], bias[i], EMBER_INIT_ZEROS,
                                  EMBER_ROLE_FFN, &out, 1));
    }
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *gate, *up, *h;
    EMBER_TRY(ember_linear(f, x, l->param[0], l->param[1], NULL, &gate));
    EMBER_TRY(ember_linear(f, x, l->param[2], l->param[3], NULL, &up));
    EMBER_TRY(ember_gated(f, gate, up,
                          (ember_activation_kind)((const struct swiglu *)l)->activation, &h));
    return ember_linear(f, h, l->param[4], l->param[5], NULL, y);
}

extern const ember_layer_type em_layer_swiglu;
const ember_layer_type em_layer_swiglu = {
    .name = "swiglu",
    .kind = EMBER_CHANNEL_MIXER,
    .flags = EMBER_GROUPABLE,
    .size = sizeof(struct swiglu),
    .options = options,
    .help = "(act(x G^T) * (x U^T)) V^T. Shazeer 2020, arXiv:2002.05202",
    .build = build,
    .forward = forward,
};
