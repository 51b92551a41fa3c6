// Position features: sin(p / r_i) and cos(p / r_i) of a token's position p in its sequence, with
// r_i from 1 to `longest` in geometric steps. Vaswani et al. 2017, arXiv:1706.03762. No gradient.
#include <math.h>

#include "ops/rows.h"

struct attr {
    size_t features;
    float longest;
};

static ember_status shape(struct em_call *c)
{
    const size_t F = em_attr_const(c, struct attr)->features;
    if (!F || F % 2)
        return em_fail(EMBER_E_SHAPE, "position_features: an even number is needed, not %zu", F);
    return em_out_tokens(c, 0, EMBER_F32, &F, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    *forward = (struct em_cost){30 * em_elements(c->out[0]), 4 * em_elements(c->out[0])};
    *backward = (struct em_cost){0};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t half = a->features / 2;
    const double step = half > 1 ? log((double)a->longest) / (double)(half - 1) : 0;
    for (size_t t = begin; t < end; t++)
        for (size_t i = 0; i < half; i++) {
            const double angle = (double)c->exec->position[t] * exp(-step * (double)i);
            em_row(c->out[0], t)[i] = (float)sin(angle);
            em_row(c->out[0], t)[half + i] = (float)cos(angle);
        }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], 16 * c->out[0]->dim[1], forward_rows);
}

const struct em_op em_op_position_features = {
    .name = "position_features",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, NULL}, [EM_REFERENCE] = {forward, NULL}},
};

ember_status ember_position_features(ember_flow *flow, size_t features, float longest,
                                     ember_tensor **y)
{
    if (!(longest >= 1))
        return em_fail(EMBER_E_RANGE, "position_features: longest has to be 1 or more");
    struct em_call *c = em_call_new(flow, &em_op_position_features, 0);
    if (!c) return EMBER_E_NOMEM;
    *em_attr(c, struct attr) = (struct attr){features, longest};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
