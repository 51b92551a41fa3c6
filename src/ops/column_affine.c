// y = x w + b, each column by itself: w, b [D]. dx = dy w, dw = the column sums of dy x, db those
// of dy.
#include "kernels/kernels.h"
#include "ops/rows.h"

enum { X, W, B, INPUTS };

static ember_status shape(struct em_call *c)
{
    const ember_tensor *x = c->in[X];
    char text[96];
    EM_TRY(em_check_f32(c, x, "x", 0));
    if (x->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "column_affine: x has to be [T, D], not %s",
                       em_shape_text(x, text, sizeof text));
    for (unsigned i = W; i <= B; i++) {
        EM_TRY(em_check_f32(c, c->in[i], i == W ? "w" : "b", x->dim[1]));
        if (c->in[i]->ndim != 1)
            return em_fail(EMBER_E_SHAPE, "column_affine: %s has to be [%zu], not %s",
                           i == W ? "w" : "b", x->dim[1],
                           em_shape_text(c->in[i], text, sizeof text));
    }
    size_t bytes = 0;
    if (em_is_training(c)) EM_TRY(em_add_scratch(c, x->dim[0], x->dim[1], &bytes));
    em_need_scratch(c, bytes);
    return em_out_like(c, 0, x);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){2 * n, 8 * n};
    *backward = (struct em_cost){5 * n, 20 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    for (size_t r = begin; r < end; r++) {
        em_kernels()->mul_f32(em_strip_row(&y, r), em_strip_row(&x, r), em_f32(c->in[W]), x.width);
        em_kernels()->add_f32(em_strip_row(&y, r), em_strip_row(&y, r), em_f32(c->in[B]), x.width);
    }
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]);
    em_over_rows(c, x.count, x.width, forward_rows);
}

static void backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), dy = em_strip_of(c->out[0]->grad);
    if (!x.count) return;
    struct em_strip terms = {em_take_floats(c, x.count, x.width), x.count, x.width, x.width};
    if (em_wants(c, X)) {
        const struct em_strip dx = em_strip_of(c->in[X]->grad);
        for (size_t r = 0; r < x.count; r++)
            if (em_fresh(c, X))
                em_kernels()->mul_f32(em_strip_row(&dx, r), em_strip_row(&dy, r), em_f32(c->in[W]),
                                      x.width);
            else
                em_kernels()->muladd_f32(em_strip_row(&dx, r), em_strip_row(&dy, r),
                                         em_f32(c->in[W]), x.width);
    }
    for (size_t r = 0; em_wants(c, W) && r < x.count; r++)
        em_kernels()->mul_f32(em_strip_row(&terms, r), em_strip_row(&dy, r), em_strip_row(&x, r),
                              x.width);
    if (em_wants(c, W)) em_add_column_sums(c->exec->pool, &terms, em_f32(c->in[W]->grad));
    if (em_wants(c, B)) em_add_column_sums(c->exec->pool, &dy, em_f32(c->in[B]->grad));
}

static void reference_forward(const struct em_call *c)
{
    for (size_t r = 0; r < c->out[0]->dim[0]; r++)
        for (size_t j = 0; j < c->out[0]->dim[1]; j++)
            em_row(c->out[0], r)[j] =
                (float)((double)em_row(c->in[X], r)[j] * (double)em_f32(c->in[W])[j] +
                        (double)em_f32(c->in[B])[j]);
}

static void reference_backward(const struct em_call *c)
{
    em_zero_fresh(c, X);
    for (size_t j = 0; j < c->out[0]->dim[1]; j++) {
        double dw = 0, db = 0;
        for (size_t r = 0; r < c->out[0]->dim[0]; r++) {
            const double dy = (double)em_row(c->out[0]->grad, r)[j];
            dw += dy * (double)em_row(c->in[X], r)[j];
            db += dy;
            if (em_wants(c, X))
                em_row(c->in[X]->grad, r)[j] += (float)(dy * (double)em_f32(c->in[W])[j]);
        }
        if (em_wants(c, W)) em_f32(c->in[W]->grad)[j] += (float)dw;
        if (em_wants(c, B)) em_f32(c->in[B]->grad)[j] += (float)db;
    }
}

const struct em_op em_op_column_affine = {
    .name = "column_affine",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W),
    .flags = EM_OP_SETS_FRESH | EM_OP_ROW_WISE,
};

ember_status ember_column_affine(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                 ember_tensor *b, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_column_affine, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[W] = w;
    c->in[B] = b;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
