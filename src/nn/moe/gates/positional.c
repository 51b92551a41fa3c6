// Logits of x and of features of its position: experts may differ through positional encoding.
#include <ember/ops.h>

struct positional {
    ember_layer base; // param: weight [E, D], position [E, F]
    size_t features;
    float longest;
    bool position_only;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct positional, features, 16, 2, 4096, "sines and cosines; an even number"),
    EMBER_OPT_FLOAT(struct positional, longest, 10000, 1, 1e9,
                    "the longest wave is 2 pi times this many tokens"),
    EMBER_OPT_BOOL(struct positional, position_only, false, "the position alone, without x"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct positional *p = (const struct positional *)l;
    const size_t E = ember_build_experts(b);
    EMBER_TRY(ember_build_need_tokens(b));
    if (p->features % 2) return ember_build_refuse(b, "features", "has to be even");
    if (!p->position_only)
        EMBER_TRY(ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                              (size_t[]){E, ember_build_width(b)}, 2));
    return ember_param(b, &l->param[1], "position", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                       (size_t[]){E, p->features}, 2);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct positional *p = (const struct positional *)l;
    ember_tensor *features, *of_position, *of_x;
    EMBER_TRY(ember_position_features(f, p->features, p->longest, &features));
    EMBER_TRY(ember_linear_f32(f, features, l->param[1], NULL, &of_position));
    if (p->position_only) {
        *y = of_position;
        return EMBER_OK;
    }
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &of_x));
    return ember_add(f, of_x, of_position, y);
}

extern const ember_layer_type em_layer_positional;
const ember_layer_type em_layer_positional = {
    .name = "positional",
    .kind = EMBER_GATE,
    .size = sizeof(struct positional),
    .options = options,
    .help = "x W^T plus a matrix of sines and cosines of the position. arXiv:1706.03762",
    .build = build,
    .forward = forward,
};
