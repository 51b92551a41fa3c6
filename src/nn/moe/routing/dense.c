// Dense routing: all experts run on all tokens, weighted by softmax or by a sigmoid each. Jacobs et
// al. 1991, "Adaptive Mixtures of Local Experts"; Jordan and Jacobs 1994.
#include "nn/moe/routing/topk.h"

enum { SOFTMAX, SIGMOID };

static const ember_option options[] = {
    EMBER_OPT_ENUM(struct em_topk_router, scores, SOFTMAX, "softmax|sigmoid",
                   "softmax over the experts, or each by itself"),
    EMBER_OPT_BOOL(struct em_topk_router, renormalise, false, "sigmoid: over their sum"),
    EM_ROUTER_GATE_OPTION(struct em_topk_router),
    EM_ROUTER_LOSS_OPTIONS(struct em_topk_router, 0),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_topk_router *r = (struct em_topk_router *)l;
    r->k = ember_build_experts(b);
    r->start = EMBER_INIT_NORMAL;
    if (r->k > EMBER_TOPK_MAX)
        return ember_build_refuse(b, "", "all of %zu experts cannot run; the most are %d", r->k,
                                  EMBER_TOPK_MAX);
    return em_topk_build(r, b, false);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct em_topk_router *r = (const struct em_topk_router *)l;
    return em_topk_route(r, f, x,
                         r->scores == SIGMOID ? EMBER_SCORE_SIGMOID : EMBER_SCORE_SOFTMAX_SELECTED,
                         r->scores == SIGMOID && r->renormalise, routing);
}

extern const ember_layer_type em_layer_dense;
const ember_layer_type em_layer_dense = {
    .name = "dense",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct em_topk_router),
    .options = options,
    .help = "every expert for every token, weighted by softmax or sigmoid. Jacobs et al. 1991",
    .build = build,
    .route = route,
};
