// Gating: y = act(g) * u, elementwise. SwiGLU and GeGLU: Shazeer 2020, "GLU Variants Improve
// Transformer", arXiv:2002.05202. g and u may be columns of one tensor.
#include "ops/activation.h"
#include "ops/elementwise.h"

struct attr {
    enum em_activation kind;
};

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    (void)first;
    em_kernels()->gated_f32(em_attr_const(c, struct attr)->kind, y, x[0], x[1], n);
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)first;
    em_kernels()->gated_backward_f32(em_attr_const(c, struct attr)->kind, d[0], set[0], d[1],
                                     set[1], dy, x[0], x[1], n);
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    (void)index;
    slope[1] = em_activation_reference(em_attr_const(c, struct attr)->kind, x[0], &slope[0]);
    slope[0] *= x[1];
    return slope[1] * x[1];
}

static const struct em_elementwise frame = {
    .inputs = 2,
    .what = {"g", "u"},
    .flops = 5,
    .backward_flops = 12,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_gated = {
    .name = "gated", EM_ELEMENTWISE(&frame), .backward_reads = EM_READS_IN(0) | EM_READS_IN(1)};

ember_status ember_gated(ember_flow *flow, ember_tensor *g, ember_tensor *u,
                         ember_activation_kind kind, ember_tensor **y)
{
    enum em_activation kernel;
    EM_TRY(em_activation_of("gated", kind, &kernel));
    struct em_call *c = em_call_new(flow, &em_op_gated, 2);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = g;
    c->in[1] = u;
    em_attr(c, struct attr)->kind = kernel;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
