// Dispatch: sorts the (token, choice) pairs by expert, stably, into a plan (ops/moe_plan.h). Pairs
// whose index is negative go nowhere.
#include "ops/moe_plan.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts;
};

static ember_status shape(struct em_call *c)
{
    char text[96];
    const ember_tensor *indices = c->in[0];
    const size_t E = em_attr_const(c, struct attr)->n_experts;
    if (!indices || indices->dtype != EMBER_I32 || indices->ndim != 2 || !E || indices->dim[1] > E)
        return em_fail(EMBER_E_SHAPE,
                       "dispatch: indices have to be [T, K] of i32 with K of %zu experts, not %s",
                       E, indices ? em_shape_text(indices, text, sizeof text) : "absent");
    size_t pairs;
    if (!em_mul_size(indices->dim[0], indices->dim[1], &pairs) || pairs > INT32_MAX)
        return em_fail(EMBER_E_SHAPE, "dispatch: more than %d pairs of token and expert",
                       INT32_MAX);
    return em_out(c, 0, EMBER_I32, (size_t[]){em_plan_size(E, pairs)}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    *forward = (struct em_cost){0, 4 * 4 * em_elements(c->in[0])};
    *backward = (struct em_cost){0};
}

static void forward(const struct em_call *c)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts, pairs = ember_tensor_count(c->in[0]);
    const int32_t *index = em_i32(c->in[0]);
    int32_t *offset = em_plan_offset(c->out[0]), *order = em_plan_order(c->out[0], E),
            *place = em_plan_place(c->out[0], E);
    memset(offset, 0, (E + 1) * sizeof *offset);
    for (size_t p = 0; p < pairs; p++)
        if (index[p] >= 0) offset[index[p] + 1]++;
    for (size_t e = 0; e < E; e++)
        offset[e + 1] += offset[e];
    for (size_t p = 0; p < pairs; p++) {
        place[p] = -1;
        if (index[p] < 0) continue;
        const int32_t row =
            offset[index[p]]++; // runs to the end of e's rows, and is set back below
        order[row] = (int32_t)p;
        place[p] = row;
    }
    for (size_t e = E; e > 0; e--)
        offset[e] = offset[e - 1];
    offset[0] = 0;
}

const struct em_op em_op_dispatch = {
    .name = "dispatch",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, NULL}, [EM_REFERENCE] = {forward, NULL}},
};

ember_status em_check_plan(const struct em_call *c, const ember_tensor *plan, size_t n_experts,
                           size_t pairs)
{
    if (!plan || plan->dtype != EMBER_I32 || plan->ndim != 1)
        return em_fail(EMBER_E_SHAPE, "%s: the routing has no dispatch plan", c->op->name);
    if (!n_experts || plan->dim[0] != em_plan_size(n_experts, pairs))
        return em_fail(EMBER_E_SHAPE, "%s: the plan is not one of %zu rows for %zu experts",
                       c->op->name, pairs, n_experts);
    return EMBER_OK;
}

ember_status em_check_plan_rows(const struct em_call *c, const ember_tensor *plan, size_t n_experts,
                                const ember_tensor *rows)
{
    if (rows->info && rows->info->rows == EM_ROWS_PLAN)
        return rows->info->plan == plan && rows->info->expert == n_experts &&
                       rows->info->multiple == 1
                   ? EMBER_OK
                   : em_fail(EMBER_E_SHAPE, "%s: the rows are those of another plan", c->op->name);
    return em_check_plan(c, plan, n_experts, rows->dim[0]);
}

ember_status ember_dispatch(ember_flow *flow, ember_routing *routing)
{
    struct em_call *c = em_call_new(flow, &em_op_dispatch, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = routing->indices;
    em_attr(c, struct attr)->n_experts = routing->n_experts;
    EM_TRY(em_record(flow, c));
    routing->plan = c->out[0];
    em_keep(routing->plan);
    return EMBER_OK;
}
