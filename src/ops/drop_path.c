// Stochastic depth: in training, all rows of a sequence are zero with probability p, and otherwise
// divided by 1 - p. Huang et al. 2016, arXiv:1603.09382. Which ones is a hash of (seed, step, call,
// sequence): backward and recomputed regions find it again, and threads do not matter.
#include "base/rng.h"
#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    float p;
};

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]);
    *forward = (struct em_cost){n, 8 * n};
    *backward = (struct em_cost){2 * n, 12 * n};
}

static float factor(const struct em_call *c, size_t s)
{
    const double p = c->exec->training ? (double)em_attr_const(c, struct attr)->p : 0;
    const uint64_t bits =
        em_hash64(em_hash64(c->exec->seed, c->exec->step, 0x70617468), c->index, s);
    return (double)(bits >> 11) * 0x1p-53 < p ? 0 : (float)(1 / (1 - p));
}

// Of row r of x: its sequence's.
static float factor_of_row(const struct em_call *c, size_t r)
{
    size_t each;
    (void)em_has_sequence_rows(c->in[0], &each);
    return factor(c, each ? r / each : em_sequence_of(c, r));
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip x = em_strip_of(c->in[0]), y = em_strip_of(c->out[0]);
    for (size_t r = begin; r < end; r++)
        em_kernels()->scale_f32(em_strip_row(&y, r), em_strip_row(&x, r), factor_of_row(c, r),
                                x.width);
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    em_over_rows(c, x.count, x.width, forward_rows);
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip dx = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    for (size_t r = begin; r < end; r++) {
        float *to = em_strip_row(&dx, r);
        const float f = factor_of_row(c, r), *from = em_strip_row(&dy, r);
        if (em_fresh(c, 0))
            em_kernels()->scale_f32(to, from, f, dx.width);
        else
            em_kernels()->axpy_f32(to, f, from, dx.width);
    }
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip dx = em_strip_of(c->in[0]->grad);
    em_over_rows(c, dx.count, dx.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t r = em_first_row(c, c->in[0], s); r < em_first_row(c, c->in[0], s + 1); r++)
            for (size_t j = 0; j < em_last_dim(c->in[0]); j++)
                em_row(c->out[0], r)[j] = em_row(c->in[0], r)[j] * factor(c, s);
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    em_zero_fresh(c, 0);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t r = em_first_row(c, c->in[0], s); r < em_first_row(c, c->in[0], s + 1); r++)
            for (size_t j = 0; j < em_last_dim(c->in[0]); j++)
                em_row(c->in[0]->grad, r)[j] += em_row(c->out[0]->grad, r)[j] * factor(c, s);
}

const struct em_op em_op_drop_path = {
    .name = "drop_path",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_drop_path(ember_flow *flow, ember_tensor *x, float p, ember_tensor **y)
{
    size_t each;
    if (!(p >= 0 && p < 1))
        return em_fail(EMBER_E_RANGE, "drop_path: p has to be in [0, 1), not %g", (double)p);
    if (!x || x->ndim != 2 || !em_has_sequence_rows(x, &each))
        return em_fail(EMBER_E_SHAPE, "drop_path: x has to be an activation [T, D] with rows of "
                                      "sequences");
    if (p == 0 || !em_flow_options(flow)->gradients) {
        *y = x; // nothing is ever dropped here
        return EMBER_OK;
    }
    struct em_call *c = em_call_new(flow, &em_op_drop_path, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->p = p;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
