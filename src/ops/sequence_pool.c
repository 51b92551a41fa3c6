// One row for each sequence, made of its rows: x [T, D], its tokens or the pixels of its image, to
// y [S, D]. The first, the last, their mean or their sum.
#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    ember_pool pool;
};

// The rows that count of sequence s, and what each is multiplied by.
static struct em_strip counted(const struct em_call *c, const ember_tensor *x, size_t s,
                               float *factor)
{
    const ember_pool pool = em_attr_const(c, struct attr)->pool;
    struct em_strip rows = em_strip_of(x);
    size_t first = em_first_row(c, c->in[0], s), end = em_first_row(c, c->in[0], s + 1);
    *factor = pool == EMBER_POOL_MEAN ? 1 / (float)(end - first) : 1;
    if (pool == EMBER_POOL_FIRST) end = first + 1;
    if (pool == EMBER_POOL_LAST) first = end - 1;
    rows.data = em_strip_row(&rows, first);
    rows.count = end - first;
    return rows;
}

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
    const struct em_strip y = em_strip_of(c->out[0]);
    for (size_t s = 0; s < y.count; s++) {
        float factor, *to = em_strip_row(&y, s);
        const struct em_strip rows = counted(c, c->in[0], s, &factor);
        memset(to, 0, y.width * sizeof *to);
        em_add_column_sums(c->exec->pool, &rows, to);
        em_kernels()->scale_f32(to, to, factor, y.width);
    }
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    for (size_t s = 0; s < dy.count; s++) {
        float factor;
        const struct em_strip rows = counted(c, c->in[0]->grad, s, &factor);
        for (size_t r = 0; r < rows.count; r++)
            em_kernels()->axpy_f32(em_strip_row(&rows, r), factor, em_strip_row(&dy, s), dy.width);
    }
}

static void reference_forward(const struct em_call *c)
{
    for (size_t s = 0; s < c->out[0]->dim[0]; s++) {
        float factor;
        const struct em_strip rows = counted(c, c->in[0], s, &factor);
        for (size_t j = 0; j < rows.width; j++) {
            double sum = 0;
            for (size_t r = 0; r < rows.count; r++)
                sum += (double)em_strip_row(&rows, r)[j];
            em_row(c->out[0], s)[j] = (float)(factor < 1 ? sum / (double)rows.count : sum);
        }
    }
}

static void reference_backward(const struct em_call *c)
{
    for (size_t s = 0; em_wants(c, 0) && s < c->out[0]->dim[0]; s++) {
        float factor;
        const struct em_strip rows = counted(c, c->in[0]->grad, s, &factor);
        const double share = factor < 1 ? 1 / (double)rows.count : 1;
        for (size_t r = 0; r < rows.count; r++)
            for (size_t j = 0; j < rows.width; j++)
                em_strip_row(&rows, r)[j] += (float)((double)em_row(c->out[0]->grad, s)[j] * share);
    }
}

const struct em_op em_op_sequence_pool = {
    .name = "sequence_pool",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_sequence_pool(ember_flow *flow, ember_tensor *x, ember_pool pool,
                                 ember_tensor **y)
{
    char text[96];
    size_t each;
    if (!x || x->ndim != 2 || !em_has_sequence_rows(x, &each))
        return em_fail(
            EMBER_E_SHAPE,
            "sequence_pool: x has to be an activation [T, D] with rows of sequences, not "
            "%s",
            x ? em_shape_text(x, text, sizeof text) : "absent");
    struct em_call *c = em_call_new(flow, &em_op_sequence_pool, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->pool = pool;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_sequence_mean(ember_flow *flow, ember_tensor *x, ember_tensor **y)
{
    return ember_sequence_pool(flow, x, EMBER_POOL_MEAN, y);
}
