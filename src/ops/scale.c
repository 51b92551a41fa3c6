// Scaling: y = a * factor, factor a constant.
#include "ops/elementwise.h"

struct attr {
    float factor;
};

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    (void)first;
    em_kernels()->scale_f32(y, x[0], em_attr_const(c, struct attr)->factor, n);
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)x, (void)first;
    const float factor = em_attr_const(c, struct attr)->factor;
    if (set[0])
        em_kernels()->scale_f32(d[0], dy, factor, n);
    else
        em_kernels()->axpy_f32(d[0], factor, dy, n);
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    (void)index;
    slope[0] = (double)em_attr_const(c, struct attr)->factor;
    return x[0] * slope[0];
}

static const struct em_elementwise frame = {
    .inputs = 1,
    .what = {"a"},
    .flops = 1,
    .backward_flops = 2,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_scale = {.name = "scale", EM_ELEMENTWISE(&frame)};

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
