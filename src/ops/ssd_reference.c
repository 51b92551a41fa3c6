// Mamba-2's scan token by token, one head after the other, sums in double.
#include "ops/ssd.h"

#include <math.h>

struct head {
    const struct em_call *c;
    const struct em_ssd *a;
    size_t sequence, start, T, j, column; // column: where its group's B and C begin
    double A, D;
    double *h; // [T + 1][N, P]: before each token
    double *g; // [N, P]
};

ember_status em_ssd_reference_scratch(const struct em_call *c, const struct em_ssd *a,
                                      size_t *bytes)
{
    size_t doubles;
    if (!em_mul_size(2 * a->N, a->P, &doubles)) doubles = SIZE_MAX;
    return em_add_scratch(c, c->in[EM_SSD_X]->dim[0] + 2, doubles, bytes);
}

double em_ssd_step(const struct em_ssd *a, double x, double *slope)
{
    const double dt = fmax(x, 0) + log1p(exp(-fabs(x)));
    *slope = dt < a->low || dt > a->high ? 0 : 1 / (1 + exp(-x));
    return fmin(fmax(dt, a->low), a->high);
}

static struct head head_of(const struct em_call *c, size_t s, size_t j)
{
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    const size_t *offset = c->exec->batch->offset;
    return (struct head){.c = c,
                         .a = a,
                         .sequence = s,
                         .start = offset[s],
                         .T = offset[s + 1] - offset[s],
                         .j = j,
                         .column = j / (a->H / a->G) * a->N,
                         .A = -exp((double)em_f32(c->in[EM_SSD_A_LOG])[j]),
                         .D = c->in[EM_SSD_D] ? (double)em_f32(c->in[EM_SSD_D])[j] : 0};
}

static double value(const struct head *k, enum em_ssd_input i, size_t t, size_t column)
{
    return (double)em_row(k->c->in[i], k->start + t)[column];
}

static double step(const struct head *k, size_t t, double *slope)
{
    const ember_tensor *bias = k->c->in[EM_SSD_DT_BIAS];
    return em_ssd_step(k->a, value(k, EM_SSD_DT, t, k->j) + (bias ? (double)em_f32(bias)[k->j] : 0),
                       slope);
}

static void all_states(const struct head *k)
{
    const size_t N = k->a->N, P = k->a->P;
    const struct em_slot *in = em_slot_in(k->c, k->sequence);
    for (size_t i = 0; i < N * P; i++)
        k->h[i] = in ? (double)in->fixed[k->j * N * P + i] : 0;
    for (size_t t = 0; t < k->T; t++) {
        double slope;
        const double dt = step(k, t, &slope), a = exp(dt * k->A);
        for (size_t n = 0; n < N; n++)
            for (size_t p = 0; p < P; p++)
                k->h[((t + 1) * N + n) * P + p] =
                    a * k->h[(t * N + n) * P + p] +
                    dt * value(k, EM_SSD_B, t, k->column + n) * value(k, EM_SSD_X, t, k->j * P + p);
    }
}

static double *take(const struct em_call *c)
{
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    return (double *)(void *)em_take_floats(c, c->in[EM_SSD_X]->dim[0] + 2, 2 * a->N * a->P);
}

void em_ssd_reference_forward(const struct em_call *c)
{
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    const size_t N = a->N, P = a->P;
    double *h = take(c);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t j = 0; j < a->H; j++) {
            struct head k = head_of(c, s, j);
            k.h = h;
            all_states(&k);
            for (size_t t = 0; t < k.T; t++)
                for (size_t p = 0; p < P; p++) {
                    double y = k.D * value(&k, EM_SSD_X, t, j * P + p);
                    for (size_t n = 0; n < N; n++)
                        y += value(&k, EM_SSD_C, t, k.column + n) * h[((t + 1) * N + n) * P + p];
                    em_row(c->out[0], k.start + t)[j * P + p] = (float)y;
                }
            struct em_slot *out = em_slot_out(c, s);
            for (size_t i = 0; out && i < N * P; i++)
                out->fixed[j * N * P + i] = (float)h[k.T * N * P + i];
        }
}

static void add_row(const struct head *k, enum em_ssd_input i, size_t t, size_t column, double v)
{
    if (em_wants(k->c, i)) em_row(k->c->in[i]->grad, k->start + t)[column] += (float)v;
}

static void add_parameter(const struct head *k, enum em_ssd_input i, double v)
{
    if (em_wants(k->c, i)) em_f32(k->c->in[i]->grad)[k->j] += (float)v;
}

static void token_backward(const struct head *k, size_t t)
{
    const size_t N = k->a->N, P = k->a->P;
    const double *before = k->h + t * N * P, *after = before + N * P;
    double slope, ddt = 0, decay = 0;
    const double dt = step(k, t, &slope), a = exp(dt * k->A);
    const float *dy = em_row(k->c->out[0]->grad, k->start + t) + k->j * P;
    for (size_t n = 0; n < N; n++) {
        const double b = value(k, EM_SSD_B, t, k->column + n),
                     c = value(k, EM_SSD_C, t, k->column + n);
        double db = 0, dc = 0;
        for (size_t p = 0; p < P; p++) {
            const double x = value(k, EM_SSD_X, t, k->j * P + p),
                         g = k->g[n * P + p] + (double)dy[p] * c;
            dc += (double)dy[p] * after[n * P + p];
            db += g * dt * x;
            ddt += g * b * x;
            decay += g * a * before[n * P + p];
            add_row(k, EM_SSD_X, t, k->j * P + p, g * dt * b);
            k->g[n * P + p] = g * a;
        }
        add_row(k, EM_SSD_B, t, k->column + n, db);
        add_row(k, EM_SSD_C, t, k->column + n, dc);
    }
    ddt += decay * k->A;
    for (size_t p = 0; p < P; p++) {
        add_row(k, EM_SSD_X, t, k->j * P + p, k->D * (double)dy[p]);
        add_parameter(k, EM_SSD_D, (double)dy[p] * value(k, EM_SSD_X, t, k->j * P + p));
    }
    add_row(k, EM_SSD_DT, t, k->j, ddt * slope);
    add_parameter(k, EM_SSD_DT_BIAS, ddt * slope);
    add_parameter(k, EM_SSD_A_LOG, decay * dt * k->A);
}

void em_ssd_reference_backward(const struct em_call *c)
{
    static const enum em_ssd_input rows[] = {EM_SSD_X, EM_SSD_DT, EM_SSD_B, EM_SSD_C};
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        em_zero_fresh(c, rows[i]);
    double *h = take(c);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t j = 0; j < a->H; j++) {
            struct head k = head_of(c, s, j);
            k.h = h;
            k.g = h + (c->in[EM_SSD_X]->dim[0] + 1) * a->N * a->P;
            all_states(&k);
            memset(k.g, 0, a->N * a->P * sizeof *k.g);
            for (size_t t = k.T; t-- > 0;)
                token_backward(&k, t);
        }
}
