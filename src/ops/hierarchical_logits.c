// Hierarchical logits: y_te = log softmax(outer_t)[g(e)] + log softmax of inner_t within group
// g(e), G groups of E / G neighbouring experts. Jordan and Jacobs 1994, "Hierarchical Mixtures of
// Experts and the EM Algorithm".
//   douter_g = sum of dy within g - softmax(outer)_g sum dy,
//   dinner_e = dy_e - softmax_g(inner)_e sum of dy within g.
// In double for both backends: a few numbers for each token.
#include <math.h>

#include "ops/rows.h"

enum { OUTER, INNER, INPUTS };

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *outer = c->in[OUTER], *inner = c->in[INNER];
    EM_TRY(em_check_f32(c, outer, "outer", 0));
    EM_TRY(em_check_f32(c, inner, "inner", 0));
    if (outer->ndim != 2 || inner->ndim != 2 || outer->dim[0] != inner->dim[0] ||
        inner->dim[1] % outer->dim[1] || !em_same_rows(outer, inner))
        return em_fail(EMBER_E_SHAPE, "hierarchical_logits: outer is %s, inner is %s",
                       em_shape_text(outer, text[0], sizeof text[0]),
                       em_shape_text(inner, text[1], sizeof text[1]));
    return em_out_like(c, 0, inner);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[OUTER]) + em_elements(c->in[INNER]);
    *forward = (struct em_cost){10 * n, 8 * n};
    *backward = (struct em_cost){15 * n, 12 * n};
}

static double log_sum(const float *x, size_t n)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t G = c->in[OUTER]->dim[1], n = c->in[INNER]->dim[1] / G;
    for (size_t t = begin; t < end; t++) {
        const float *outer = em_row(c->in[OUTER], t), *inner = em_row(c->in[INNER], t);
        const double all = log_sum(outer, G);
        for (size_t g = 0; g < G; g++) {
            const double own = (double)outer[g] - all - log_sum(inner + g * n, n);
            for (size_t e = g * n; e < (g + 1) * n; e++)
                em_row(c->out[0], t)[e] = (float)(own + (double)inner[e]);
        }
    }
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t G = c->in[OUTER]->dim[1], n = c->in[INNER]->dim[1] / G;
    for (size_t t = begin; t < end; t++) {
        const float *outer = em_row(c->in[OUTER], t), *inner = em_row(c->in[INNER], t),
                    *dy = em_row(c->out[0]->grad, t);
        const double all = log_sum(outer, G);
        double total = 0;
        for (size_t e = 0; e < G * n; e++)
            total += (double)dy[e];
        for (size_t g = 0; g < G; g++) {
            const double own = log_sum(inner + g * n, n);
            double sum = 0;
            for (size_t e = g * n; e < (g + 1) * n; e++)
                sum += (double)dy[e];
            for (size_t e = g * n; em_wants(c, INNER) && e < (g + 1) * n; e++)
                em_row(c->in[INNER]->grad, t)[e] +=
                    (float)((double)dy[e] - exp((double)inner[e] - own) * sum);
            if (em_wants(c, OUTER))
                em_row(c->in[OUTER]->grad, t)[g] +=
                    (float)(sum - exp((double)outer[g] - all) * total);
        }
    }
}

static void forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], 16 * c->out[0]->dim[1], forward_rows);
}

static void backward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], 16 * c->out[0]->dim[1], backward_rows);
}

const struct em_op em_op_hierarchical_logits = {
    .name = "hierarchical_logits",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(OUTER) | EM_READS_IN(INNER),
};

ember_status ember_hierarchical_logits(ember_flow *flow, ember_tensor *outer, ember_tensor *inner,
                                       ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_hierarchical_logits, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[OUTER] = outer;
    c->in[INNER] = inner;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
