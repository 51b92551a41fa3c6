// Gating: y = act(g) * u, elementwise. SwiGLU and GeGLU: Shazeer 2020, "GLU Variants Improve
// Transformer", arXiv:2002.05202. g and u may be columns of one tensor.
#include "ops/activation.h"

struct attr {
    enum em_activation kind;
};

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_same(c, "g", c->in[0], "u", c->in[1]));
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){5 * n, 12 * n};
    *backward = (struct em_cost){12 * n, 28 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), g = em_strip_of(c->in[0]),
                          u = em_strip_of(c->in[1]);
    const enum em_activation kind = em_attr_const(c, struct attr)->kind;
    for (size_t r = begin; r < end; r++)
        em_kernels()->gated_f32(kind, em_strip_row(&y, r), em_strip_row(&g, r), em_strip_row(&u, r),
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
    const struct em_strip g = em_strip_of(c->in[0]), u = em_strip_of(c->in[1]),
                          dy = em_strip_of(c->out[0]->grad);
    const enum em_activation kind = em_attr_const(c, struct attr)->kind;
    struct em_strip d[2];
    for (unsigned i = 0; i < 2; i++)
        if (em_wants(c, i)) d[i] = em_strip_of(c->in[i]->grad);
    for (size_t r = begin; r < end; r++) {
        float *to[2] = {NULL, NULL};
        for (unsigned i = 0; i < 2; i++) {
            if (!em_wants(c, i)) continue;
            to[i] = em_strip_row(&d[i], r);
            if (em_fresh(c, i)) memset(to[i], 0, dy.width * sizeof *to[i]);
        }
        em_kernels()->gated_backward_f32(kind, to[0], to[1], em_strip_row(&dy, r),
                                         em_strip_row(&g, r), em_strip_row(&u, r), dy.width);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    em_over_rows(c, dy.count, dy.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]), g = em_strip_of(c->in[0]),
                          u = em_strip_of(c->in[1]);
    double slope;
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] =
                (float)(em_activation_reference(em_attr_const(c, struct attr)->kind,
                                                (double)em_strip_row(&g, r)[j], &slope) *
                        (double)em_strip_row(&u, r)[j]);
}

static void reference_backward(const struct em_call *c)
{
    const struct em_strip g = em_strip_of(c->in[0]), u = em_strip_of(c->in[1]),
                          dy = em_strip_of(c->out[0]->grad);
    em_zero_fresh(c, 0);
    em_zero_fresh(c, 1);
    for (size_t r = 0; r < dy.count; r++)
        for (size_t j = 0; j < dy.width; j++) {
            const double d = (double)em_strip_row(&dy, r)[j], uj = (double)em_strip_row(&u, r)[j];
            double slope;
            const double a = em_activation_reference(em_attr_const(c, struct attr)->kind,
                                                     (double)em_strip_row(&g, r)[j], &slope);
            if (em_wants(c, 0))
                em_f32(c->in[0]->grad)[r * c->in[0]->grad->stride[0] + j] +=
                    (float)(d * uj * slope);
            if (em_wants(c, 1))
                em_f32(c->in[1]->grad)[r * c->in[1]->grad->stride[0] + j] += (float)(d * a);
        }
}

const struct em_op em_op_gated = {
    .name = "gated",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .backward_reads = EM_READS_IN(0) | EM_READS_IN(1),
    .flags = EM_OP_SETS_FRESH,
};

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
