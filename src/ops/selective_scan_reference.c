// The selective scan in plain loops, one channel after the other, sums in double.
#include "ops/selective_scan.h"

#include <math.h>

// One channel of one sequence.
struct channel {
    const struct em_call *c;
    size_t sequence, start, T, E, N, e, column; // column: where its group's B and C begin
    double *h;                                  // [T + 1, N]: row t is h before token t
    double *g;                                  // [N]
};

static struct channel channel_of(const struct em_call *c, size_t s, size_t e)
{
    const ember_tensor *a = c->in[EM_SCAN_A_LOG];
    const size_t first = em_first_row(c, c->in[EM_SCAN_X], s), E = a->dim[0], N = a->dim[1];
    const size_t groups = em_attr_const(c, struct em_scan_attr)->groups;
    return (struct channel){.c = c,
                            .sequence = s,
                            .start = first,
                            .T = em_first_row(c, c->in[EM_SCAN_X], s + 1) - first,
                            .E = E,
                            .N = N,
                            .e = e,
                            .column = e / (E / groups) * N};
}

ember_status em_scan_reference_scratch(const struct em_call *c, size_t *bytes)
{
    const size_t N = c->in[EM_SCAN_A_LOG]->dim[1];
    return em_add_scratch(c, c->in[EM_SCAN_X]->dim[0] + 2, 2 * N, bytes);
}

static double *take(const struct em_call *c)
{
    const size_t N = c->in[EM_SCAN_A_LOG]->dim[1];
    return (double *)(void *)em_take_floats(c, c->in[EM_SCAN_X]->dim[0] + 2, 2 * N);
}

static double value(const struct channel *k, enum em_scan_input i, size_t t, size_t column)
{
    return (double)em_row(k->c->in[i], k->start + t)[column];
}

static double of_channel(const struct channel *k, enum em_scan_input i, double absent)
{
    return k->c->in[i] ? (double)em_f32(k->c->in[i])[k->e] : absent;
}

static double rate(const struct channel *k, size_t n)
{
    return -exp((double)em_f32(k->c->in[EM_SCAN_A_LOG])[k->e * k->N + n]);
}

// softplus(delta + bias), and its slope there.
static double step(const struct channel *k, size_t t, double *slope)
{
    const double x = value(k, EM_SCAN_DELTA, t, k->e) + of_channel(k, EM_SCAN_DELTA_BIAS, 0);
    *slope = 1 / (1 + exp(-x));
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static double gate(const struct channel *k, size_t t, double *slope)
{
    *slope = 0;
    if (!k->c->in[EM_SCAN_Z]) return 1;
    const double z = value(k, EM_SCAN_Z, t, k->e), p = 1 / (1 + exp(-z));
    *slope = p * (1 + z * (1 - p));
    return z * p;
}

// y before the gate, from the state after token t.
static double ungated(const struct channel *k, size_t t, const double *h)
{
    double y = of_channel(k, EM_SCAN_D, 0) * value(k, EM_SCAN_X, t, k->e);
    for (size_t n = 0; n < k->N; n++)
        y += h[n] * value(k, EM_SCAN_C, t, k->column + n);
    return y;
}

static void all_states(const struct channel *k)
{
    const struct em_slot *in = em_slot_in(k->c, k->sequence);
    for (size_t n = 0; n < k->N; n++)
        k->h[n] = in ? (double)in->fixed[n * k->E + k->e] : 0;
    for (size_t t = 0; t < k->T; t++) {
        double slope;
        const double dt = step(k, t, &slope), x = value(k, EM_SCAN_X, t, k->e);
        for (size_t n = 0; n < k->N; n++)
            k->h[(t + 1) * k->N + n] = exp(dt * rate(k, n)) * k->h[t * k->N + n] +
                                       dt * x * value(k, EM_SCAN_B, t, k->column + n);
    }
}

void em_scan_reference_forward(const struct em_call *c)
{
    double *h = take(c);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t e = 0; e < c->in[EM_SCAN_A_LOG]->dim[0]; e++) {
            struct channel k = channel_of(c, s, e);
            k.h = h;
            all_states(&k);
            for (size_t t = 0; t < k.T; t++) {
                double slope;
                em_row(c->out[0], k.start + t)[e] =
                    (float)(ungated(&k, t, h + (t + 1) * k.N) * gate(&k, t, &slope));
            }
            struct em_slot *out = em_slot_out(c, s);
            for (size_t n = 0; out && n < k.N; n++)
                out->fixed[n * k.E + e] = (float)h[k.T * k.N + n];
        }
}

static void add_row(const struct channel *k, enum em_scan_input i, size_t t, size_t column,
                    double value)
{
    if (em_wants(k->c, i)) em_row(k->c->in[i]->grad, k->start + t)[column] += (float)value;
}

static void add_parameter(const struct channel *k, enum em_scan_input i, size_t at, double value)
{
    if (em_wants(k->c, i)) em_f32(k->c->in[i]->grad)[at] += (float)value;
}

// Token t: k->g is dL/dh of it from later tokens, and becomes that from this one on.
static void token_backward(const struct channel *k, size_t t)
{
    const double *before = k->h + t * k->N, *after = before + k->N;
    double slope, gate_slope, ddt = 0, gb = 0;
    const double dt = step(k, t, &slope), x = value(k, EM_SCAN_X, t, k->e);
    const double dout = (double)em_row(k->c->out[0]->grad, k->start + t)[k->e];
    const double dy = dout * gate(k, t, &gate_slope);
    for (size_t n = 0; n < k->N; n++) {
        const double A = rate(k, n), a = exp(dt * A), b = value(k, EM_SCAN_B, t, k->column + n);
        const double g = k->g[n] + dy * value(k, EM_SCAN_C, t, k->column + n);
        add_row(k, EM_SCAN_C, t, k->column + n, dy * after[n]);
        add_row(k, EM_SCAN_B, t, k->column + n, g * dt * x);
        add_parameter(k, EM_SCAN_A_LOG, k->e * k->N + n, g * dt * a * before[n] * A);
        gb += g * b;
        ddt += g * (x * b + A * a * before[n]);
        k->g[n] = g * a;
    }
    add_row(k, EM_SCAN_X, t, k->e, dt * gb + of_channel(k, EM_SCAN_D, 0) * dy);
    add_row(k, EM_SCAN_DELTA, t, k->e, ddt * slope);
    add_row(k, EM_SCAN_Z, t, k->e, dout * ungated(k, t, after) * gate_slope);
    add_parameter(k, EM_SCAN_D, k->e, dy * x);
    add_parameter(k, EM_SCAN_DELTA_BIAS, k->e, ddt * slope);
}

void em_scan_reference_backward(const struct em_call *c)
{
    static const enum em_scan_input rows[] = {EM_SCAN_X, EM_SCAN_DELTA, EM_SCAN_B, EM_SCAN_C,
                                              EM_SCAN_Z};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        em_zero_fresh(c, rows[i]);
    double *h = take(c);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t e = 0; e < c->in[EM_SCAN_A_LOG]->dim[0]; e++) {
            struct channel k = channel_of(c, s, e);
            k.h = h;
            k.g = h + (c->in[EM_SCAN_X]->dim[0] + 1) * k.N;
            all_states(&k);
            memset(k.g, 0, k.N * sizeof *k.g);
            for (size_t t = k.T; t-- > 0;)
                token_backward(&k, t);
        }
}
