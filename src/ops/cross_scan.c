// An image read in four directions, and the sum of what came out of them. Liu et al. 2024,
// "VMamba", arXiv:2401.10166. Direction 0 goes along the rows, 1 along the columns, 2 and 3 are 0
// and 1 backwards. Scan: x [T, E] to y [T, 4 E], whose row i has in direction k the pixel that k
// visits as its i-th. Merge: y [T, 4 E] to x [T, E], the sum of the four at each pixel. Each is the
// adjoint of the other, so each one's backward is the other.
#include "kernels/kernels.h"
#include "ops/image.h"

enum { DIRECTIONS = 4 };

struct attr {
    struct em_grid grid;
};

// How n pixels stand in columns: the first `longer` columns have one more than `height`.
struct columns {
    size_t n, width, height, longer;
};

static struct columns columns_of(size_t n, size_t width)
{
    return (struct columns){n, width, n / width, n % width};
}

// The pixel that is visited as the i-th along the columns, and its inverse.
static size_t by_column(const struct columns *g, size_t i)
{
    const size_t in_longer = g->longer * (g->height + 1);
    if (i < in_longer) return i % (g->height + 1) * g->width + i / (g->height + 1);
    i -= in_longer;
    return i % g->height * g->width + g->longer + i / g->height;
}

static size_t place_in_column(const struct columns *g, size_t pixel)
{
    const size_t x = pixel % g->width, y = pixel / g->width;
    return x * g->height + (x < g->longer ? x : g->longer) + y;
}

static ember_status scan_shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    size_t wide;
    if (!em_mul_size(c->in[0]->dim[1], DIRECTIONS, &wide))
        return em_fail(EMBER_E_SHAPE, "cross_scan: x is too wide");
    return em_out_rows(c, 0, EMBER_F32, c->in[0], 1, &wide, 1);
}

static ember_status merge_shape(struct em_call *c)
{
    char text[96];
    EM_TRY(em_check_f32(c, c->in[0], "y", 0));
    if (!c->in[0]->dim[1] || c->in[0]->dim[1] % DIRECTIONS)
        return em_fail(EMBER_E_SHAPE, "cross_merge: y has to be [T, 4 E], not %s",
                       em_shape_text(c->in[0], text, sizeof text));
    const size_t E = c->in[0]->dim[1] / DIRECTIONS;
    return em_out_rows(c, 0, EMBER_F32, c->in[0], 1, &E, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]) + em_elements(c->out[0]);
    *forward = (struct em_cost){n, 4 * n};
    *backward = (struct em_cost){n, 8 * n};
}

// One image: `narrow` [n, E], `wide` [n, 4 E].
struct image {
    struct em_strip narrow, wide;
    size_t first;
    struct columns columns;
    bool add;
};

static void scan_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct image *m = arg;
    const size_t n = m->columns.n, E = m->narrow.width;
    for (size_t i = begin; i < end; i++) {
        const size_t pixel[] = {i, by_column(&m->columns, i), n - 1 - i,
                                by_column(&m->columns, n - 1 - i)};
        float *to = em_strip_row(&m->wide, m->first + i);
        for (unsigned k = 0; k < DIRECTIONS; k++, to += E) {
            const float *from = em_strip_row(&m->narrow, m->first + pixel[k]);
            if (m->add)
                em_kernels()->add_f32(to, to, from, E);
            else
                memcpy(to, from, E * sizeof *to);
        }
    }
}

static void merge_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct image *m = arg;
    const size_t n = m->columns.n, E = m->narrow.width;
    for (size_t p = begin; p < end; p++) {
        const size_t down = place_in_column(&m->columns, p);
        const size_t place[] = {p, down, n - 1 - p, n - 1 - down};
        float *to = em_strip_row(&m->narrow, m->first + p);
        for (unsigned k = 0; k < DIRECTIONS; k++) {
            const float *from = em_strip_row(&m->wide, m->first + place[k]) + k * E;
            if (m->add || k)
                em_kernels()->add_f32(to, to, from, E);
            else
                memcpy(to, from, E * sizeof *to);
        }
    }
}

static void over_images(const struct em_call *c, const ember_tensor *narrow,
                        const ember_tensor *wide, bool add, em_task *task)
{
    struct image m = {.narrow = em_strip_of(narrow), .wide = em_strip_of(wide), .add = add};
    const struct attr *a = em_attr_const(c, struct attr);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        m.first = em_first_row(c, c->in[0], s);
        m.columns = columns_of(em_first_row(c, c->in[0], s + 1) - m.first, a->grid.columns);
        em_parallel(c->exec->pool, m.columns.n, em_row_grain(m.wide.width), task, &m);
    }
}

static void scan_forward(const struct em_call *c)
{
    over_images(c, c->in[0], c->out[0], false, scan_rows);
}

static void scan_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) over_images(c, c->in[0]->grad, c->out[0]->grad, true, merge_rows);
}

static void merge_forward(const struct em_call *c)
{
    over_images(c, c->out[0], c->in[0], false, merge_rows);
}

static void merge_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) over_images(c, c->out[0]->grad, c->in[0]->grad, true, scan_rows);
}

// ---- reference: the four walks as they are described ----

typedef void visit(const struct em_call *c, size_t row, unsigned direction, size_t pixel);

static void walk(const struct em_call *c, visit *f)
{
    const size_t W = em_attr_const(c, struct attr)->grid.columns;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const size_t first = em_first_row(c, c->in[0], s);
        const size_t n = em_first_row(c, c->in[0], s + 1) - first;
        size_t i = 0;
        for (size_t p = 0; p < n; p++) {
            f(c, first + p, 0, first + p);
            f(c, first + n - 1 - p, 2, first + p);
        }
        for (size_t x = 0; x < W; x++)
            for (size_t p = x; p < n; p += W, i++) {
                f(c, first + i, 1, first + p);
                f(c, first + n - 1 - i, 3, first + p);
            }
    }
}

static void scan_visit(const struct em_call *c, size_t row, unsigned direction, size_t pixel)
{
    const size_t E = em_last_dim(c->in[0]);
    for (size_t e = 0; e < E; e++)
        em_row(c->out[0], row)[direction * E + e] = em_row(c->in[0], pixel)[e];
}

static void scan_visit_back(const struct em_call *c, size_t row, unsigned direction, size_t pixel)
{
    const size_t E = em_last_dim(c->in[0]);
    for (size_t e = 0; e < E; e++)
        em_row(c->in[0]->grad, pixel)[e] += em_row(c->out[0]->grad, row)[direction * E + e];
}

static void merge_visit(const struct em_call *c, size_t row, unsigned direction, size_t pixel)
{
    const size_t E = em_last_dim(c->out[0]);
    for (size_t e = 0; e < E; e++)
        em_row(c->out[0], pixel)[e] += em_row(c->in[0], row)[direction * E + e];
}

static void merge_visit_back(const struct em_call *c, size_t row, unsigned direction, size_t pixel)
{
    const size_t E = em_last_dim(c->out[0]);
    for (size_t e = 0; e < E; e++)
        em_row(c->in[0]->grad, row)[direction * E + e] += em_row(c->out[0]->grad, pixel)[e];
}

static void scan_reference(const struct em_call *c)
{
    walk(c, scan_visit);
}

static void scan_reference_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) walk(c, scan_visit_back);
}

static void merge_reference(const struct em_call *c)
{
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        memset(em_row(c->out[0], t), 0, em_last_dim(c->out[0]) * sizeof(float));
    walk(c, merge_visit);
}

static void merge_reference_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) walk(c, merge_visit_back);
}

const struct em_op em_op_cross_scan = {
    .name = "cross_scan",
    .shape = scan_shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(scan_forward, scan_backward),
                [EM_REFERENCE] = EM_PASSES(scan_reference, scan_reference_backward)},
};

const struct em_op em_op_cross_merge = {
    .name = "cross_merge",
    .shape = merge_shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(merge_forward, merge_backward),
                [EM_REFERENCE] = EM_PASSES(merge_reference, merge_reference_backward)},
};

static ember_status record(ember_flow *flow, const struct em_op *op, ember_tensor *x,
                           size_t columns, ember_tensor **y)
{
    const struct em_grid grid = {.columns = columns};
    EM_TRY(em_check_pixels(x, op->name, &grid));
    struct em_call *c = em_call_new(flow, op, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    em_attr(c, struct attr)->grid = grid;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_cross_scan(ember_flow *flow, ember_tensor *x, size_t columns, ember_tensor **y)
{
    return record(flow, &em_op_cross_scan, x, columns, y);
}

ember_status ember_cross_merge(ember_flow *flow, ember_tensor *y, size_t columns, ember_tensor **x)
{
    return record(flow, &em_op_cross_merge, y, columns, x);
}
