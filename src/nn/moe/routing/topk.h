// What the top-k routers share: the projection to logits and the options of balancing.
#ifndef EM_NN_MOE_ROUTING_TOPK_H
#define EM_NN_MOE_ROUTING_TOPK_H

#include <ember/ops.h>

struct em_topk_router {
    ember_layer base; // param[0]: weight [E, D]; param[1]: selection bias [E]
    size_t k;
    bool renormalise, selection_bias, accept_single;
    int scores; // softmax: over the selected, or over all
    float eps, scale, aux_loss, z_loss, bias_rate;
};

#define EM_TOPK_OPTIONS                                                                            \
    EMBER_OPT_SIZE(struct em_topk_router, k, 2, 1, 256, "experts a token goes to"),                \
        EMBER_OPT_FLOAT(struct em_topk_router, scale, 1, 1e-6, 1000, "multiplies the weights"),    \
        EMBER_OPT_FLOAT(struct em_topk_router, aux_loss, 0, 0, 100,                                \
                        "coefficient of the balance loss E sum f P over the whole batch, f "       \
                        "divided by k: 1 when balanced "                                           \
                        "(arXiv:2101.03961)"),                                                     \
        EMBER_OPT_FLOAT(struct em_topk_router, z_loss, 0, 0, 100,                                  \
                        "coefficient of the mean squared logsumexp (arXiv:2202.08906)"),           \
        EMBER_OPT_BOOL(struct em_topk_router, selection_bias, false,                               \
                       "a bias per expert that only the choice sees"),                             \
        EMBER_OPT_FLOAT(struct em_topk_router, bias_rate, 0, 0, 1,                                 \
                        "step of its update without loss (arXiv:2408.15664); 0: as it is"),        \
        EMBER_OPT_BOOL(struct em_topk_router, accept_single, false,                                \
                       "k = 1 with weights that are always 1: its router never learns")

// Checks k against the experts, and refuses a router that no gradient could reach; declares the
// parameters.
ember_status em_topk_build(struct em_topk_router *router, ember_build *build,
                           bool weights_sum_to_one) EMBER_CHECKED;
ember_status em_topk_route(const struct em_topk_router *router, ember_flow *flow, ember_tensor *x,
                           ember_score score, bool renormalise,
                           ember_routing *routing) EMBER_CHECKED;

#endif
