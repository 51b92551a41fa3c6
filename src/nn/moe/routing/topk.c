#include "nn/moe/routing/topk.h"

#include "nn/build.h"
#include "ops/route_topk.h"

enum { LATE, LIGHT }; // what capacity drops

ember_status em_gate_build(ember_layer *router, ember_build *build, const ember_config *config,
                           ember_init start, ember_layer **gate)
{
    if (config) return ember_child(build, "gate", EMBER_GATE, config, gate);
    return ember_param(build, &router->param[0], "weight", start, EMBER_ROLE_ROUTER,
                       (size_t[]){ember_build_experts(build), ember_build_width(build)}, 2);
}

ember_status em_gate_logits(const ember_layer *router, const ember_layer *gate, ember_flow *flow,
                            ember_tensor *x, ember_tensor **logits)
{
    return gate ? ember_forward(gate, flow, x, logits)
                : ember_linear_f32(flow, x, router->param[0], NULL, logits);
}

static ember_status check_groups(struct em_topk_router *r, const ember_build *build)
{
    const size_t E = ember_build_experts(build);
    if (!r->groups) return EMBER_OK;
    ember_build *b = (ember_build *)(uintptr_t)build;
    if (E % r->groups)
        return ember_build_refuse(b, "groups", "%zu experts do not make %zu equal groups", E,
                                  r->groups);
    if (r->keep_groups > r->groups)
        return ember_build_refuse(b, "keep_groups", "there are %zu groups", r->groups);
    const size_t most = r->k_steps && r->k_first > r->k ? r->k_first : r->k;
    if (E / r->groups * r->keep_groups < most)
        return ember_build_refuse(b, "keep_groups", "%zu groups have %zu experts, %zu are chosen",
                                  r->keep_groups, E / r->groups * r->keep_groups, most);
    const size_t share = r->k / r->keep_groups;
    if (!r->group_top) r->group_top = r->selection_bias && share ? share : 1;
    return EMBER_OK;
}

ember_status em_topk_build(struct em_topk_router *r, ember_build *build, bool weights_sum_to_one)
{
    const size_t E = ember_build_experts(build);
    if (r->k > E)
        return ember_build_refuse(build, "k", "%zu experts cannot be chosen among %zu", r->k, E);
    if (r->k == 1 && E > 1 && weights_sum_to_one && !r->accept_single)
        return ember_build_refuse(
            build, "k",
            "with 1 expert and renormalised weights the weight is always 1 and the router gets no "
            "gradient; "
            "take k >= 2, or weights that are not renormalised, or say \"accept_single\": true");
    if (r->k_steps && r->k_first > E)
        return ember_build_refuse(build, "k_first", "%zu experts cannot be chosen among %zu",
                                  r->k_first, E);
    if (r->k_steps && !r->k_first) r->k_first = E;
    if (r->k_first > EMBER_TOPK_MAX)
        return ember_build_refuse(build, "k_first", "a token can go to %d experts at most",
                                  EMBER_TOPK_MAX);
    if (r->capacity > 0 && r->drop == LIGHT && !build->allow_not_causal && !r->accept_future)
        return ember_build_refuse(
            build, "drop",
            "whether a token is dropped depends on the weights of later ones, which a causal model "
            "does not have when it generates; take \"late\", or say \"accept_future\": true");
    if (r->sequence_loss > 0) EMBER_TRY(ember_build_need_tokens(build));
    EMBER_TRY(check_groups(r, build));
    ember_build_chooses(build, r->k);
    if (r->k_steps && r->k_first > r->k) ember_build_may_choose(build, r->k_first);
    EMBER_TRY(em_gate_build(&r->base, build, r->gate, r->start, &r->gate_layer));
    if (!r->selection_bias) return EMBER_OK;
    return ember_param(build, &r->base.param[1], "bias", EMBER_INIT_BUFFER, EMBER_ROLE_ROUTER, &E,
                       1);
}

ember_status em_topk_logits(const struct em_topk_router *r, ember_flow *flow, ember_tensor *x,
                            ember_tensor **logits)
{
    if (r->jitter > 0) EMBER_TRY(ember_jitter(flow, x, r->jitter, &x));
    return em_gate_logits(&r->base, r->gate_layer, flow, x, logits);
}

static ember_status add_losses(const struct em_topk_router *r, ember_flow *flow,
                               ember_tensor *logits, ember_score score, ember_routing *routing)
{
    const struct {
        ember_router_loss_kind kind;
        float coefficient;
    } losses[] = {{EMBER_LOSS_SEQUENCE, r->sequence_loss},
                  {EMBER_LOSS_IMPORTANCE, r->importance_loss},
                  {EMBER_LOSS_INFORMATION, r->information_loss}};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++)
        if (losses[i].coefficient > 0)
            EMBER_TRY(ember_router_loss(flow, losses[i].kind, logits, score, losses[i].coefficient,
                                        routing, NULL));
    return EMBER_OK;
}

ember_status em_topk_choose(const struct em_topk_router *r, ember_flow *flow, ember_tensor *logits,
                            ember_tensor *choice, ember_score score, bool renormalise,
                            ember_routing *routing)
{
    const ember_topk_options options = {
        .k = r->k,
        .score = score,
        .renormalise = renormalise,
        .eps = r->eps,
        .scale = r->scale,
        .aux_coefficient = r->aux_loss,
        .z_coefficient = r->z_loss,
        .bias_rate = r->bias_rate,
        .top_p = r->top_p,
        .groups = (unsigned)r->groups,
        .keep_groups = (unsigned)r->keep_groups,
        .group_top = (unsigned)r->group_top,
        .k_first = (unsigned)r->k_first,
        .k_steps = (unsigned)r->k_steps,
    };
    struct em_router_record record;
    ember_tensor *dropped = NULL;
    EM_TRY(em_route_topk(flow, (ember_tensor *[EM_ROUTE_INPUTS]){logits, r->base.param[1], choice},
                         &options, routing, &record));
    EM_TRY(add_losses(r, flow, logits, score, routing));
    if (r->capacity > 0)
        EM_TRY(em_capacity(flow, r->capacity, r->drop == LIGHT, routing, &dropped));
    EM_TRY(ember_dispatch(flow, routing));
    record.layer = r->base.path;
    record.routing = *routing;
    record.dropped = dropped;
    return em_flow_router(flow, &record);
}

ember_status em_topk_route(const struct em_topk_router *r, ember_flow *flow, ember_tensor *x,
                           ember_score score, bool renormalise, ember_routing *routing)
{
    ember_tensor *logits;
    EMBER_TRY(em_topk_logits(r, flow, x, &logits));
    return em_topk_choose(r, flow, logits, NULL, score, renormalise, routing);
}
