// Routers by activity: as many experts as have a score above a threshold. `relu` makes its scores
// sparse by a loss (Wang et al. 2024, arXiv:2412.14711); `threshold` learns where each expert's
// threshold has to be for k experts in the mean, so it needs no loss for balance.
#include <ember/ops.h>

#include "nn/moe/routing/topk.h"

struct active {
    ember_layer base; // param[0]: weight; [1]: threshold [E]; [2]: sparsity [1]
    size_t k;
    int scores;
    bool renormalise;
    float scale, rate;
    const ember_config *gate;
    ember_layer *gate_layer;
};

enum { THRESHOLD = 1, SPARSITY = 2 };
enum { SIGMOID, SOFTMAX };

#define COMMON_OPTIONS                                                                             \
    EMBER_OPT_SIZE(struct active, k, 2, 1, 256,                                                    \
                   "experts of a token in the mean: what is aimed at"),                            \
        EMBER_OPT_FLOAT(struct active, scale, 1, 1e-6, 1000, "multiplies the weights"),            \
        EM_ROUTER_GATE_OPTION(struct active)

static ember_status build(struct active *a, ember_build *b)
{
    const size_t E = ember_build_experts(b);
    if (a->k > E) return ember_build_refuse(b, "k", "%zu experts cannot be used of %zu", a->k, E);
    if (E > EMBER_TOPK_MAX)
        return ember_build_refuse(b, "", "a token may use all of %zu experts; the most are %d", E,
                                  EMBER_TOPK_MAX);
    ember_build_chooses(b, a->k);
    ember_build_may_choose(b, E);
    return em_gate_build(&a->base, b, a->gate, EMBER_INIT_NORMAL, &a->gate_layer);
}

static ember_status route(const struct active *a, ember_flow *f, ember_tensor *x,
                          ember_activity kind, ember_routing *routing)
{
    ember_tensor *logits;
    EMBER_TRY(em_gate_logits(&a->base, a->gate_layer, f, x, &logits));
    return ember_route_active(f, logits, a->base.param[THRESHOLD], a->base.param[SPARSITY],
                              &(ember_activity_options){.k = a->k,
                                                        .kind = kind,
                                                        .renormalise = a->renormalise,
                                                        .scale = a->scale,
                                                        .threshold_rate = a->rate},
                              routing);
}

// ---- relu ----

static const ember_option relu_options[] = {COMMON_OPTIONS, {0}};

static void start_sparsity(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context, (void)random;
    ((float *)param->data)[0] = 1e-8f;
}

static ember_status build_relu(ember_layer *l, ember_build *b)
{
    EMBER_TRY(build((struct active *)l, b));
    EMBER_TRY(ember_param(b, &l->param[SPARSITY], "sparsity", EMBER_INIT_BUFFER, EMBER_ROLE_ROUTER,
                          (size_t[]){1}, 1));
    ember_param_fill(b, l->param[SPARSITY], &(ember_filling){.fill = start_sparsity});
    return EMBER_OK;
}

static ember_status route_relu(const ember_layer *l, ember_flow *f, ember_tensor *x,
                               ember_routing *routing)
{
    return route((const struct active *)l, f, x, EMBER_ACTIVITY_RELU, routing);
}

extern const ember_layer_type em_layer_relu_router;
const ember_layer_type em_layer_relu_router = {
    .name = "relu",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct active),
    .options = relu_options,
    .help = "every expert whose logit is positive, weighted by it; a loss that adapts keeps k of "
            "them in the mean. arXiv:2412.14711",
    .build = build_relu,
    .route = route_relu,
};

// ---- threshold ----

static const ember_option threshold_options[] = {
    COMMON_OPTIONS,
    EMBER_OPT_ENUM(struct active, scores, SIGMOID, "sigmoid|softmax", "what thresholds apply to"),
    EMBER_OPT_BOOL(struct active, renormalise, false, "divide the weights by their sum"),
    EMBER_OPT_FLOAT(struct active, rate, 0.1, 0, 1,
                    "of the moving mean that thresholds follow; 0: they stay as they are"),
    {0},
};

static ember_status build_threshold(ember_layer *l, ember_build *b)
{
    const size_t E = ember_build_experts(b);
    EMBER_TRY(build((struct active *)l, b));
    return ember_param(b, &l->param[THRESHOLD], "threshold", EMBER_INIT_BUFFER, EMBER_ROLE_ROUTER,
                       &E, 1);
}

static ember_status route_threshold(const ember_layer *l, ember_flow *f, ember_tensor *x,
                                    ember_routing *routing)
{
    const struct active *a = (const struct active *)l;
    return route(a, f, x, a->scores == SIGMOID ? EMBER_ACTIVITY_SIGMOID : EMBER_ACTIVITY_SOFTMAX,
                 routing);
}

extern const ember_layer_type em_layer_threshold;
const ember_layer_type em_layer_threshold = {
    .name = "threshold",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct active),
    .options = threshold_options,
    .help = "every expert whose score is above a threshold of its own, which follows the load",
    .build = build_threshold,
    .route = route_threshold,
};
