// The mean of each sequence's rows: x [T, D], its tokens or the pixels of its image, to y [S, D].
#include "kernels/kernels.h"
#include "ops/rows.h"

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    return em_out_sequences(c, 0, EMBER_F32, &c->in[0]->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]);
    *forward = (struct em_cost){n, 4 * n};
    *backward = (struct em_cost){2 * n, 8 * n};
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]), y = em_strip_of(c->out[0]);
    for (size_t s = 0; s < y.count; s++) {
        struct em_strip rows = x;
        const size_t first = em_first_row(c, c->in[0], s);
        rows.data = em_strip_row(&x, first);
        rows.count = em_first_row(c, c->in[0], s + 1) - first;
        float *to = em_strip_row(&y, s);
        memset(to, 0, y.width * sizeof *to);
        em_add_column_sums(c->exec->pool, &rows, to);
        em_kernels()->scale_f32(to, to, 1 / (float)rows.count, y.width);
    }
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip dx = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    for (size_t s = 0; s < dy.count; s++) {
        const size_t first = em_first_row(c, c->in[0], s), end = em_first_row(c, c->in[0], s + 1);
        for (size_t r = first; r < end; r++)
            em_kernels()->axpy_f32(em_strip_row(&dx, r), 1 / (float)(end - first),
                                   em_strip_row(&dy, s), dy.width);
    }
}

static void reference(const struct em_call *c, bool back)
{
    for (size_t s = 0; s < c->out[0]->dim[0]; s++) {
        const size_t first = em_first_row(c, c->in[0], s), end = em_first_row(c, c->in[0], s + 1);
        for (size_t j = 0; j < em_last_dim(c->out[0]); j++) {
            double sum = 0;
            for (size_t r = first; r < end; r++) {
                if (!back) sum += (double)em_row(c->in[0], r)[j];
                if (back)
                    em_row(c->in[0]->grad, r)[j] +=
                        (float)((double)em_row(c->out[0]->grad, s)[j] / (double)(end - first));
            }
            if (!back) em_row(c->out[0], s)[j] = (float)(sum / (double)(end - first));
        }
    }
}

static void reference_forward(const struct em_call *c)
{
    reference(c, false);
}

static void reference_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) reference(c, true);
}

const struct em_op em_op_sequence_mean = {
    .name = "sequence_mean",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_sequence_mean(ember_flow *flow, ember_tensor *x, ember_tensor **y)
{
    char text[96];
    size_t each;
    if (!x || x->ndim != 2 || !em_has_sequence_rows(x, &each))
        return em_fail(
            EMBER_E_SHAPE,
            "sequence_mean: x has to be an activation [T, D] with rows of sequences, not "
            "%s",
            x ? em_shape_text(x, text, sizeof text) : "absent");
    struct em_call *c = em_call_new(flow, &em_op_sequence_mean, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
