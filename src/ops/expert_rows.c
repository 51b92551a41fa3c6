// Expert rows: the rows of x that the plan gives to one expert, as many as there are at run time.
//   dx of a row is added back: a token goes to an expert at most once.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/rows.h"

struct attr {
    size_t expert, n_experts, k;
};

enum { X, PLAN, INPUTS };

static ember_status shape(struct em_call *c)
{
    char text[96];
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_tensor *x = c->in[X];
    EM_TRY(em_check_f32(c, x, "x", 0));
    if (x->ndim != 2 || a->expert >= a->n_experts)
        return em_fail(EMBER_E_SHAPE, "expert_rows: expert %zu of %zu, x is %s", a->expert,
                       a->n_experts, em_shape_text(x, text, sizeof text));
    EM_TRY(em_check_plan(c, c->in[PLAN], a->n_experts, x->dim[0] * a->k));
    return em_out_expert(c, 0, EMBER_F32, x, c->in[PLAN], a->expert, &x->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const double n =
        em_elements(c->in[X]) * (double)a->k / (double)a->n_experts; // of a balanced load
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static const int32_t *pairs(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    return em_plan_order(c->in[PLAN], a->n_experts) + em_plan_offset(c->in[PLAN])[a->expert];
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const int32_t *pair = pairs(c);
    for (size_t r = begin; r < end; r++)
        memcpy(em_row(c->out[0], r),
               em_row(c->in[X], (size_t)pair[r] / em_attr_const(c, struct attr)->k),
               c->out[0]->dim[1] * sizeof(float));
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const int32_t *pair = pairs(c);
    for (size_t r = begin; r < end; r++) {
        float *dx = em_row(c->in[X]->grad, (size_t)pair[r] / em_attr_const(c, struct attr)->k);
        em_kernels()->add_f32(dx, dx, em_row(c->out[0]->grad, r), c->out[0]->dim[1]);
    }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], forward_rows);
}

static void backward(const struct em_call *c)
{
    if (em_wants(c, X)) em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    forward_rows(&c, 0, c->out[0]->dim[0], 0);
}

static void reference_backward(const struct em_call *c)
{
    const int32_t *pair = pairs(c);
    for (size_t r = 0; em_wants(c, X) && r < c->out[0]->dim[0]; r++)
        for (size_t d = 0; d < c->out[0]->dim[1]; d++)
            em_row(c->in[X]->grad, (size_t)pair[r] / em_attr_const(c, struct attr)->k)[d] +=
                em_row(c->out[0]->grad, r)[d];
}

const struct em_op em_op_expert_rows = {
    .name = "expert_rows",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(PLAN),
};

ember_status ember_expert_rows(ember_flow *flow, ember_tensor *x, const ember_routing *routing,
                               size_t expert, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_expert_rows, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[PLAN] = routing->plan;
    *em_attr(c, struct attr) = (struct attr){expert, routing->n_experts, routing->k};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
