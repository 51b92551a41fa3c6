// Rank concat: a token's k rows side by side in the order of its choices, each times its weight:
// y [T, k D]. Choices that went nowhere leave zeros. drow = weight dy, dweight = dy . row.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts;
};

enum { ROWS, WEIGHTS, PLAN, INPUTS };

static ember_status shape(struct em_call *c)
{
    const ember_tensor *rows = c->in[ROWS], *weights = c->in[WEIGHTS];
    const size_t E = em_attr_const(c, struct attr)->n_experts;
    EM_TRY(em_check_f32(c, rows, "rows", 0));
    EM_TRY(em_check_f32(c, weights, "weights", 0));
    if (rows->ndim != 2 || weights->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "rank_concat: rows and weights have to be matrices");
    EM_TRY(em_check_plan(c, c->in[PLAN], E, weights->dim[0] * weights->dim[1]));
    EM_TRY(em_check_plan_rows(c, c->in[PLAN], E, rows));
    size_t width;
    if (!em_mul_size(weights->dim[1], rows->dim[1], &width))
        return em_fail(EMBER_E_SHAPE, "rank_concat: %zu rows of %zu", weights->dim[1],
                       rows->dim[1]);
    return em_out_rows(c, 0, EMBER_F32, weights, 1, &width, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){n, 8 * n};
    *backward = (struct em_cost){3 * n, 16 * n};
}

static const int32_t *place_of(const struct em_call *c, size_t t)
{
    return em_plan_place(c->in[PLAN], em_attr_const(c, struct attr)->n_experts) +
           t * c->in[WEIGHTS]->dim[1];
}

static void forward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->in[ROWS]->dim[1];
    for (size_t t = begin; t < end; t++)
        for (size_t n = 0; n < k; n++) {
            float *y = em_row(c->out[0], t) + n * D;
            const int32_t place = place_of(c, t)[n];
            if (place < 0)
                memset(y, 0, D * sizeof *y);
            else
                em_kernels()->scale_f32(y, em_row(c->in[ROWS], (size_t)place),
                                        em_row(c->in[WEIGHTS], t)[n], D);
        }
}

static void backward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->in[ROWS]->dim[1];
    for (size_t t = begin; t < end; t++)
        for (size_t n = 0; n < k; n++) {
            const float *dy = em_row(c->out[0]->grad, t) + n * D;
            const int32_t place = place_of(c, t)[n];
            if (place < 0) continue;
            if (em_wants(c, WEIGHTS))
                em_row(c->in[WEIGHTS]->grad, t)[n] +=
                    em_kernels()->dot_f32(dy, em_row(c->in[ROWS], (size_t)place), D);
            if (em_wants(c, ROWS))
                em_kernels()->axpy_f32(em_row(c->in[ROWS]->grad, (size_t)place),
                                       em_row(c->in[WEIGHTS], t)[n], dy, D);
        }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], forward_tokens);
}

static void backward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], backward_tokens);
}

static void reference_forward(const struct em_call *c)
{
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->in[ROWS]->dim[1];
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t i = 0; i < k * D; i++) {
            const int32_t place = place_of(c, t)[i / D];
            em_row(c->out[0], t)[i] = place < 0 ? 0
                                                : em_row(c->in[WEIGHTS], t)[i / D] *
                                                      em_row(c->in[ROWS], (size_t)place)[i % D];
        }
}

static void reference_backward(const struct em_call *c)
{
    const size_t k = c->in[WEIGHTS]->dim[1], D = c->in[ROWS]->dim[1];
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t n = 0; n < k; n++) {
            const int32_t place = place_of(c, t)[n];
            double sum = 0;
            for (size_t d = 0; place >= 0 && d < D; d++) {
                const float dy = em_row(c->out[0]->grad, t)[n * D + d];
                sum += (double)dy * (double)em_row(c->in[ROWS], (size_t)place)[d];
                if (em_wants(c, ROWS))
                    em_row(c->in[ROWS]->grad, (size_t)place)[d] +=
                        dy * em_row(c->in[WEIGHTS], t)[n];
            }
            if (em_wants(c, WEIGHTS)) em_row(c->in[WEIGHTS]->grad, t)[n] += (float)sum;
        }
}

const struct em_op em_op_rank_concat = {
    .name = "rank_concat",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(ROWS) | EM_READS_IN(WEIGHTS) | EM_READS_IN(PLAN),
};

ember_status ember_rank_concat(ember_flow *flow, ember_tensor *rows, const ember_routing *routing,
                               ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_rank_concat, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[ROWS] = rows;
    c->in[WEIGHTS] = routing->weights;
    c->in[PLAN] = routing->plan;
    em_attr(c, struct attr)->n_experts = routing->n_experts;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
