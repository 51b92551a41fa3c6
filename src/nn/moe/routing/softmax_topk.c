// Top-k with softmax weights: Mixtral's (softmax over the chosen) and OLMoE's or Switch's (over all
// experts). Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961.
#include "nn/moe/routing/topk.h"

enum { SELECTED, ALL };

static const ember_option options[] = {
    EM_TOPK_OPTIONS,
    EMBER_OPT_ENUM(struct em_topk_router, scores, SELECTED, "selected|all",
                   "softmax over the chosen experts' logits, or over all"),
    EMBER_OPT_BOOL(struct em_topk_router, renormalise, false,
                   "all: divide the chosen weights by their sum"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_topk_router *r = (struct em_topk_router *)l;
    r->start = EMBER_INIT_NORMAL;
    return em_topk_build(r, b, r->scores == SELECTED || r->renormalise);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct em_topk_router *r = (const struct em_topk_router *)l;
    const bool selected = r->scores == SELECTED;
    return em_topk_route(r, f, x, selected ? EMBER_SCORE_SOFTMAX_SELECTED : EMBER_SCORE_SOFTMAX_ALL,
                         !selected && r->renormalise, routing);
}

extern const ember_layer_type em_layer_softmax_topk;
const ember_layer_type em_layer_softmax_topk = {
    .name = "softmax_topk",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct em_topk_router),
    .options = options,
    .help = "the k largest logits, weighted by softmax. Shazeer et al. 2017, arXiv:1701.06538",
    .build = build,
    .route = route,
};
