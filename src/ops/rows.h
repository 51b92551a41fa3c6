// How operations walk tensors. Whatever the shape, a tensor of the flow is rows (its first
// dimension) that may be strided, each of them contiguous: views cut columns and reshape rows,
// nothing else.
#ifndef EM_OPS_ROWS_H
#define EM_OPS_ROWS_H

#include <string.h>

#include "base/alloc.h"
#include "ops/program.h"

// `count` rows of `width` floats, `stride` apart.
struct em_strip {
    float *data;
    size_t count, width, stride;
};

static inline struct em_strip em_strip_of(const ember_tensor *t)
{
    size_t width = 1;
    for (unsigned i = 1; i < t->ndim; i++)
        width *= t->dim[i];
    return (struct em_strip){em_f32(t), t->ndim ? t->dim[0] : 1, width, t->ndim ? t->stride[0] : 1};
}

static inline float *em_strip_row(const struct em_strip *s, size_t r)
{
    return s->data + r * s->stride;
}

// The same memory as vectors along the last axis: [T, H, K] as T*H vectors of K.
struct em_vectors {
    float *data;
    size_t count, width, per_row, stride;
};

static inline struct em_vectors em_vectors_of(const ember_tensor *t)
{
    const struct em_strip s = em_strip_of(t);
    const size_t width = t->ndim >= 2 ? em_last_dim(t) : s.width,
                 per_row = width ? s.width / width : 0;
    return (struct em_vectors){s.data, s.count * per_row, width, per_row, s.stride};
}

static inline float *em_vector(const struct em_vectors *v, size_t i)
{
    if (v->per_row == 1) return v->data + i * v->stride;
    return v->data + i / v->per_row * v->stride + i % v->per_row * v->width;
}

// Rows that make a piece of work worth giving to a thread: some 32 KiB of floats.
static inline size_t em_row_grain(size_t width)
{
    return width && width < 8192 ? 8192 / width : 1;
}

// Runs `task` over `count` rows of `width` floats; its argument is the address of a
// `const struct em_call *`.
static inline void em_over_rows(const struct em_call *c, size_t count, size_t width, em_task *task)
{
    if (count && width) em_parallel(c->exec->pool, count, em_row_grain(width), task, &c);
}

// The sequence that token t of the batch belongs to.
static inline size_t em_sequence_of(const struct em_call *c, size_t t)
{
    const size_t *offset = c->exec->batch->offset;
    size_t s = 0, after = c->exec->batch->n_sequences;
    while (s + 1 < after) {
        const size_t middle = (s + after) / 2;
        if (offset[middle] <= t)
            s = middle;
        else
            after = middle;
    }
    return s;
}

static inline const struct em_call *em_task_call(void *arg)
{
    return *(const struct em_call **)arg;
}

// Bytes of scratch for rows * width floats, as em_scratch_take() counts them, added to *bytes.
static inline ember_status em_add_scratch(const struct em_call *c, size_t rows, size_t width,
                                          size_t *bytes)
{
    size_t n;
    if (!em_mul_size(rows, width, &n) || !em_mul_size(n, sizeof(float), &n) ||
        !em_add_size(n, EM_SCRATCH_ALIGNMENT - 1, &n) ||
        !em_add_size(*bytes, n / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT, bytes))
        return em_fail(EMBER_E_NOMEM, "%s: scratch for %zu rows of %zu does not fit into memory",
                       c->op->name, rows, width);
    return EMBER_OK;
}

static inline float *em_take_floats(const struct em_call *c, size_t rows, size_t width)
{
    return em_scratch_take(em_scratch_of(c), rows * width * sizeof(float));
}

// For a backward that only adds: puts zeros where the gradient holds garbage (EM_OP_SETS_FRESH).
static inline void em_zero_fresh(const struct em_call *c, unsigned i)
{
    if (!em_wants(c, i) || !em_fresh(c, i)) return;
    const struct em_strip d = em_strip_of(c->in[i]->grad);
    for (size_t r = 0; r < d.count; r++)
        memset(em_strip_row(&d, r), 0, d.width * sizeof *d.data);
}

// Costs count elements of outputs and inputs; the row count is the first dimension's at that time.
static inline double em_elements(const ember_tensor *t)
{
    return t ? (double)ember_tensor_count(t) : 0;
}

// Fails unless a and b are f32 tensors of one shape.
static inline ember_status em_check_same(const struct em_call *c, const char *what_a,
                                         const ember_tensor *a, const char *what_b,
                                         const ember_tensor *b)
{
    char shape_a[96], shape_b[96];
    EM_TRY(em_check_f32(c, a, what_a, 0));
    EM_TRY(em_check_f32(c, b, what_b, 0));
    if (!em_same_shape(a, b))
        return em_fail(EMBER_E_SHAPE, "%s: %s is %s, %s is %s", c->op->name, what_a,
                       em_shape_text(a, shape_a, sizeof shape_a), what_b,
                       em_shape_text(b, shape_b, sizeof shape_b));
    if (!em_same_rows(a, b))
        return em_fail(EMBER_E_SHAPE, "%s: %s and %s have rows of different things", c->op->name,
                       what_a, what_b);
    return EMBER_OK;
}

// For recording functions that read the batch beside x: fails unless x is an activation with a row
// per token.
static inline ember_status em_check_token_rows(const ember_flow *flow, const char *op,
                                               const ember_tensor *x)
{
    char shape[96];
    const size_t T = em_flow_options(flow)->max_tokens;
    if (!x || x->ndim < 1 || !em_has_token_rows(x))
        return em_fail(EMBER_E_SHAPE,
                       "%s: x has to be an activation with a row per token (%zu), not %s", op, T,
                       x ? em_shape_text(x, shape, sizeof shape) : "absent");
    return EMBER_OK;
}

// The output's gradient goes to the residual input (em_op.residual), where one is there and wants
// it.
void em_add_residual_gradient(const struct em_call *c);

// sum[j] += the sum of column j, rows in order and in blocks of a fixed size. Parallel over
// columns.
void em_add_column_sums(struct em_pool *pool, const struct em_strip *rows, float *sum);

#endif
