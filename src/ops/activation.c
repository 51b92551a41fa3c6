// Activations: y = act(x), elementwise. The functions' papers stand in <ember/ops.h>.
#include "ops/activation.h"

#include <math.h>

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

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){4 * n, 8 * n};
    *backward = (struct em_cost){8 * n, 16 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), x = em_strip_of(c->in[0]);
    const enum em_activation kind = em_attr_const(c, struct attr)->kind;
    for (size_t r = begin; r < end; r++)
        em_kernels()->activation_f32(kind, em_strip_row(&y, r), em_strip_row(&x, r), y.width);
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
    const struct em_strip x = em_strip_of(c->in[0]), dx = em_strip_of(c->in[0]->grad),
                          dy = em_strip_of(c->out[0]->grad);
    const enum em_activation kind = em_attr_const(c, struct attr)->kind;
    for (size_t r = begin; r < end; r++) {
        float *to = em_strip_row(&dx, r);
        if (em_fresh(c, 0)) memset(to, 0, x.width * sizeof *to);
        em_kernels()->activation_backward_f32(kind, to, em_strip_row(&dy, r), em_strip_row(&x, r),
                                              x.width);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    if (em_wants(c, 0)) em_over_rows(c, dy.count, dy.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]), x = em_strip_of(c->in[0]);
    double slope;
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] = (float)em_activation_reference(
                em_attr_const(c, struct attr)->kind, (double)em_strip_row(&x, r)[j], &slope);
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip x = em_strip_of(c->in[0]), dx = em_strip_of(c->in[0]->grad),
                          dy = em_strip_of(c->out[0]->grad);
    double slope;
    em_zero_fresh(c, 0);
    for (size_t r = 0; r < dy.count; r++)
        for (size_t j = 0; j < dy.width; j++) {
            (void)em_activation_reference(em_attr_const(c, struct attr)->kind,
                                          (double)em_strip_row(&x, r)[j], &slope);
            em_strip_row(&dx, r)[j] += (float)((double)em_strip_row(&dy, r)[j] * slope);
        }
}

const struct em_op em_op_activation = {
    .name = "activation",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .backward_reads = EM_READS_IN(0),
    .flags = EM_OP_SETS_FRESH,
};

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
