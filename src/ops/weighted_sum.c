// Weighted sum: y[t] = sum over the token's k choices of weight * row, in the order of the choices,
// plus a residual. Choices that went nowhere count for nothing.
//   drow = weight dy,  dweight = dy . row,  dresidual = dy.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts;
    bool plain; // weights count for 1, and get no gradient
};

enum { ROWS, WEIGHTS, PLAN, RESIDUAL, INPUTS }; // the planner fills RESIDUAL

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *rows = c->in[ROWS], *weights = c->in[WEIGHTS];
    EM_TRY(em_check_f32(c, rows, "rows", 0));
    EM_TRY(em_check_f32(c, weights, "weights", 0));
    const bool planned = rows->info && rows->info->rows == EM_ROWS_PLAN;
    if (rows->ndim != 2 || weights->ndim != 2 ||
        (!planned && rows->dim[0] != weights->dim[0] * weights->dim[1]))
        return em_fail(EMBER_E_SHAPE, "weighted_sum: rows are %s, weights %s",
                       em_shape_text(rows, text[0], sizeof text[0]),
                       em_shape_text(weights, text[1], sizeof text[1]));
    EM_TRY(em_check_plan(c, c->in[PLAN], em_attr_const(c, struct attr)->n_experts,
                         weights->dim[0] * weights->dim[1]));
    EM_TRY(em_check_plan_rows(c, c->in[PLAN], em_attr_const(c, struct attr)->n_experts, rows));
    return em_out_rows(c, 0, EMBER_F32, weights, 1, &rows->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[ROWS]), y = em_elements(c->out[0]);
    *forward = (struct em_cost){2 * n, 4 * (n + y + em_elements(c->in[RESIDUAL]))};
    *backward = (struct em_cost){4 * n, 4 * (3 * n + y)};
}

static const int32_t *places(const struct em_call *c)
{
    return em_plan_place(c->in[PLAN], em_attr_const(c, struct attr)->n_experts);
}

static float weight_of(const struct em_call *c, size_t t, size_t n)
{
    return em_attr_const(c, struct attr)->plain ? 1 : em_row(c->in[WEIGHTS], t)[n];
}

static bool wants_weights(const struct em_call *c)
{
    return em_wants(c, WEIGHTS) && !em_attr_const(c, struct attr)->plain;
}

static void forward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->out[0]->dim[1];
    const int32_t *place = places(c);
    for (size_t t = begin; t < end; t++) {
        float *y = em_row(c->out[0], t);
        bool first = true;
        for (size_t n = 0; n < k; n++) {
            if (place[t * k + n] < 0) continue;
            const float *row = em_row(c->in[ROWS], (size_t)place[t * k + n]);
            if (first)
                em_kernels()->scale_f32(y, row, weight_of(c, t, n), D);
            else
                em_kernels()->axpy_f32(y, weight_of(c, t, n), row, D);
            first = false;
        }
        if (first) memset(y, 0, D * sizeof *y);
        if (c->in[RESIDUAL]) em_kernels()->add_f32(y, em_row(c->in[RESIDUAL], t), y, D);
    }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1] * c->in[WEIGHTS]->dim[1], forward_tokens);
}

// Rows in the plan's order, so that theirs and their gradient's memory is walked from end to end:
// it is k times that of the tokens.
static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->out[0]->dim[1];
    const int32_t *order = em_plan_order(c->in[PLAN], em_attr_const(c, struct attr)->n_experts);
    for (size_t r = begin; r < end; r++) {
        const size_t t = (size_t)order[r] / k, n = (size_t)order[r] % k;
        const float *dy = em_row(c->out[0]->grad, t), weight = weight_of(c, t, n);
        if (wants_weights(c))
            em_row(c->in[WEIGHTS]->grad, t)[n] +=
                em_kernels()->dot_f32(dy, em_row(c->in[ROWS], r), D);
        if (!em_wants(c, ROWS)) continue;
        if (em_fresh(c, ROWS))
            em_kernels()->scale_f32(em_row(c->in[ROWS]->grad, r), dy, weight, D);
        else
            em_kernels()->axpy_f32(em_row(c->in[ROWS]->grad, r), weight, dy, D);
    }
}

static void backward(const struct em_call *c)
{
    // Weights' gradients are few: they are filled with zeros here rather than kept apart.
    em_zero_fresh(c, WEIGHTS);
    em_over_rows(c, c->in[ROWS]->dim[0], c->out[0]->dim[1], backward_rows);
    em_add_residual_gradient(c);
}

static void reference_forward(const struct em_call *c)
{
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->out[0]->dim[1];
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t d = 0; d < D; d++) {
            double sum = 0;
            for (size_t n = 0; n < k; n++)
                if (places(c)[t * k + n] >= 0)
                    sum += (double)weight_of(c, t, n) *
                           (double)em_row(c->in[ROWS], (size_t)places(c)[t * k + n])[d];
            if (c->in[RESIDUAL]) sum += (double)em_row(c->in[RESIDUAL], t)[d];
            em_row(c->out[0], t)[d] = (float)sum;
        }
}

static void reference_backward(const struct em_call *c)
{
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->out[0]->dim[1];
    em_zero_fresh(c, ROWS);
    em_zero_fresh(c, WEIGHTS);
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t n = 0; n < k; n++) {
            if (places(c)[t * k + n] < 0) continue;
            const size_t r = (size_t)places(c)[t * k + n];
            const float *dy = em_row(c->out[0]->grad, t);
            double sum = 0;
            for (size_t d = 0; d < D; d++)
                sum += (double)dy[d] * (double)em_row(c->in[ROWS], r)[d];
            if (wants_weights(c)) em_row(c->in[WEIGHTS]->grad, t)[n] += (float)sum;
            for (size_t d = 0; em_wants(c, ROWS) && d < D; d++)
                em_row(c->in[ROWS]->grad, r)[d] += weight_of(c, t, n) * dy[d];
        }
    em_zero_fresh(c, RESIDUAL);
    for (size_t t = 0; em_wants(c, RESIDUAL) && t < c->out[0]->dim[0]; t++)
        for (size_t d = 0; d < D; d++)
            em_row(c->in[RESIDUAL]->grad, t)[d] += em_row(c->out[0]->grad, t)[d];
}

const struct em_op em_op_weighted_sum = {
    .name = "weighted_sum",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(ROWS) | EM_READS_IN(WEIGHTS) | EM_READS_IN(PLAN),
    .flags = EM_OP_SETS_FRESH,
    .residual = RESIDUAL,
};

static ember_status record(ember_flow *flow, ember_tensor *rows, const ember_routing *routing,
                           bool plain, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_weighted_sum, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[ROWS] = rows;
    c->in[WEIGHTS] = routing->weights;
    c->in[PLAN] = routing->plan;
    *em_attr(c, struct attr) = (struct attr){routing->n_experts, plain};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_weighted_sum(ember_flow *flow, ember_tensor *rows, const ember_routing *routing,
                                ember_tensor **y)
{
    return record(flow, rows, routing, false, y);
}

ember_status ember_expert_sum(ember_flow *flow, ember_tensor *rows, const ember_routing *routing,
                              ember_tensor **y)
{
    return record(flow, rows, routing, true, y);
}
