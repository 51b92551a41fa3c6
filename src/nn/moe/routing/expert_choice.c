// Expert choice: experts take their best tokens. Zhou et al. 2022, arXiv:2202.09368.
#include <ember/ops.h>

#include "nn/moe/routing/topk.h"

struct expert_choice {
    ember_layer base; // param[0]: weight
    float capacity;
    bool accept_future;
    const ember_config *gate;
    ember_layer *gate_layer;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(
        struct expert_choice, capacity, 2, 1e-3, 256,
        "experts of a token in the mean: each takes this many times its even share of a "
        "sequence's tokens"),
    EM_ROUTER_GATE_OPTION(struct expert_choice),
    EMBER_OPT_BOOL(struct expert_choice, accept_future, false,
                   "in a causal model, though generated tokens are then chosen otherwise"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct expert_choice *c = (struct expert_choice *)l;
    const size_t E = ember_build_experts(b), k = (size_t)(c->capacity + 0.5f);
    EMBER_TRY(ember_build_need_tokens(b));
    if (E > EMBER_TOPK_MAX)
        return ember_build_refuse(b, "", "a token may use all of %zu experts; the most are %d", E,
                                  EMBER_TOPK_MAX);
    if (E > 1 && c->capacity >= (float)E)
        return ember_build_refuse(b, "capacity",
                                  "%g: every one of %zu experts would take all tokens; take less, "
                                  "or the router dense",
                                  (double)c->capacity, E);
    ember_build_chooses(b, k < 1 ? 1 : k > E ? E : k);
    ember_build_may_choose(b, E);
    return em_gate_build(l, b, c->gate, EMBER_INIT_NORMAL, &c->gate_layer);
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    const struct expert_choice *c = (const struct expert_choice *)l;
    ember_tensor *logits;
    EMBER_TRY(em_gate_logits(l, c->gate_layer, f, x, &logits));
    return ember_route_expert_choice(f, logits, c->capacity, routing);
}

extern const ember_layer_type em_layer_expert_choice;
const ember_layer_type em_layer_expert_choice = {
    .name = "expert_choice",
    .kind = EMBER_ROUTER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct expert_choice),
    .options = options,
    .help = "experts choose their best tokens of each sequence, weighted by softmax. "
            "arXiv:2202.09368",
    .build = build,
    .route = route,
};
