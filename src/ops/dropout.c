// Dropout: in training, elements are zero with probability p and the others are divided by 1 - p;
// otherwise y = x. Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
// Overfitting".
//
// The mask is a hash of (seed, step, call, element): backward and recomputed regions make it again
// instead of keeping it, and it does not depend on threads.
#include "base/rng.h"
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
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){2 * n, 8 * n};
    *backward = (struct em_cost){2 * n, 12 * n};
}

// One hash serves two elements, 32 bits each.
struct mask {
    uint64_t seed, call, threshold; // an element whose bits are below it is dropped
    float keep;
};

static struct mask mask_of(const struct em_call *c)
{
    const float p = c->exec->training ? em_attr_const(c, struct attr)->p : 0;
    return (struct mask){em_hash64(c->exec->seed, c->exec->step, 0x64726f70), c->index,
                         (uint64_t)((double)p * 0x1p32), 1 / (1 - p)};
}

static float masked(const struct mask *m, uint64_t bits, size_t element, float x)
{
    const uint64_t mine = element % 2 ? bits >> 32 : bits & 0xffffffffu;
    return mine < m->threshold ? 0 : x * m->keep;
}

// to = from * mask, or to += from * mask, for row r of both.
static void mask_row(const struct mask *m, float *to, const float *from, size_t r, size_t width,
                     bool add)
{
    size_t element = r * width;
    uint64_t bits = em_hash64(m->seed, m->call, element / 2);
    for (size_t j = 0; j < width; j++, element++) {
        if (element % 2 == 0) bits = em_hash64(m->seed, m->call, element / 2);
        const float v = masked(m, bits, element, from[j]);
        to[j] = add ? to[j] + v : v;
    }
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), x = em_strip_of(c->in[0]);
    const struct mask m = mask_of(c);
    for (size_t r = begin; r < end; r++) {
        if (m.threshold)
            mask_row(&m, em_strip_row(&y, r), em_strip_row(&x, r), r, y.width, false);
        else
            memcpy(em_strip_row(&y, r), em_strip_row(&x, r), y.width * sizeof *y.data);
    }
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
    const struct em_strip dy = em_strip_of(c->out[0]->grad), dx = em_strip_of(c->in[0]->grad);
    const struct mask m = mask_of(c);
    for (size_t r = begin; r < end; r++)
        mask_row(&m, em_strip_row(&dx, r), em_strip_row(&dy, r), r, dy.width, !em_fresh(c, 0));
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    if (em_wants(c, 0)) em_over_rows(c, dy.count, dy.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]), x = em_strip_of(c->in[0]);
    const struct mask m = mask_of(c);
    for (size_t i = 0; i < y.count * y.width; i++)
        em_strip_row(&y, i / y.width)[i % y.width] = masked(
            &m, em_hash64(m.seed, m.call, i / 2), i, em_strip_row(&x, i / y.width)[i % y.width]);
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip dy = em_strip_of(c->out[0]->grad), dx = em_strip_of(c->in[0]->grad);
    const struct mask m = mask_of(c);
    em_zero_fresh(c, 0);
    for (size_t i = 0; i < dy.count * dy.width; i++)
        em_strip_row(&dx, i / dy.width)[i % dy.width] += masked(
            &m, em_hash64(m.seed, m.call, i / 2), i, em_strip_row(&dy, i / dy.width)[i % dy.width]);
}

const struct em_op em_op_dropout = {
    .name = "dropout",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_dropout(ember_flow *flow, ember_tensor *x, float p, ember_tensor **y)
{
    if (!(p >= 0 && p < 1))
        return em_fail(EMBER_E_RANGE, "dropout: p has to be in [0, 1), not %g", (double)p);
    if (p == 0 || !em_flow_options(flow)->gradients) {
        *y = x; // nothing is ever dropped here
        return EMBER_OK;
    }
    struct em_call *c = em_call_new(flow, &em_op_dropout, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->p = p;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
