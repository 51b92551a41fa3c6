// A mixture of experts in three parts: a router chooses, experts compute, a combiner joins.
// Shazeer et al. 2017, arXiv:1701.06538.
#include <ember/ops.h>

#include "base/alloc.h"
#include "nn/build.h"
#include "nn/moe/experts.h"
#include "nn/moe/token_gate.h"
#include "ops/program.h"

struct moe {
    ember_layer base; // param[0]: shared_gate [1, D]
    size_t experts;
    bool shared_gate;
    const ember_config *expert, *expert_list, *router, *combiner, *shared;
    ember_layer *route, *combine, *always; // always: the shared expert, or NULL
    struct em_experts routed;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct moe, experts, 8, 1, 4096, "how many, all as `expert` says"),
    EMBER_OPT_COMPONENT(struct moe, expert, EMBER_CHANNEL_MIXER, "{\"type\": \"swiglu\"}",
                        "any channel mixer"),
    EMBER_OPT_COMPONENTS(struct moe, expert_list, EMBER_CHANNEL_MIXER,
                         "experts that differ, one by one, instead of `experts` and `expert`"),
    EMBER_OPT_COMPONENT(struct moe, router, EMBER_ROUTER, "{\"type\": \"sigmoid_topk\"}",
                        "who gets which token"),
    EMBER_OPT_COMPONENT(struct moe, combiner, EMBER_COMBINER, "{\"type\": \"weighted_sum\"}",
                        "how a token's outputs become one"),
    EMBER_OPT_COMPONENT(struct moe, shared, EMBER_CHANNEL_MIXER, NULL,
                        "a shared expert: runs on every token, beside those that are routed to "
                        "(arXiv:2401.06066)"),
    EMBER_OPT_BOOL(struct moe, shared_gate, false,
                   "the shared expert's output times a sigmoid of the token"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct moe *m = (struct moe *)l;
    if (m->expert_list) {
        m->experts = ember_config_count(m->expert_list);
        if (!m->experts || m->experts > 4096)
            return ember_build_refuse(b, "expert_list", "has %zu members; it has to have 1 to 4096",
                                      m->experts);
    }
    const size_t outer = b->routed;
    b->routed = m->experts;
    EMBER_TRY(ember_child(b, "router", EMBER_ROUTER, m->router, &m->route));
    struct em_params *params = b->params;
    EMBER_TRY(
        em_grow(&params->moe, &params->moe_capacity, params->moe_count + 1, sizeof *params->moe));
    const size_t record = params->moe_count;
    params->moe[params->moe_count++] = (struct em_moe_record){l->path, m->experts, b->chosen};
    EMBER_TRY(ember_child(b, "combiner", EMBER_COMBINER, m->combiner, &m->combine));
    EMBER_TRY(em_experts_build(&m->routed, b, m->experts, m->expert, m->expert_list));
    b->routed = outer;
    b->chosen = params->moe[record].k;
    if (m->shared_gate && !m->shared)
        return ember_build_refuse(b, "shared_gate", "there is no shared expert");
    if (!m->shared) return EMBER_OK;
    EMBER_TRY(ember_child(b, "shared", EMBER_CHANNEL_MIXER, m->shared, &m->always));
    if (!m->shared_gate) return EMBER_OK;
    return ember_param(b, &l->param[0], "shared_gate.weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                       (size_t[]){1, ember_build_width(b)}, 2);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct moe *m = (const struct moe *)l;
    ember_routing routing = {.n_experts = m->experts};
    const ember_routing *kept;
    ember_tensor *rows;
    EMBER_TRY(ember_route(m->route, f, x, &routing));
    EMBER_TRY(em_flow_keep_routing(f, &routing, &kept));
    EMBER_TRY(em_experts_run(&m->routed, f, x, true, kept, &rows));
    ember_tensor *routed, *shared;
    EMBER_TRY(ember_combine(m->combine, f, x, rows, kept, &routed));
    *y = routed;
    if (!m->always) return EMBER_OK;
    EMBER_TRY(ember_forward(m->always, f, x, &shared));
    if (m->shared_gate) EMBER_TRY(em_token_gate(f, x, l->param[0], NULL, shared, &shared));
    return ember_add(f, routed, shared, y);
}

extern const ember_layer_type em_layer_moe;
const ember_layer_type em_layer_moe = {
    .name = "moe",
    .kind = EMBER_CHANNEL_MIXER,
    .size = sizeof(struct moe),
    .options = options,
    .help =
        "a mixture of experts: router, experts, combiner. Shazeer et al. 2017, arXiv:1701.06538",
    .build = build,
    .forward = forward,
};
