// Top-k of sigmoid scores with a selection bias, weights from the unbiased scores: LFM2-MoE's and
// DeepSeek-V3's router (arXiv:2412.19437).
#include "nn/moe/routing/topk.h"

enum { SIGMOID, SQRT_SOFTPLUS };

static const ember_option options[] = {
    EM_TOPK_OPTIONS,
    EMBER_OPT_BOOL(struct em_topk_router, renormalise, true,
                   "divide the chosen weights by their sum + eps"),
    EMBER_OPT_ENUM(struct em_topk_router, scores, SIGMOID, "sigmoid|sqrt_softplus",
                   "what makes a score of an expert's own logit"),
    EMBER_OPT_FLOAT(struct em_topk_router, eps, 1e-6, 0, 1, "added to that sum"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_topk_router *r = (struct em_topk_router *)l;
    r->start = EMBER_INIT_NORMAL;
    return em_topk_build(r, b, r->renormalise);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct em_topk_router *r = (const struct em_topk_router *)l;
    return em_topk_route(r, f, x,
                         r->scores == SIGMOID ? EMBER_SCORE_SIGMOID : EMBER_SCORE_SQRT_SOFTPLUS,
                         r->renormalise, routing);
}

extern const ember_layer_type em_layer_sigmoid_topk;
const ember_layer_type em_layer_sigmoid_topk = {
    .name = "sigmoid_topk",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct em_topk_router),
    .options = options,
    .help =
        "the k largest sigmoid scores plus bias, weighted by the scores alone. arXiv:2412.19437",
    .build = build,
    .route = route,
};
