#include "nn/moe/routing/topk.h"

ember_status em_topk_build(struct em_topk_router *r, ember_build *build, bool weights_sum_to_one)
{
    const size_t E = ember_build_experts(build), D = ember_build_width(build);
    if (r->k > E)
        return ember_build_refuse(build, "k", "%zu experts cannot be chosen among %zu", r->k, E);
    if (r->k == 1 && E > 1 && weights_sum_to_one && !r->accept_single)
        return ember_build_refuse(
            build, "k",
            "with 1 expert and renormalised weights the weight is always 1 and the router gets no "
            "gradient; "
            "take k >= 2, or weights that are not renormalised, or say \"accept_single\": true");
    ember_build_chooses(build, r->k);
    EMBER_TRY(ember_param(build, &r->base.param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){E, D}, 2));
    if (!r->selection_bias) return EMBER_OK;
    return ember_param(build, &r->base.param[1], "bias", EMBER_INIT_BUFFER, EMBER_ROLE_ROUTER, &E,
                       1);
}

ember_status em_topk_route(const struct em_topk_router *r, ember_flow *flow, ember_tensor *x,
                           ember_score score, bool renormalise, ember_routing *routing)
{
    ember_tensor *logits;
    const ember_topk_options options = {
        .k = r->k,
        .score = score,
        .renormalise = renormalise,
        .eps = r->eps,
        .scale = r->scale,
        .aux_coefficient = r->aux_loss,
        .z_coefficient = r->z_loss,
        .bias_rate = r->bias_rate,
    };
    EMBER_TRY(ember_linear_f32(flow, x, r->base.param[0], NULL, &logits));
    return ember_route_topk(flow, logits, r->base.param[1], &options, routing);
}
