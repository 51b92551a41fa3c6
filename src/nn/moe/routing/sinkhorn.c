// In training experts are chosen by a balanced assignment (Sinkhorn's iteration over the batch),
// afterwards by the logits; weights are a sigmoid (k = 1) or the softmax over the chosen. Lewis et
// al. 2021, arXiv:2103.16716; Clark et al. 2022, arXiv:2202.01169.
#include "nn/build.h"
#include "nn/moe/routing/topk.h"

struct sinkhorn {
    struct em_topk_router topk;
    float tolerance;
    size_t iterations;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct em_topk_router, k, 1, 1, 256, "experts a token goes to"),
    EM_ROUTER_GATE_OPTION(struct em_topk_router),
    EMBER_OPT_FLOAT(struct em_topk_router, z_loss, 0, 0, 100,
                    "coefficient of the mean squared logsumexp (arXiv:2202.08906)"),
    EMBER_OPT_FLOAT(struct sinkhorn, tolerance, 1e-4, 1e-9, 1, "change at which iterations stop"),
    EMBER_OPT_SIZE(struct sinkhorn, iterations, 100, 1, 10000, "the most of them"),
    EMBER_OPT_BOOL(struct em_topk_router, accept_future, false,
                   "in a causal model: training chooses by later tokens and other sequences too"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_topk_router *r = (struct em_topk_router *)l;
    if (!b->allow_not_causal && !r->accept_future)
        return ember_build_refuse(
            b, "",
            "in training sinkhorn balances a token's choice against those of later ones, which a "
            "causal model does not have when it generates; take another router, or say "
            "\"accept_future\": true");
    r->scale = 1;
    r->start = EMBER_INIT_NORMAL;
    return em_topk_build(r, b, r->k > 1);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct sinkhorn *s = (const struct sinkhorn *)l;
    ember_tensor *logits, *choice;
    EMBER_TRY(em_topk_logits(&s->topk, f, x, &logits));
    EMBER_TRY(ember_sinkhorn(f, logits, s->tolerance, s->iterations, &choice));
    return em_topk_choose(&s->topk, f, logits, choice,
                          s->topk.k == 1 ? EMBER_SCORE_SIGMOID : EMBER_SCORE_SOFTMAX_SELECTED,
                          false, routing);
}

extern const ember_layer_type em_layer_sinkhorn;
const ember_layer_type em_layer_sinkhorn = {
    .name = "sinkhorn",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct sinkhorn),
    .options = options,
    .help = "in training a balanced assignment of the batch to experts. arXiv:2202.01169",
    .build = build,
    .route = route,
};
