// Sinkhorn's iteration: K = exp(h) of all tokens; r_t = 1 / (T sum_e K_te c_e), c_e = 1 / (E sum_t
// r_t K_te), until c changes by less than the tolerance; y = r K c. So each token gives 1 / T and
// each expert gets 1 / E: a balanced assignment, for choosing by in training. Otherwise y = h.
// Sinkhorn 1967; as a router: Clark et al. 2022, arXiv:2202.01169.
#include <math.h>

#include "ops/rows.h"

struct attr {
    size_t iterations;
    float tolerance;
};

static ember_status shape(struct em_call *c)
{
    const ember_tensor *h = c->in[0];
    EM_TRY(em_check_f32(c, h, "logits", 0));
    if (h->ndim != 2) return em_fail(EMBER_E_SHAPE, "sinkhorn: logits have to be [T, E]");
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, h->dim[0], 2 * (h->dim[1] + 1), &bytes)); // K and r, in double
    EM_TRY(em_add_scratch(c, 3, 2 * h->dim[1], &bytes));
    em_need_scratch(c, bytes + 1024);
    return em_out_like(c, 0, h);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]);
    *forward = (struct em_cost){4 * n * (double)em_attr_const(c, struct attr)->iterations, 8 * n};
    *backward = (struct em_cost){0};
}

// One round; returns the largest relative change of a column's factor.
static double scale_once(const double *K, size_t T, size_t E, double *rows, double *columns,
                         double *sums)
{
    for (size_t e = 0; e < E; e++)
        sums[e] = 0;
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t e = 0; e < E; e++)
            sum += K[t * E + e] * columns[e];
        rows[t] = sum > 0 ? 1 / ((double)T * sum) : 0;
        for (size_t e = 0; e < E; e++)
            sums[e] += rows[t] * K[t * E + e];
    }
    double change = 0;
    for (size_t e = 0; e < E; e++) {
        const double next = sums[e] > 0 ? 1 / ((double)E * sums[e]) : columns[e];
        change = fmax(change, fabs(next - columns[e]) / next);
        columns[e] = next;
    }
    return change;
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[0]->dim[0], E = c->in[0]->dim[1];
    if (!c->exec->training) {
        for (size_t t = 0; t < T; t++)
            memcpy(em_row(c->out[0], t), em_row(c->in[0], t), E * sizeof(float));
        return;
    }
    double *K = em_scratch_take(em_scratch_of(c), T * E * sizeof *K),
           *rows = em_scratch_take(em_scratch_of(c), T * sizeof *rows),
           *columns = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *columns);
    for (size_t t = 0; t < T; t++) { // a row's largest is 1: its own factor takes the rest
        const float *h = em_row(c->in[0], t);
        double most = -INFINITY;
        for (size_t e = 0; e < E; e++)
            most = fmax(most, (double)h[e]);
        for (size_t e = 0; e < E; e++)
            K[t * E + e] = exp((double)h[e] - most);
    }
    for (size_t e = 0; e < E; e++)
        columns[e] = 1;
    for (size_t i = 0; i < a->iterations; i++)
        if (scale_once(K, T, E, rows, columns, columns + E) < (double)a->tolerance) break;
    for (size_t t = 0; t < T; t++)
        for (size_t e = 0; e < E; e++)
            em_row(c->out[0], t)[e] = (float)(rows[t] * K[t * E + e] * columns[e]);
}

const struct em_op em_op_sinkhorn = {
    .name = "sinkhorn",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, NULL}, [EM_REFERENCE] = {forward, NULL}},
};

ember_status ember_sinkhorn(ember_flow *flow, ember_tensor *logits, float tolerance,
                            size_t iterations, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_sinkhorn, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = logits;
    *em_attr(c, struct attr) = (struct attr){iterations, tolerance};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
