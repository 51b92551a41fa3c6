// The last row of each sequence: x [T, D], y [S, D].
#include "kernels/kernels.h"
#include "ops/rows.h"

static ember_status shape(struct em_call *c)
{
    char text[96];
    const ember_tensor *x = c->in[0];
    EM_TRY(em_check_f32(c, x, "x", 0));
    if (x->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "last_rows: x has to be [T, D], not %s",
                       em_shape_text(x, text, sizeof text));
    return em_out_sequences(c, 0, EMBER_F32, &x->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]), y = em_strip_of(c->out[0]);
    for (size_t s = 0; s < y.count; s++)
        memcpy(em_strip_row(&y, s), em_strip_row(&x, c->exec->batch->offset[s + 1] - 1),
               y.width * sizeof *y.data);
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip dx = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    for (size_t s = 0; s < dy.count; s++) {
        float *to = em_strip_row(&dx, c->exec->batch->offset[s + 1] - 1);
        em_kernels()->add_f32(to, to, em_strip_row(&dy, s), dy.width);
    }
}

static void reference_forward(const struct em_call *c)
{
    for (size_t s = 0; s < c->out[0]->dim[0]; s++)
        for (size_t j = 0; j < em_last_dim(c->out[0]); j++)
            em_row(c->out[0], s)[j] = em_row(c->in[0], c->exec->batch->offset[s + 1] - 1)[j];
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    for (size_t s = 0; s < c->out[0]->dim[0]; s++)
        for (size_t j = 0; j < em_last_dim(c->out[0]); j++)
            em_row(c->in[0]->grad, c->exec->batch->offset[s + 1] - 1)[j] +=
                em_row(c->out[0]->grad, s)[j];
}

const struct em_op em_op_last_rows = {
    .name = "last_rows",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_last_rows(ember_flow *flow, ember_tensor *x, ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "last_rows", x));
    struct em_call *c = em_call_new(flow, &em_op_last_rows, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
