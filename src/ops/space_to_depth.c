// Each 2 x 2 pixels become one: x [T, C] on H x W to y [T', 4 C] on ceil(H/2) x ceil(W/2), the four
// in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column), zeros where an odd grid has no
// pixel. Liu et al. 2021, "Swin Transformer", arXiv:2103.14030.
#include "kernels/kernels.h"
#include "ops/image.h"

struct attr {
    struct em_grid grid;
};

static struct em_grid half(const struct em_grid *g)
{
    return (struct em_grid){(g->rows + 1) / 2, (g->columns + 1) / 2};
}

static ember_status shape(struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const struct em_grid out = half(&a->grid);
    size_t wide;
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    if (!em_mul_size(c->in[0]->dim[1], 4, &wide))
        return em_fail(EMBER_E_SHAPE, "space_to_depth: x is too wide");
    em_need_grid(c, c->in[0], &a->grid);
    return em_out_pixels(c, 0, EMBER_F32, out.rows * out.columns, &wide, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

// The row of x that part k of row r of y holds; false where there is none.
static bool source(const struct em_call *c, size_t r, unsigned k, size_t *row)
{
    const struct em_grid *g = &em_attr_const(c, struct attr)->grid, out = half(g);
    const size_t each = out.rows * out.columns, s = r / each, p = r % each;
    const size_t y = p / out.columns * 2 + k % 2, x = p % out.columns * 2 + k / 2;
    if (y >= g->rows || x >= g->columns) return false;
    *row = em_first_row(c, c->in[0], s) + y * g->columns + x;
    return true;
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip x = em_strip_of(c->in[0]), y = em_strip_of(c->out[0]);
    for (size_t r = begin; r < end; r++)
        for (unsigned k = 0; k < 4; k++) {
            size_t from;
            float *to = em_strip_row(&y, r) + k * x.width;
            if (source(c, r, k, &from))
                memcpy(to, em_strip_row(&x, from), x.width * sizeof *to);
            else
                memset(to, 0, x.width * sizeof *to);
        }
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip dx = em_strip_of(c->in[0]->grad), dy = em_strip_of(c->out[0]->grad);
    for (size_t r = begin; r < end; r++)
        for (unsigned k = 0; k < 4; k++) {
            size_t at;
            if (!source(c, r, k, &at)) continue;
            float *to = em_strip_row(&dx, at);
            em_kernels()->add_f32(to, to, em_strip_row(&dy, r) + k * dx.width, dx.width);
        }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], em_last_dim(c->out[0]), forward_rows);
}

static void backward(const struct em_call *c)
{
    if (em_wants(c, 0)) em_over_rows(c, c->out[0]->dim[0], em_last_dim(c->out[0]), backward_rows);
}

// Pixel by pixel of x: where it goes.
static void reference(const struct em_call *c, bool back)
{
    const struct em_grid *g = &em_attr_const(c, struct attr)->grid;
    const size_t C = em_last_dim(c->in[0]), W = (g->columns + 1) / 2, each = (g->rows + 1) / 2 * W;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t y = 0; y < g->rows; y++)
            for (size_t x = 0; x < g->columns; x++) {
                const size_t from = em_first_row(c, c->in[0], s) + y * g->columns + x;
                const size_t to = s * each + y / 2 * W + x / 2, part = (y % 2 + x % 2 * 2) * C;
                for (size_t e = 0; e < C; e++)
                    if (back)
                        em_row(c->in[0]->grad, from)[e] += em_row(c->out[0]->grad, to)[part + e];
                    else
                        em_row(c->out[0], to)[part + e] = em_row(c->in[0], from)[e];
            }
}

static void reference_forward(const struct em_call *c)
{
    for (size_t r = 0; r < c->out[0]->dim[0]; r++)
        memset(em_row(c->out[0], r), 0, em_last_dim(c->out[0]) * sizeof(float));
    reference(c, false);
}

static void reference_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) reference(c, true);
}

const struct em_op em_op_space_to_depth = {
    .name = "space_to_depth",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_space_to_depth(ember_flow *flow, ember_tensor *x, size_t rows, size_t columns,
                                  ember_tensor **y)
{
    const struct em_grid grid = {rows, columns};
    EM_TRY(em_check_pixels(x, "space_to_depth", &grid));
    if (!rows) return em_fail(EMBER_E_RANGE, "space_to_depth: a grid of %zu x %zu", rows, columns);
    struct em_call *c = em_call_new(flow, &em_op_space_to_depth, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->grid = grid;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
