// Addition: y = a + b, elementwise.
#include "ops/elementwise.h"

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    (void)c, (void)first;
    em_kernels()->add_f32(y, x[0], x[1], n);
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)c, (void)x, (void)first;
    for (unsigned i = 0; i < 2; i++) {
        if (d[i] && set[i])
            memcpy(d[i], dy, n * sizeof *dy);
        else if (d[i])
            em_kernels()->add_f32(d[i], d[i], dy, n);
    }
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    (void)c, (void)index;
    slope[0] = slope[1] = 1;
    return x[0] + x[1];
}

static const struct em_elementwise frame = {
    .inputs = 2,
    .what = {"a", "b"},
    .flops = 1,
    .backward_flops = 2,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_add = {.name = "add", EM_ELEMENTWISE(&frame)};

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
