// Two levels: P(group) P(expert | group), as logits. With a router of `groups` groups that keeps
// some of them, tokens go down the best branches only. Jordan and Jacobs 1994.
#include <ember/ops.h>

struct hierarchical {
    ember_layer base; // param: outer [G, D], inner [E, D]
    size_t groups;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct hierarchical, groups, 2, 1, 4096, "equal groups of neighbouring experts"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t E = ember_build_experts(b), G = ((struct hierarchical *)l)->groups;
    if (E % G)
        return ember_build_refuse(b, "groups", "%zu experts do not make %zu equal groups", E, G);
    EMBER_TRY(ember_param(b, &l->param[0], "outer", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){G, ember_build_width(b)}, 2));
    return ember_param(b, &l->param[1], "inner", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                       (size_t[]){E, ember_build_width(b)}, 2);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *outer, *inner;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &outer));
    EMBER_TRY(ember_linear_f32(f, x, l->param[1], NULL, &inner));
    return ember_hierarchical_logits(f, outer, inner, y);
}

extern const ember_layer_type em_layer_hierarchical;
const ember_layer_type em_layer_hierarchical = {
    .name = "hierarchical",
    .kind = EMBER_GATE,
    .size = sizeof(struct hierarchical),
    .options = options,
    .help = "log P(group) + log P(expert | group), two softmaxes. Jordan and Jacobs 1994",
    .build = build,
    .forward = forward,
};
