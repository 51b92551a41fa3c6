// Switch: one expert a token, weighted by its share of the softmax over all. Fedus et al. 2021,
// arXiv:2101.03961.
#include "nn/moe/routing/topk.h"

static const ember_option options[] = {
    EM_ROUTER_GATE_OPTION(struct em_topk_router),
    EM_ROUTER_LOSS_OPTIONS(struct em_topk_router, 0.01),
    EM_ROUTER_TRAFFIC_OPTIONS(struct em_topk_router, 0.01),
    EMBER_OPT_FLOAT(struct em_topk_router, scale, 1, 1e-6, 1000, "multiplies the weights"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_topk_router *r = (struct em_topk_router *)l;
    r->k = 1;
    r->start = EMBER_INIT_NORMAL;
    return em_topk_build(r, b, false);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    return em_topk_route((const struct em_topk_router *)l, f, x, EMBER_SCORE_SOFTMAX_ALL, false,
                         routing);
}

extern const ember_layer_type em_layer_switch;
const ember_layer_type em_layer_switch = {
    .name = "switch",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct em_topk_router),
    .options = options,
    .help = "the expert of the largest softmax score, weighted by it. arXiv:2101.03961",
    .build = build,
    .route = route,
};
