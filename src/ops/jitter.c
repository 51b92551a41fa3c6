// Jitter: in training y = x * (1 + eps u), u uniform in [-1, 1) for each element; otherwise y = x.
// Fedus et al. 2021, arXiv:2101.03961 (of a router's input).
//
// The factors are a hash of (seed, step, call, element), as dropout's mask is.
#include "base/rng.h"
#include "ops/elementwise.h"

struct attr {
    float eps;
};

struct noise {
    uint64_t seed, call;
    float eps; // 0: not in training
};

static struct noise noise_of(const struct em_call *c)
{
    return (struct noise){em_hash64(c->exec->seed, c->exec->step, 0x6a697474), c->index,
                          c->exec->training ? em_attr_const(c, struct attr)->eps : 0};
}

static float factor(const struct noise *n, size_t element)
{
    return 1 + n->eps * (float)(int32_t)(em_hash64(n->seed, n->call, element) >> 32) * 0x1p-31f;
}

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    const struct noise noise = noise_of(c);
    for (size_t j = 0; j < n; j++)
        y[j] = noise.eps > 0 ? x[0][j] * factor(&noise, first + j) : x[0][j];
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)x;
    const struct noise noise = noise_of(c);
    for (size_t j = 0; j < n; j++) {
        const float v = dy[j] * factor(&noise, first + j);
        d[0][j] = set[0] ? v : d[0][j] + v;
    }
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    const struct noise noise = noise_of(c);
    slope[0] = (double)factor(&noise, index);
    return slope[0] * x[0];
}

static const struct em_elementwise frame = {
    .inputs = 1,
    .what = {"x"},
    .flops = 4,
    .backward_flops = 4,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_jitter = {.name = "jitter", EM_ELEMENTWISE(&frame)};

ember_status ember_jitter(ember_flow *flow, ember_tensor *x, float eps, ember_tensor **y)
{
    if (!(eps >= 0 && eps < 1))
        return em_fail(EMBER_E_RANGE, "jitter: eps has to be in [0, 1), not %g", (double)eps);
    struct em_call *c = em_call_new(flow, &em_op_jitter, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->eps = eps;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
