// The batch's own features as a tensor: y [T, D], for models that read vectors instead of tokens.
#include "ops/bytes.h"
#include "ops/rows.h"

struct attr {
    size_t width;
};

static ember_status shape(struct em_call *c)
{
    const size_t D = em_attr(c, struct attr)->width;
    if (!D) return em_fail(EMBER_E_SHAPE, "inputs: a row has to have at least one element");
    em_need_inputs(c);
    return em_out_tokens(c, 0, EMBER_F32, &D, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    *forward = (struct em_cost){0, 8 * em_elements(c->out[0])};
    *backward = (struct em_cost){0, 0};
}

static void forward(const struct em_call *c)
{
    em_copy_bytes(c->exec->pool, c->out[0]->data, c->exec->batch->inputs,
                  em_tensor_bytes(c->out[0]));
}

const struct em_op em_op_inputs = {
    .name = "inputs",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, NULL}, [EM_REFERENCE] = {forward, NULL}},
};

ember_status ember_inputs(ember_flow *flow, size_t width, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_inputs, 0);
    if (!c) return EMBER_E_NOMEM;
    em_attr(c, struct attr)->width = width;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
