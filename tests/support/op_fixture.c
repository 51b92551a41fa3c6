#include "support/op_fixture.h"

#include <string.h>

#include "base/rng.h"
#include "ops/moe_plan.h"

struct plan_attr {
    const size_t *present;
};

static ember_status plan_shape(struct em_call *c)
{
    return em_out(c, 0, EMBER_I32, (size_t[]){em_plan_size(1, 1)}, 1);
}

static void plan_forward(const struct em_call *c)
{
    em_plan_offset(c->out[0])[0] = 0;
    em_plan_offset(c->out[0])[1] = (int32_t)*em_attr_const(c, struct plan_attr)->present;
}

static void no_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    (void)c;
    *forward = *backward = (struct em_cost){0, 0};
}

static const struct em_op op_plan = {
    .name = "test plan",
    .shape = plan_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {plan_forward, NULL}, [EM_REFERENCE] = {plan_forward, NULL}},
};

// The first rows of a parameter [max rows, ..]: as many as there are tokens, or as in[1], a plan,
// says.
static ember_status source_shape(struct em_call *c)
{
    const ember_tensor *p = c->in[0];
    if (c->in[1]) return em_out_expert(c, 0, EMBER_F32, p, c->in[1], 0, p->dim + 1, p->ndim - 1);
    return em_out_tokens(c, 0, EMBER_F32, p->dim + 1, p->ndim - 1);
}

static void source_forward(const struct em_call *c)
{
    memcpy(c->out[0]->data, c->in[0]->data, em_tensor_bytes(c->out[0]));
}

static void source_backward(const struct em_call *c)
{
    for (size_t i = 0; em_wants(c, 0) && i < ember_tensor_count(c->out[0]); i++)
        em_f32(c->in[0]->grad)[i] += em_f32(c->out[0]->grad)[i];
}

static const struct em_op op_source = {
    .name = "test source",
    .shape = source_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {source_forward, source_backward},
                [EM_REFERENCE] = {source_forward, source_backward}},
};

// Choices of experts, as a router would make them: `used` experts of them, the last ones never.
struct choose_attr {
    size_t used, k;
    bool drop; // some of them go nowhere
};

static ember_status choose_shape(struct em_call *c)
{
    return em_out_rows(c, 0, EMBER_I32, c->in[0], 1, &em_attr(c, struct choose_attr)->k, 1);
}

static void choose_forward(const struct em_call *c)
{
    const struct choose_attr *a = em_attr_const(c, struct choose_attr);
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t n = 0; n < a->k; n++) {
            int32_t *chosen = em_i32(c->out[0]) + t * a->k;
            // The n-th of those that are left, whatever was chosen before.
            size_t e = em_hash64(t, n, 5) % (a->used - n);
            for (size_t before = 0; before < n; before++)
                for (size_t m = 0; m < n; m++)
                    if ((size_t)chosen[m] == e) e = (e + 1) % a->used;
            chosen[n] = (int32_t)e;
        }
    for (size_t i = 0; a->drop && i < ember_tensor_count(c->out[0]); i++)
        if (em_hash64(i, 3, 9) % 3 == 0) em_i32(c->out[0])[i] = -1;
}

static const struct em_op op_choose = {
    .name = "test choices",
    .shape = choose_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {choose_forward, NULL}, [EM_REFERENCE] = {choose_forward, NULL}},
};

// x [T, K M] as [T K, M].
struct spread_attr {
    size_t k;
};

static ember_status spread_shape(struct em_call *c)
{
    const size_t k = em_attr(c, struct spread_attr)->k;
    return em_out_rows(c, 0, EMBER_F32, c->in[0], k, &(size_t){c->in[0]->dim[1] / k}, 1);
}

static void spread_forward(const struct em_call *c)
{
    memcpy(c->out[0]->data, c->in[0]->data, em_tensor_bytes(c->out[0]));
}

static const struct em_op op_spread = {
    .name = "test spread",
    .shape = spread_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {spread_forward, source_backward},
                [EM_REFERENCE] = {spread_forward, source_backward}},
};

// A linear function of all outputs with random weights; the sum in double is kept beside the
// output.
struct weigh_attr {
    double *sum;
};

static double weight(unsigned output, size_t element)
{
    return (double)(int32_t)(em_hash64(77, output, element) >> 32) * 0x1p-31;
}

static ember_status weigh_shape(struct em_call *c)
{
    return em_out(c, 0, EMBER_F32, (size_t[]){1}, 1);
}

static void weigh_forward(const struct em_call *c)
{
    double sum = 0;
    for (unsigned k = 0; k < c->n_in; k++)
        for (size_t i = 0; c->in[k] && i < ember_tensor_count(c->in[k]); i++)
            sum += weight(k, i) * (double)em_f32(c->in[k])[i];
    *em_attr_const(c, struct weigh_attr)->sum = sum;
    em_f32(c->out[0])[0] = (float)sum;
}

static void weigh_backward(const struct em_call *c)
{
    for (unsigned k = 0; k < c->n_in; k++)
        for (size_t i = 0; em_wants(c, k) && i < ember_tensor_count(c->in[k]); i++)
            em_f32(c->in[k]->grad)[i] += (float)weight(k, i) * em_f32(c->out[0]->grad)[0];
}

static const struct em_op op_weigh = {
    .name = "test weigh",
    .shape = weigh_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {weigh_forward, weigh_backward},
                [EM_REFERENCE] = {weigh_forward, weigh_backward}},
};

ember_status fixture_plan(ember_flow *flow, const size_t *present, ember_tensor **plan)
{
    struct em_call *c = em_call_new(flow, &op_plan, 0);
    if (!c) return EMBER_E_NOMEM;
    em_attr(c, struct plan_attr)->present = present;
    EM_TRY(em_record(flow, c));
    *plan = c->out[0];
    return EMBER_OK;
}

ember_status fixture_source(ember_flow *flow, ember_tensor *parameter, ember_tensor *plan,
                            ember_tensor **x)
{
    struct em_call *c = em_call_new(flow, &op_source, 2);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = parameter;
    c->in[1] = plan;
    EM_TRY(em_record(flow, c));
    *x = c->out[0];
    return EMBER_OK;
}

static ember_status choose_experts(ember_flow *flow, ember_tensor *like, size_t n_experts,
                                   const struct choose_attr *choose, ember_tensor *weights,
                                   ember_routing *routing)
{
    struct em_call *c = em_call_new(flow, &op_choose, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = like;
    *em_attr(c, struct choose_attr) = *choose;
    EM_TRY(em_record(flow, c));
    *routing = (ember_routing){
        .n_experts = n_experts, .k = choose->k, .weights = weights, .indices = c->out[0]};
    return ember_dispatch(flow, routing);
}

ember_status fixture_routing(ember_flow *flow, ember_tensor *like, size_t n_experts, size_t used,
                             size_t k, ember_tensor *weights, ember_routing *routing)
{
    return choose_experts(flow, like, n_experts, &(struct choose_attr){used, k, false}, weights,
                          routing);
}

ember_status fixture_dropping_routing(ember_flow *flow, ember_tensor *like, size_t n_experts,
                                      size_t used, size_t k, ember_tensor *weights,
                                      ember_routing *routing)
{
    return choose_experts(flow, like, n_experts, &(struct choose_attr){used, k, true}, weights,
                          routing);
}

ember_status fixture_spread(ember_flow *flow, ember_tensor *x, size_t k, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &op_spread, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct spread_attr)->k = k;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status fixture_weigh(ember_flow *flow, ember_tensor *const *x, unsigned n, double *sum,
                           ember_tensor **loss)
{
    struct em_call *c = em_call_new(flow, &op_weigh, n);
    if (!c) return EMBER_E_NOMEM;
    memcpy(c->in, x, n * sizeof(ember_tensor *));
    em_attr(c, struct weigh_attr)->sum = sum;
    EM_TRY(em_record(flow, c));
    *loss = c->out[0];
    return EMBER_OK;
}
