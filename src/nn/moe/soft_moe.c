// A soft mixture of experts: every expert gets slots that are means of a sequence's tokens, and
// every token a mean of all slots' outputs. Fully differentiable, always balanced, and not causal.
// Puigcerver et al. 2023, arXiv:2308.00951.
#include <math.h>

#include "nn/build.h"
#include "nn/moe/experts.h"
#include "ops/program.h"

struct soft_moe {
    ember_layer base; // param: phi [E * slots, D], log_scale [1]
    size_t experts, slots;
    const ember_config *expert, *expert_list;
    struct em_experts all;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct soft_moe, experts, 8, 1, 4096, "how many, all as `expert` says"),
    EMBER_OPT_SIZE(struct soft_moe, slots, 1, 1, 4096, "of each expert"),
    EMBER_OPT_COMPONENT(struct soft_moe, expert, EMBER_CHANNEL_MIXER, "{\"type\": \"swiglu\"}",
                        "any channel mixer"),
    EMBER_OPT_COMPONENTS(struct soft_moe, expert_list, EMBER_CHANNEL_MIXER,
                         "experts that differ, one by one, instead of `experts` and `expert`"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct soft_moe *m = (struct soft_moe *)l;
    if (m->expert_list) m->experts = ember_config_count(m->expert_list);
    if (!m->experts || m->experts > 4096)
        return ember_build_refuse(b, "expert_list", "has %zu members; it has to have 1 to 4096",
                                  m->experts);
    EMBER_TRY(ember_build_need_tokens(b));
    EMBER_TRY(ember_param(b, &l->param[0], "phi", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){m->experts * m->slots, ember_build_width(b)}, 2));
    EMBER_TRY(ember_param(b, &l->param[1], "log_scale", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER,
                          (size_t[]){1}, 1)); // a scale of 1
    return em_experts_build(&m->all, b, m->experts, m->expert, m->expert_list);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct soft_moe *m = (const struct soft_moe *)l;
    ember_routing routing = {.n_experts = m->experts};
    const ember_routing *kept;
    ember_tensor *logits, *slots, *rows;
    EMBER_TRY(ember_cosine_logits(f, x, l->param[0], l->param[1], INFINITY, &logits));
    EMBER_TRY(ember_soft_slots(f, x, logits, m->slots, &routing, &slots));
    EMBER_TRY(em_flow_keep_routing(f, &routing, &kept));
    EMBER_TRY(em_experts_run(&m->all, f, slots, false, kept, &rows));
    return ember_soft_sum(f, rows, logits, m->slots, kept, y);
}

extern const ember_layer_type em_layer_soft_moe;
const ember_layer_type em_layer_soft_moe = {
    .name = "soft_moe",
    .kind = EMBER_CHANNEL_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct soft_moe),
    .options = options,
    .help = "a soft mixture of experts: slots are means of a sequence's tokens. arXiv:2308.00951",
    .build = build,
    .forward = forward,
};
