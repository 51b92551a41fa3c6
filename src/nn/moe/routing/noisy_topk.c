// Top-k of logits with learnt noise, softmax over the chosen, and a loss that evens out the load.
// Both matrices start at zero, so that the noise alone chooses at first. Shazeer et al. 2017,
// arXiv:1701.06538.
#include "nn/moe/routing/topk.h"

struct noisy {
    struct em_topk_router topk; // base.param[2]: noise [E, D]
    float load_loss;
};

static const ember_option options[] = {
    EM_TOPK_OPTIONS,
    EMBER_OPT_FLOAT(struct noisy, load_loss, 0.01, 0, 100,
                    "coefficient of the squared variation of the experts' smooth loads"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct noisy *n = (struct noisy *)l;
    n->topk.start = EMBER_INIT_ZEROS;
    EMBER_TRY(em_topk_build(&n->topk, b, true));
    return ember_param(b, &l->param[2], "noise", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER,
                       (size_t[]){ember_build_experts(b), ember_build_width(b)}, 2);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct noisy *n = (const struct noisy *)l;
    ember_tensor *h, *s;
    EMBER_TRY(em_topk_logits(&n->topk, f, x, &h));
    EMBER_TRY(ember_linear_f32(f, x, l->param[2], NULL, &s));
    EMBER_TRY(ember_noisy_logits(f, h, s, n->topk.k, n->load_loss, &h, NULL));
    return em_topk_choose(&n->topk, f, h, NULL, EMBER_SCORE_SOFTMAX_SELECTED, false, routing);
}

extern const ember_layer_type em_layer_noisy_topk;
const ember_layer_type em_layer_noisy_topk = {
    .name = "noisy_topk",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct noisy),
    .options = options,
    .help = "the k largest logits with learnt noise, weighted by softmax. arXiv:1701.06538",
    .build = build,
    .route = route,
};
