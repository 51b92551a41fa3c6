// Dropout: in training, elements are zero with probability p and the others are divided by 1 - p;
// otherwise y = x. Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
// Overfitting".
//
// The mask is a hash of (seed, step, call, element): backward and recomputed regions make it again
// instead of keeping it, and it does not depend on threads.
#include "base/rng.h"
#include "ops/elementwise.h"

struct attr {
    float p;
};

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

// to = from * mask, or to += from * mask.
static void apply(const struct mask *m, float *to, const float *from, size_t first, size_t n,
                  bool add)
{
    uint64_t bits = em_hash64(m->seed, m->call, first / 2);
    for (size_t j = 0; j < n; j++) {
        const size_t element = first + j;
        if (element % 2 == 0) bits = em_hash64(m->seed, m->call, element / 2);
        const float v = masked(m, bits, element, from[j]);
        to[j] = add ? to[j] + v : v;
    }
}

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    const struct mask m = mask_of(c);
    if (m.threshold)
        apply(&m, y, x[0], first, n, false);
    else
        memcpy(y, x[0], n * sizeof *y);
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)x;
    const struct mask m = mask_of(c);
    apply(&m, d[0], dy, first, n, !set[0]);
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    const struct mask m = mask_of(c);
    slope[0] = (double)masked(&m, em_hash64(m.seed, m.call, index / 2), index, 1);
    return slope[0] * x[0];
}

static const struct em_elementwise frame = {
    .inputs = 1,
    .what = {"x"},
    .flops = 2,
    .backward_flops = 2,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_dropout = {.name = "dropout", EM_ELEMENTWISE(&frame)};

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
