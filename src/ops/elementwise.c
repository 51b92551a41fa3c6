#include "ops/elementwise.h"

ember_status em_elementwise_shape(struct em_call *c)
{
    const struct em_elementwise *e = c->op->elementwise;
    EM_TRY(em_check_f32(c, c->in[0], e->what[0], 0));
    for (unsigned i = 1; i < e->inputs; i++)
        EM_TRY(em_check_same(c, e->what[0], c->in[0], e->what[i], c->in[i]));
    return em_out_like(c, 0, c->in[0]);
}

void em_elementwise_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct em_elementwise *e = c->op->elementwise;
    const double n = em_elements(c->out[0]), inputs = e->inputs;
    double read = 1; // the output's gradient, and what backward says that it reads
    for (unsigned i = 0; i < e->inputs; i++)
        if (c->op->backward_reads & EM_READS_IN(i)) read++;
    *forward = (struct em_cost){e->flops * n, 4 * (inputs + 1) * n};
    *backward = (struct em_cost){e->backward_flops * n, 4 * (read + 2 * inputs) * n};
}

// Whether rows lie one behind the other, so that many of them are one run of numbers.
static bool is_whole(const struct em_strip *s)
{
    return s->stride == s->width;
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_elementwise *e = c->op->elementwise;
    const struct em_strip y = em_strip_of(c->out[0]);
    struct em_strip in[EM_ELEMENTWISE_INPUTS] = {{0}};
    bool whole = is_whole(&y);
    for (unsigned i = 0; i < e->inputs; i++) {
        in[i] = em_strip_of(c->in[i]);
        whole = whole && is_whole(&in[i]);
    }
    const size_t rows = whole ? end - begin : 1, before = em_rows_before(c, c->out[0]);
    for (size_t r = begin; r < end; r += rows) {
        const float *x[EM_ELEMENTWISE_INPUTS] = {NULL};
        for (unsigned i = 0; i < e->inputs; i++)
            x[i] = em_strip_row(&in[i], r);
        e->forward(c, em_strip_row(&y, r), x, (before + r) * y.width, rows * y.width);
    }
}

void em_elementwise_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    em_over_rows(c, y.count, y.width, forward_rows);
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_elementwise *e = c->op->elementwise;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    struct em_strip in[EM_ELEMENTWISE_INPUTS] = {{0}}, gradient[EM_ELEMENTWISE_INPUTS] = {{0}};
    bool set[EM_ELEMENTWISE_INPUTS] = {false}, whole = is_whole(&dy);
    for (unsigned i = 0; i < e->inputs; i++) {
        in[i] = em_strip_of(c->in[i]);
        whole = whole && is_whole(&in[i]);
        if (!em_wants(c, i)) continue;
        gradient[i] = em_strip_of(c->in[i]->grad);
        whole = whole && is_whole(&gradient[i]);
        set[i] = em_fresh(c, i);
    }
    const size_t rows = whole ? end - begin : 1, n = rows * dy.width;
    for (size_t r = begin; r < end; r += rows) {
        const float *x[EM_ELEMENTWISE_INPUTS] = {NULL};
        float *d[EM_ELEMENTWISE_INPUTS] = {NULL};
        for (unsigned i = 0; i < e->inputs; i++) {
            x[i] = em_strip_row(&in[i], r);
            if (em_wants(c, i)) d[i] = em_strip_row(&gradient[i], r);
        }
        e->backward(c, d, set, em_strip_row(&dy, r), x, r * dy.width, n);
    }
}

void em_elementwise_backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    bool wanted = false;
    for (unsigned i = 0; i < c->op->elementwise->inputs; i++)
        wanted |= em_wants(c, i);
    if (wanted) em_over_rows(c, dy.count, dy.width, backward_rows);
}

// f of element j of row r, and its slopes.
static double reference_at(const struct em_call *c, size_t r, size_t j, double *slope)
{
    const struct em_elementwise *e = c->op->elementwise;
    double x[EM_ELEMENTWISE_INPUTS] = {0};
    size_t width = 0;
    for (unsigned i = 0; i < e->inputs; i++) {
        const struct em_strip s = em_strip_of(c->in[i]);
        x[i] = (double)em_strip_row(&s, r)[j];
        width = s.width;
    }
    return e->reference(c, x, (em_rows_before(c, c->out[0]) + r) * width + j, slope);
}

void em_elementwise_reference_forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    double slope[EM_ELEMENTWISE_INPUTS];
    for (size_t r = 0; r < y.count; r++)
        for (size_t j = 0; j < y.width; j++)
            em_strip_row(&y, r)[j] = (float)reference_at(c, r, j, slope);
}

void em_elementwise_reference_backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    double slope[EM_ELEMENTWISE_INPUTS];
    for (unsigned i = 0; i < c->op->elementwise->inputs; i++) {
        if (!em_wants(c, i)) continue;
        const struct em_strip d = em_strip_of(c->in[i]->grad);
        em_zero_fresh(c, i);
        for (size_t r = 0; r < dy.count; r++)
            for (size_t j = 0; j < dy.width; j++) {
                (void)reference_at(c, r, j, slope);
                em_strip_row(&d, r)[j] += (float)((double)em_strip_row(&dy, r)[j] * slope[i]);
            }
    }
}
