// Addition: y = a + b, elementwise.
#include "kernels/kernels.h"
#include "ops/rows.h"

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_same(c, "a", c->in[0], "b", c->in[1]));
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){n, 12 * n};
    *backward = (struct em_cost){2 * n, 20 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), a = em_strip_of(c->in[0]),
                          b = em_strip_of(c->in[1]);
    for (size_t r = begin; r < end; r++)
        em_kernels()->add_f32(em_strip_row(&y, r), em_strip_row(&a, r), em_strip_row(&b, r),
                              y.width);
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
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    for (unsigned i = 0; i < 2; i++) {
        if (!em_wants(c, i)) continue;
        const struct em_strip d = em_strip_of(c->in[i]->grad);
        const bool set = em_fresh(c, i);
        for (size_t r = begin; r < end; r++) {
            float *to = em_strip_row(&d, r);
            const float *from = em_strip_row(&dy, r);
            if (set)
                memcpy(to, from, d.width * sizeof *to);
            else
                em_kernels()->add_f32(to, to, from, d.width);
        }
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    em_over_rows(c, dy.count, dy.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]), a = em_strip_of(c->in[0]),
                          b = em_strip_of(c->in[1]);
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] = em_strip_row(&a, r)[j] + em_strip_row(&b, r)[j];
}

static void reference_backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    for (unsigned i = 0; i < 2; i++) {
        if (!em_wants(c, i)) continue;
        const struct em_strip d = em_strip_of(c->in[i]->grad);
        em_zero_fresh(c, i);
        for (size_t r = 0; r < d.count; r++)
            for (size_t j = 0; j < d.width; j++)
                em_strip_row(&d, r)[j] += em_strip_row(&dy, r)[j];
    }
}

const struct em_op em_op_add = {
    .name = "add",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_add(ember_flow *flow, ember_tensor *a, ember_tensor *b, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_add, 2);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = a;
    c->in[1] = b;
    c->pass = a == b ? -1 : 0;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
