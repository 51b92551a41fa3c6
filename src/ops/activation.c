// Activations: y = act(x), elementwise. The functions' papers stand in <ember/ops.h>.
#include "ops/activation.h"

#include <math.h>

#include "ops/elementwise.h"

struct attr {
    enum em_activation kind;
};

#define SAME(name) _Static_assert((int)EMBER_##name == (int)EM_##name, #name)
SAME(IDENTITY);
SAME(RELU);
SAME(RELU2);
SAME(SILU);
SAME(GELU);
SAME(GELU_TANH);
SAME(SIGMOID);
SAME(TANH);
_Static_assert((int)EMBER_TANH + 1 == (int)EM_ACTIVATIONS, "a kind on one side alone");
#undef SAME

ember_status em_activation_of(const char *op, ember_activation_kind kind,
                              enum em_activation *kernel)
{
    if ((size_t)kind >= EM_ACTIVATIONS)
        return em_fail(EMBER_E_RANGE, "%s: there is no activation number %d", op, (int)kind);
    *kernel = (enum em_activation)kind;
    return EMBER_OK;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double em_activation_reference(enum em_activation kind, double x, double *slope)
{
    double s, inner, inner_slope;
    switch (kind) {
    case EM_RELU: *slope = x > 0; return x > 0 ? x : 0;
    case EM_RELU2: *slope = x > 0 ? 2 * x : 0; return x > 0 ? x * x : 0;
    case EM_SILU:
        s = sigmoid(x);
        *slope = s + x * s * (1 - s);
        return x * s;
    case EM_GELU:
        s = 0.5 * erfc(-x * sqrt(0.5));
        *slope = s + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
        return x * s;
    case EM_GELU_TANH:
        inner = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
        inner_slope = sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
        s = tanh(inner);
        *slope = 0.5 * (1 + s) + 0.5 * x * (1 - s * s) * inner_slope;
        return 0.5 * x * (1 + s);
    case EM_SIGMOID:
        s = sigmoid(x);
        *slope = s * (1 - s);
        return s;
    case EM_TANH:
        s = tanh(x);
        *slope = 1 - s * s;
        return s;
    case EM_IDENTITY:
    case EM_ACTIVATIONS: break;
    }
    *slope = 1;
    return x;
}

static void forward(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n)
{
    (void)first;
    em_kernels()->activation_f32(em_attr_const(c, struct attr)->kind, y, x[0], n);
}

static void backward(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n)
{
    (void)first;
    em_kernels()->activation_backward_f32(em_attr_const(c, struct attr)->kind, d[0], set[0], dy,
                                          x[0], n);
}

static double reference(const struct em_call *c, const double *x, size_t index, double *slope)
{
    (void)index;
    return em_activation_reference(em_attr_const(c, struct attr)->kind, x[0], slope);
}

static const struct em_elementwise frame = {
    .inputs = 1,
    .what = {"x"},
    .flops = 4,
    .backward_flops = 8,
    .forward = forward,
    .backward = EM_TRAINING_ONLY(backward),
    .reference = reference,
};
const struct em_op em_op_activation = {
    .name = "activation", EM_ELEMENTWISE(&frame), .backward_reads = EM_READS_IN(0)};

ember_status ember_activation(ember_flow *flow, ember_tensor *x, ember_activation_kind kind,
                              ember_tensor **y)
{
    enum em_activation kernel;
    EM_TRY(em_activation_of("activation", kind, &kernel));
    struct em_call *c = em_call_new(flow, &em_op_activation, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->kind = kernel;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
