// A router that compares directions: tokens are projected to a few dimensions, and go to the
// experts whose embeddings they point to, whatever their length; so no expert wins by growing. Chi
// et al. 2022, "On the Representation Collapse of Sparse Mixture of Experts", arXiv:2204.09179.
#include <ember/ops.h>

#include "example.h"

struct cosine_topk {
    ember_layer
        base; // param: projection [R, D], embeddings of the experts [E, R], log of a scale [1]
    size_t k, dimension;
    float temperature, aux_loss, z_loss;
    bool renormalise;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct cosine_topk, k, 2, 1, EMBER_TOPK_MAX, "experts a token goes to"),
    EMBER_OPT_SIZE(struct cosine_topk, dimension, 0, 0, 1 << 12,
                   "that tokens and experts are compared in; 0: half the experts, at least 4"),
    EMBER_OPT_FLOAT(struct cosine_topk, temperature, 0.07, 0.01, 10,
                    "cosines are divided by it, and by what is learned on top"),
    EMBER_OPT_BOOL(struct cosine_topk, renormalise, false,
                   "divide the chosen weights by their sum"),
    EMBER_OPT_FLOAT(struct cosine_topk, aux_loss, 0, 0, 100,
                    "coefficient of the balance loss (arXiv:2101.03961)"),
    EMBER_OPT_FLOAT(struct cosine_topk, z_loss, 0, 0, 100,
                    "coefficient of the mean squared logsumexp (arXiv:2202.08906)"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct cosine_topk *r = (const struct cosine_topk *)l;
    const size_t E = ember_build_experts(b), D = ember_build_width(b);
    const size_t R = r->dimension ? r->dimension : E < 8 ? 4 : E / 2;
    if (r->k > E)
        return ember_build_refuse(b, "k", "%zu experts cannot be chosen among %zu", r->k, E);
    if (r->k == 1 && E > 1 && r->renormalise)
        return ember_build_refuse(b, "renormalise",
                                  "one expert's weight divided by itself is always 1, and the "
                                  "router would not learn");
    ember_build_chooses(b, r->k);
    EMBER_TRY(ember_param(b, &l->param[0], "projection.weight", EMBER_INIT_NORMAL,
                          EMBER_ROLE_ROUTER, (size_t[]){R, D}, 2));
    EMBER_TRY(ember_param(b, &l->param[1], "experts.weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){E, R}, 2));
    return ember_param(b, &l->param[2], "log_scale", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER,
                       (size_t[]){1}, 1);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct cosine_topk *r = (const struct cosine_topk *)l;
    const ember_topk_options topk = {
        .k = r->k,
        .score = EMBER_SCORE_SOFTMAX_ALL,
        .renormalise = r->renormalise,
        .aux_coefficient = r->aux_loss,
        .z_coefficient = r->z_loss,
    };
    ember_tensor *narrow, *logits;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &narrow));
    EMBER_TRY(example_cosine_scores(f, narrow, l->param[1], l->param[2], r->temperature, &logits));
    return ember_route_topk(f, logits, NULL, &topk, routing);
}

extern const ember_layer_type example_cosine_topk;
const ember_layer_type example_cosine_topk = {
    .name = "cosine_topk",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct cosine_topk),
    .options = options,
    .help = "the k experts whose directions are nearest. Chi et al. 2022, arXiv:2204.09179",
    .build = build,
    .route = route,
};
