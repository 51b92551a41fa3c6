// A gate per head: y[t, h, :] = act(g[t, h]) * u[t, h, :]. g [T, H], u and y [T, H, K].
//   dg = act'(g) (dy . u),  du += act(g) dy.
#include "ops/activation.h"

struct attr {
    enum em_activation kind;
};

// Heads whose gates are computed at a time.
enum { HEADS = 64 };

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *g = c->in[0], *u = c->in[1];
    EM_TRY(em_check_f32(c, g, "g", 0));
    EM_TRY(em_check_f32(c, u, "u", 0));
    bool fits = em_same_rows(g, u) && u->ndim >= 2 && g->ndim + 1 == u->ndim;
    for (unsigned i = 0; fits && i < g->ndim; i++)
        fits = g->dim[i] == u->dim[i];
    if (!fits)
        return em_fail(EMBER_E_SHAPE, "gate_rows: g is %s, u is %s",
                       em_shape_text(g, text[0], sizeof text[0]),
                       em_shape_text(u, text[1], sizeof text[1]));
    return em_out_like(c, 0, u);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), gates = em_elements(c->in[0]);
    *forward = (struct em_cost){n + 4 * gates, 8 * n + 4 * gates};
    *backward = (struct em_cost){4 * n + 8 * gates, 16 * n + 12 * gates};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip y = em_strip_of(c->out[0]), g = em_strip_of(c->in[0]),
                          u = em_strip_of(c->in[1]);
    const enum em_activation kind = em_attr_const(c, struct attr)->kind;
    const size_t K = em_last_dim(c->in[1]);
    float gate[HEADS];
    for (size_t r = begin; r < end; r++)
        for (size_t first = 0; first < g.width; first += HEADS) {
            const size_t n = g.width - first < HEADS ? g.width - first : HEADS;
            em_kernels()->activation_f32(kind, gate, em_strip_row(&g, r) + first, n);
            for (size_t h = 0; h < n; h++)
                em_kernels()->scale_f32(em_strip_row(&y, r) + (first + h) * K,
                                        em_strip_row(&u, r) + (first + h) * K, gate[h], K);
        }
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
    const size_t K = em_last_dim(c->in[1]);
    struct em_strip d[2] = {{0}};
    for (unsigned i = 0; i < 2; i++)
        if (em_wants(c, i)) d[i] = em_strip_of(c->in[i]->grad);
    float gate[HEADS], slope[HEADS];
    for (size_t r = begin; r < end; r++) {
        for (unsigned i = 0; i < 2; i++)
            if (em_wants(c, i) && em_fresh(c, i))
                memset(em_strip_row(&d[i], r), 0, d[i].width * sizeof(float));
        for (size_t first = 0; first < g.width; first += HEADS) {
            const size_t n = g.width - first < HEADS ? g.width - first : HEADS;
            const float *gates = em_strip_row(&g, r) + first;
            em_kernels()->activation_f32(kind, gate, gates, n);
            for (size_t h = 0; h < n; h++) {
                const float *dyh = em_strip_row(&dy, r) + (first + h) * K;
                slope[h] = em_kernels()->dot_f32(dyh, em_strip_row(&u, r) + (first + h) * K, K);
                if (em_wants(c, 1))
                    em_kernels()->axpy_f32(em_strip_row(&d[1], r) + (first + h) * K, gate[h], dyh,
                                           K);
            }
            if (em_wants(c, 0))
                em_kernels()->activation_backward_f32(kind, em_strip_row(&d[0], r) + first, false,
                                                      slope, gates, n);
        }
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
    const size_t K = em_last_dim(c->in[1]);
    double slope;
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] =
                (float)(em_activation_reference(em_attr_const(c, struct attr)->kind,
                                                (double)em_strip_row(&g, r)[j / K], &slope) *
                        (double)em_strip_row(&u, r)[j]);
}

static void reference_backward(const struct em_call *c)
{
    const struct em_strip g = em_strip_of(c->in[0]), u = em_strip_of(c->in[1]),
                          dy = em_strip_of(c->out[0]->grad);
    const size_t K = em_last_dim(c->in[1]);
    em_zero_fresh(c, 0);
    em_zero_fresh(c, 1);
    for (size_t r = 0; r < dy.count; r++)
        for (size_t h = 0; h < g.width; h++) {
            double slope, sum = 0;
            const double a = em_activation_reference(em_attr_const(c, struct attr)->kind,
                                                     (double)em_strip_row(&g, r)[h], &slope);
            for (size_t j = h * K; j < (h + 1) * K; j++) {
                sum += (double)em_strip_row(&dy, r)[j] * (double)em_strip_row(&u, r)[j];
                if (em_wants(c, 1))
                    em_f32(c->in[1]->grad)[r * c->in[1]->grad->stride[0] + j] +=
                        (float)((double)em_strip_row(&dy, r)[j] * a);
            }
            if (em_wants(c, 0))
                em_f32(c->in[0]->grad)[r * c->in[0]->grad->stride[0] + h] += (float)(sum * slope);
        }
}

const struct em_op em_op_gate_rows = {
    .name = "gate_rows",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(0) | EM_READS_IN(1),
    .flags = EM_OP_SETS_FRESH | EM_OP_ROW_WISE,
};

ember_status ember_gate_rows(ember_flow *flow, ember_tensor *g, ember_tensor *u,
                             ember_activation_kind kind, ember_tensor **y)
{
    enum em_activation kernel;
    EM_TRY(em_activation_of("gate_rows", kind, &kernel));
    struct em_call *c = em_call_new(flow, &em_op_gate_rows, 2);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = g;
    c->in[1] = u;
    em_attr(c, struct attr)->kind = kernel;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
