// What the top-k routers share: where logits come from, the options of choosing and of balancing,
// and the order in which a token's choice is made: jitter, gate, noise or assignment, choice,
// losses, capacity, dispatch.
#ifndef EM_NN_MOE_ROUTING_TOPK_H
#define EM_NN_MOE_ROUTING_TOPK_H

#include <ember/ops.h>

struct em_topk_router {
    ember_layer base; // param[0]: weight [E, D]; param[1]: selection bias [E]; from 2: the router's
    size_t k, groups, keep_groups, group_top, k_first, k_steps;
    bool renormalise, selection_bias, accept_single, accept_future;
    int scores, drop; // scores: of softmax_topk alone
    float eps, scale, aux_loss, sequence_loss, importance_loss, information_loss, z_loss, bias_rate;
    float jitter, capacity, top_p;
    const ember_config *gate;
    ember_layer *gate_layer; // instead of the weight
    ember_init start;        // of the weight
};

#define EM_ROUTER_GATE_OPTION(type)                                                                \
    EMBER_OPT_COMPONENT(type, gate, EMBER_GATE, NULL, "what makes the logits; absent: one matrix")
#define EM_ROUTER_LOSS_OPTIONS(type, aux)                                                          \
    EMBER_OPT_FLOAT(type, aux_loss, aux, 0, 100,                                                   \
                    "coefficient of the balance loss E sum f P over the whole batch, f "           \
                    "divided by k: 1 when balanced "                                               \
                    "(arXiv:2101.03961)"),                                                         \
        EMBER_OPT_FLOAT(type, sequence_loss, 0, 0, 100,                                            \
                        "coefficient of the same for each sequence by itself: at more than a "     \
                        "trace, experts stop to differ by domain"),                                \
        EMBER_OPT_FLOAT(type, importance_loss, 0, 0, 100,                                          \
                        "coefficient of the squared variation of the summed weights "              \
                        "(arXiv:1701.06538)"),                                                     \
        EMBER_OPT_FLOAT(type, information_loss, 0, 0, 100,                                         \
                        "coefficient of the tokens' mean entropy minus the batch's "               \
                        "(arXiv:2306.04640)"),                                                     \
        EMBER_OPT_FLOAT(type, z_loss, 0, 0, 100,                                                   \
                        "coefficient of the mean squared logsumexp (arXiv:2202.08906)")
#define EM_ROUTER_TRAFFIC_OPTIONS(type, noise)                                                     \
    EMBER_OPT_FLOAT(type, jitter, noise, 0, 0.5,                                                   \
                    "in training, the router's input times uniform noise in 1 +- this"),           \
        EMBER_OPT_FLOAT(type, capacity, 0, 0, 1000,                                                \
                        "in training an expert takes at most this many times its even share, "     \
                        "others are dropped; 0: nothing is"),                                      \
        EMBER_OPT_ENUM(type, drop, 0, "late|light",                                                \
                       "what is dropped: later tokens, or those of less weight (which looks at "   \
                       "later ones)"),                                                             \
        EMBER_OPT_BOOL(type, accept_future, false,                                                 \
                       "a router that looks at later tokens in training, in a causal model")
#define EM_TOPK_OPTIONS                                                                            \
    EMBER_OPT_SIZE(struct em_topk_router, k, 2, 1, 256, "experts a token goes to"),                \
        EMBER_OPT_FLOAT(struct em_topk_router, scale, 1, 1e-6, 1000, "multiplies the weights"),    \
        EM_ROUTER_GATE_OPTION(struct em_topk_router),                                              \
        EM_ROUTER_LOSS_OPTIONS(struct em_topk_router, 0),                                          \
        EM_ROUTER_TRAFFIC_OPTIONS(struct em_topk_router, 0),                                       \
        EMBER_OPT_FLOAT(struct em_topk_router, top_p, 0, 0, 1,                                     \
                        "only as many of the k as make this share of the scores; 0: all k"),       \
        EMBER_OPT_SIZE(struct em_topk_router, groups, 0, 0, 256,                                   \
                       "equal groups of experts, for keep_groups (arXiv:2412.19437); 0: none"),    \
        EMBER_OPT_SIZE(struct em_topk_router, keep_groups, 1, 1, 256,                              \
                       "groups that a token's experts come from"),                                 \
        EMBER_OPT_SIZE(struct em_topk_router, group_top, 0, 0, 256,                                \
                       "a group is as good as its so many best experts together; 0: k over "       \
                       "keep_groups with a selection bias, else 1"),                               \
        EMBER_OPT_SIZE(struct em_topk_router, k_first, 0, 0, 256,                                  \
                       "k at the first step of training; 0: all experts"),                                         \
        EMBER_OPT_SIZE(struct em_topk_router, k_steps, 0, 0, 1 << 30,                              \
                       "steps from k_first to k; 0: k from the start"),                            \
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

// The parts, for routers that put something between them. The logits of x; their choice, by
// `choice` [T, E] where it is not NULL.
ember_status em_topk_logits(const struct em_topk_router *router, ember_flow *flow, ember_tensor *x,
                            ember_tensor **logits) EMBER_CHECKED;
ember_status em_topk_choose(const struct em_topk_router *router, ember_flow *flow,
                            ember_tensor *logits, ember_tensor *choice, ember_score score,
                            bool renormalise, ember_routing *routing) EMBER_CHECKED;

// A router's own matrix [E, D], or the gate that its config names.
ember_status em_gate_build(ember_layer *router, ember_build *build, const ember_config *config,
                           ember_init start, ember_layer **gate) EMBER_CHECKED;
ember_status em_gate_logits(const ember_layer *router, const ember_layer *gate, ember_flow *flow,
                            ember_tensor *x, ember_tensor **logits) EMBER_CHECKED;

#endif
