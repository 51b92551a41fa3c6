// Gathered experts: the rows of every expert one after the other, in the plan's order. An absent
// expert's rows are zeros. in[0] is the plan, in[1 + e] expert e's rows.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts, width, pairs, limit; // pairs: of the plan; limit: rows at most
};

enum { PLAN, ROWS };

static ember_status shape(struct em_call *c)
{
    char text[96];
    const struct attr *a = em_attr_const(c, struct attr);
    if (!a->width) return em_fail(EMBER_E_SHAPE, "gather_experts: rows have no elements");
    EM_TRY(em_check_plan(c, c->in[PLAN], a->n_experts, a->pairs));
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
    return em_out_plan(c, 0, EMBER_F32, c->in[PLAN], a->n_experts, a->limit, &a->width, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static const int32_t *offsets(const struct em_call *c)
{
    return em_plan_offset(c->in[PLAN]);
}

// The expert whose row r is.
static size_t expert_of(const struct em_call *c, size_t r)
{
    size_t e = 0, after = em_attr_const(c, struct attr)->n_experts;
    while (e + 1 < after) {
        const size_t middle = (e + after) / 2;
        if ((size_t)offsets(c)[middle] <= r)
            e = middle;
        else
            after = middle;
    }
    return e;
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t width = em_attr_const(c, struct attr)->width;
    size_t e = expert_of(c, begin);
    for (size_t r = begin; r < end; r++) {
        while (r >= (size_t)offsets(c)[e + 1])
            e++;
        float *to = em_row(c->out[0], r);
        if (c->in[ROWS + e])
            memcpy(to, em_row(c->in[ROWS + e], r - (size_t)offsets(c)[e]), width * sizeof *to);
        else
            memset(to, 0, width * sizeof *to);
    }
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t width = em_attr_const(c, struct attr)->width;
    size_t e = expert_of(c, begin);
    for (size_t r = begin; r < end; r++) {
        while (r >= (size_t)offsets(c)[e + 1])
            e++;
        const unsigned i = ROWS + (unsigned)e;
        if (!em_wants(c, i)) continue;
        float *to = em_row(c->in[i]->grad, r - (size_t)offsets(c)[e]);
        const float *from = em_row(c->out[0]->grad, r);
        if (em_fresh(c, i))
            memcpy(to, from, width * sizeof *to);
        else
            em_kernels()->add_f32(to, to, from, width);
    }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], forward_rows);
}

static void backward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], c->out[0]->dim[1], backward_rows);
}

// Expert by expert.
static void reference_forward(const struct em_call *c)
{
    for (size_t e = 0; e < em_attr_const(c, struct attr)->n_experts; e++)
        for (size_t r = (size_t)offsets(c)[e]; r < (size_t)offsets(c)[e + 1]; r++)
            for (size_t d = 0; d < c->out[0]->dim[1]; d++)
                em_row(c->out[0], r)[d] =
                    c->in[ROWS + e] ? em_row(c->in[ROWS + e], r - (size_t)offsets(c)[e])[d] : 0;
}

static void reference_backward(const struct em_call *c)
{
    for (unsigned e = 0; e < em_attr_const(c, struct attr)->n_experts; e++) {
        em_zero_fresh(c, ROWS + e);
        for (size_t r = (size_t)offsets(c)[e]; r < (size_t)offsets(c)[e + 1]; r++)
            for (size_t d = 0; em_wants(c, ROWS + e) && d < c->out[0]->dim[1]; d++)
                em_row(c->in[ROWS + e]->grad, r - (size_t)offsets(c)[e])[d] +=
                    em_row(c->out[0]->grad, r)[d];
    }
}

const struct em_op em_op_gather_experts = {
    .name = "gather_experts",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(PLAN),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_gather_experts(ember_flow *flow, ember_tensor *const *rows,
                                  const ember_routing *routing, size_t width, ember_tensor **y)
{
    struct em_call *c =
        em_call_new(flow, &em_op_gather_experts, (unsigned)(ROWS + routing->n_experts));
    if (!c) return EMBER_E_NOMEM;
    c->in[PLAN] = routing->plan;
    memcpy(c->in + ROWS, rows, routing->n_experts * sizeof *rows);
    const size_t E = routing->n_experts, most = routing->max_rows,
                 pairs = routing->plan ? em_plan_pairs(routing->plan, E) : 0;
    *em_attr(c, struct attr) = (struct attr){E, width, pairs, most && most < pairs ? most : pairs};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
