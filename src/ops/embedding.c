// Embedding: the batch's tokens looked up in a table, y[t] = table[token[t]]. table [V, D], y [T,
// D]. A frozen row gets no gradient from here.
#include "ops/rows.h"

struct attr {
    ptrdiff_t frozen; // row number, or negative
};

// Columns of one piece of the backward work, a whole number of cache lines.
enum { COLUMNS = 64 };

static ember_status shape(struct em_call *c)
{
    char text[96];
    ember_tensor *table = c->in[0];
    EM_TRY(em_check_f32(c, table, "table", 0));
    if (table->ndim != 2 || !table->dim[0] || !table->dim[1])
        return em_fail(EMBER_E_SHAPE, "embedding: table has to be [V, D], not %s",
                       em_shape_text(table, text, sizeof text));
    if (em_attr(c, struct attr)->frozen >= 0 &&
        (size_t)em_attr(c, struct attr)->frozen >= table->dim[0])
        return em_fail(EMBER_E_RANGE,
                       "embedding: the frozen row %td is outside the table of %zu rows",
                       em_attr(c, struct attr)->frozen, table->dim[0]);
    em_need_vocabulary(c, table->dim[0]);
    return em_out_tokens(c, 0, EMBER_F32, &table->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), table = em_strip_of(c->in[0]);
    const int32_t *tokens = c->exec->batch->tokens;
    for (size_t t = begin; t < end; t++)
        memcpy(em_strip_row(&y, t), em_strip_row(&table, (size_t)tokens[t]),
               y.width * sizeof *y.data);
}

static void forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    em_over_rows(c, y.count, y.width, forward_rows);
}

// Tokens repeat, so rows of the table cannot be given to threads by token: each takes columns of
// all of them, and adds in the tokens' order.
static void backward_columns(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip dy = em_strip_of(c->out[0]->grad), dtable = em_strip_of(c->in[0]->grad);
    const int32_t *tokens = c->exec->batch->tokens;
    const size_t first = begin * COLUMNS,
                 last = end * COLUMNS < dy.width ? end * COLUMNS : dy.width;
    for (size_t t = 0; t < dy.count; t++) {
        if (tokens[t] == em_attr_const(c, struct attr)->frozen) continue;
        const float *restrict from = em_strip_row(&dy, t);
        float *restrict to = em_strip_row(&dtable, (size_t)tokens[t]);
        for (size_t j = first; j < last; j++)
            to[j] += from[j];
    }
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const size_t D = em_last_dim(c->in[0]);
    em_parallel(c->exec->pool, (D + COLUMNS - 1) / COLUMNS, 1, backward_columns, &c);
}

static void reference_forward(const struct em_call *c)
{
    const size_t D = em_last_dim(c->in[0]), T = c->out[0]->dim[0];
    for (size_t t = 0; t < T; t++)
        for (size_t j = 0; j < D; j++)
            em_row(c->out[0], t)[j] = em_row(c->in[0], (size_t)c->exec->batch->tokens[t])[j];
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const size_t D = em_last_dim(c->in[0]), T = c->out[0]->dim[0];
    for (size_t t = 0; t < T; t++)
        for (size_t j = 0; j < D; j++)
            if (c->exec->batch->tokens[t] != em_attr_const(c, struct attr)->frozen)
                em_row(c->in[0]->grad, (size_t)c->exec->batch->tokens[t])[j] +=
                    em_row(c->out[0]->grad, t)[j];
}

const struct em_op em_op_embedding = {
    .name = "embedding",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_embedding(ember_flow *flow, ember_tensor *table, ptrdiff_t frozen_row,
                             ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_embedding, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = table;
    em_attr(c, struct attr)->frozen = frozen_row;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
