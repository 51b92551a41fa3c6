// Logits of what a channel mixer makes of x: the selector may be a mixture of experts itself.
#include <ember/ops.h>

struct mixer {
    ember_layer base; // param: weight [E, D]
    const ember_config *mixer;
    ember_layer *layer;
};

static const ember_option options[] = {
    EMBER_OPT_COMPONENT(struct mixer, mixer, EMBER_CHANNEL_MIXER, "{\"type\": \"mlp\"}",
                        "any channel mixer, a mixture of experts too"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct mixer *m = (struct mixer *)l;
    const size_t E = ember_build_experts(b);
    EMBER_TRY(ember_child(b, "mixer", EMBER_CHANNEL_MIXER, m->mixer, &m->layer));
    return ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                       (size_t[]){E, ember_build_width(b)}, 2);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *mixed;
    EMBER_TRY(ember_forward(((const struct mixer *)l)->layer, f, x, &mixed));
    return ember_linear_f32(f, mixed, l->param[0], NULL, y);
}

extern const ember_layer_type em_layer_mixer_gate;
const ember_layer_type em_layer_mixer_gate = {
    .name = "mixer",
    .kind = EMBER_GATE,
    .size = sizeof(struct mixer),
    .options = options,
    .help = "a matrix over a channel mixer's output",
    .build = build,
    .forward = forward,
};
