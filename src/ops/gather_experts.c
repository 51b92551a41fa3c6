// Gathered experts: the rows of every expert one after the other, in the plan's order. An absent
// expert's rows are zeros. in[0] is the plan, in[1] the weights (whose rows say how many there
// are), in[2 + e] expert e's rows.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts, width;
};

enum { PLAN, WEIGHTS, ROWS };

static ember_status shape(struct em_call *c)
{
    char text[96];
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_tensor *weights = c->in[WEIGHTS];
    EM_TRY(em_check_f32(c, weights, "weights", 0));
    if (weights->ndim != 2 || !a->width)
        return em_fail(EMBER_E_SHAPE, "gather_experts: weights are %s, a row has %zu elements",
                       em_shape_text(weights, text, sizeof text), a->width);
    EM_TRY(em_check_plan(c, c->in[PLAN], a->n_experts, weights->dim[0] * weights->dim[1]));
    for (size_t e = 0; e < a->n_experts; e++) {
        const ember_tensor *rows = c->in[ROWS + e];
        if (!rows) continue;
        EM_TRY(em_check_f32(c, rows, "an expert's output", a->width));
        const struct em_tensor_info *info = rows->info;
        if (rows->ndim != 2 || !info || info->rows != EM_ROWS_EXPERT || info->plan != c->in[PLAN] ||
            info->expert != e || info->multiple != 1)
            return em_fail(EMBER_E_SHAPE,
                           "gather_experts: %s does not have a row for each of expert %zu",
                           em_shape_text(rows, text, sizeof text), e);
    }
    return em_out_rows(c, 0, EMBER_F32, c->in[WEIGHTS], c->in[WEIGHTS]->dim[1], &a->width, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static void forward(const struct em_call *c)
{
    const int32_t *offset = em_plan_offset(c->in[PLAN]);
    const size_t width = em_attr_const(c, struct attr)->width;
    for (size_t e = 0; e < em_attr_const(c, struct attr)->n_experts; e++) {
        const size_t begin = (size_t)offset[e], rows = (size_t)offset[e + 1] - begin;
        if (!rows) continue;
        if (!c->in[ROWS + e]) {
            memset(em_row(c->out[0], begin), 0, rows * width * sizeof(float));
            continue;
        }
        const struct em_strip from = em_strip_of(c->in[ROWS + e]);
        for (size_t r = 0; r < rows; r++)
            memcpy(em_row(c->out[0], begin + r), em_strip_row(&from, r), width * sizeof(float));
    }
}

static void backward(const struct em_call *c)
{
    const int32_t *offset = em_plan_offset(c->in[PLAN]);
    const size_t width = em_attr_const(c, struct attr)->width;
    for (unsigned e = 0; e < em_attr_const(c, struct attr)->n_experts; e++) {
        if (!em_wants(c, ROWS + e)) continue;
        const struct em_strip to = em_strip_of(c->in[ROWS + e]->grad);
        for (size_t r = 0; r < to.count; r++)
            em_kernels()->add_f32(em_strip_row(&to, r), em_strip_row(&to, r),
                                  em_row(c->out[0]->grad, (size_t)offset[e] + r), width);
    }
}

const struct em_op em_op_gather_experts = {
    .name = "gather_experts",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {forward, backward}},
    .backward_reads = EM_READS_IN(PLAN),
};

ember_status ember_gather_experts(ember_flow *flow, ember_tensor *const *rows,
                                  const ember_routing *routing, size_t width, ember_tensor **y)
{
    struct em_call *c =
        em_call_new(flow, &em_op_gather_experts, (unsigned)(ROWS + routing->n_experts));
    if (!c) return EMBER_E_NOMEM;
    c->in[PLAN] = routing->plan;
    c->in[WEIGHTS] = routing->weights;
    memcpy(c->in + ROWS, rows, routing->n_experts * sizeof *rows);
    *em_attr(c, struct attr) = (struct attr){routing->n_experts, width};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
