// Scaling: y = a * factor, factor a constant.
#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    float factor;
};

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "a", 0));
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){n, 8 * n};
    *backward = (struct em_cost){2 * n, 12 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), a = em_strip_of(c->in[0]);
    const float factor = em_attr_const(c, struct attr)->factor;
    for (size_t r = begin; r < end; r++)
        em_kernels()->scale_f32(em_strip_row(&y, r), em_strip_row(&a, r), factor, y.width);
}

static void forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    em_over_rows(c, y.count, y.width, forward_rows);
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip da = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    const float factor = em_attr_const(c, struct attr)->factor;
    const bool set = em_fresh(c, 0);
    for (size_t r = begin; r < end; r++) {
        if (set)
            em_kernels()->scale_f32(em_strip_row(&da, r), em_strip_row(&dy, r), factor, dy.width);
        else
            em_kernels()->axpy_f32(em_strip_row(&da, r), factor, em_strip_row(&dy, r), dy.width);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    if (em_wants(c, 0)) em_over_rows(c, dy.count, dy.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]), a = em_strip_of(c->in[0]);
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] = em_strip_row(&a, r)[j] * em_attr_const(c, struct attr)->factor;
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip da = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    em_zero_fresh(c, 0);
    for (size_t r = 0; r < dy.count; r++)
        for (size_t j = 0; j < dy.width; j++)
            em_strip_row(&da, r)[j] +=
                em_strip_row(&dy, r)[j] * em_attr_const(c, struct attr)->factor;
}

const struct em_op em_op_scale = {
    .name = "scale",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_scale(ember_flow *flow, ember_tensor *a, float factor, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_scale, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = a;
    em_attr(c, struct attr)->factor = factor;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
