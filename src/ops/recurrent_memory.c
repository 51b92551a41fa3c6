// An LSTM before another cell (mixed memory; Lechner and Hasani 2020, arXiv:2006.04418): z =
// input_map x + bias + recurrent_map h, blocks candidate, input, forget (+ 1), output.
#include <math.h>

#include "ops/recurrent.h"

enum { INPUT_MAP, INPUT_BIAS, RECURRENT_MAP };

static struct em_lstm_gates gates_of(const struct em_memory *m)
{
    return (struct em_lstm_gates){.H = m->U, .place = {1, 2, 0, 3}, .forget_bias = 1};
}

static const float *parameter(const struct em_call *c, const struct em_memory *m, unsigned i)
{
    return em_f32(c->in[m->first + i]);
}

ember_status em_memory_check(const struct em_call *c, const struct em_memory *m)
{
    const size_t U4 = 4 * m->U;
    EM_TRY(em_check_parameter(c, m->first + INPUT_MAP, "input_map", (size_t[]){U4, m->I}, 2));
    EM_TRY(em_check_parameter(c, m->first + INPUT_BIAS, "input_map's bias", &U4, 1));
    return em_check_parameter(c, m->first + RECURRENT_MAP, "recurrent_map", (size_t[]){U4, m->U},
                              2);
}

void em_memory_step(const struct em_step *s, const struct em_memory *m, float *h, float *c,
                    float *work)
{
    const struct em_lstm_gates g = gates_of(m);
    em_kernels()->lanes_product_f32(
        work,
        &(struct em_lanes_product){.w = parameter(s->call, m, INPUT_MAP),
                                   .row_stride = m->I,
                                   .col_stride = 1,
                                   .rows = 4 * m->U,
                                   .columns = m->I,
                                   .bias = parameter(s->call, m, INPUT_BIAS)},
        s->x);
    em_kernels()->lanes_product_f32(
        work,
        &(struct em_lanes_product){.w = parameter(s->call, m, RECURRENT_MAP),
                                   .row_stride = m->U,
                                   .col_stride = 1,
                                   .rows = 4 * m->U,
                                   .columns = m->U,
                                   .add = true},
        s->before);
    em_kernels()->lstm_gates_f32(&g, h, c, work, s->before + m->U * EM_LANES);
}

void em_memory_step_back(const struct em_step *s, const struct em_memory *m, float *dh, float *dc,
                         float *work, float *tap)
{
    const struct em_lstm_gates g = gates_of(m);
    const size_t U = m->U;
    float *dz = tap, *keep_x = em_lanes_at(dz, 4 * U), *keep_h = em_lanes_at(keep_x, m->I);
    em_kernels()->lstm_gates_backward_f32(&g, dz, dc, dh, work, s->before + U * EM_LANES);
    memcpy(keep_x, s->x, m->I * EM_LANES * sizeof *keep_x);
    memcpy(keep_h, s->before, U * EM_LANES * sizeof *keep_h);
    em_kernels()->lanes_product_f32(
        s->dx,
        &(struct em_lanes_product){.w = parameter(s->call, m, INPUT_MAP),
                                   .row_stride = 1,
                                   .col_stride = m->I,
                                   .rows = m->I,
                                   .columns = 4 * U,
                                   .add = true},
        dz);
    em_kernels()->lanes_product_f32(
        dh,
        &(struct em_lanes_product){.w = parameter(s->call, m, RECURRENT_MAP),
                                   .row_stride = 1,
                                   .col_stride = U,
                                   .rows = U,
                                   .columns = 4 * U},
        dz);
}

void em_memory_finish(const struct em_call *c, const struct em_memory *m, const float *taps,
                      size_t at)
{
    const size_t U4 = 4 * m->U;
    em_tap_product(c, taps, at, U4, at + U4, m->I, em_gradient_of(c, m->first + INPUT_MAP));
    em_tap_bias(c, taps, at, U4, em_gradient_of(c, m->first + INPUT_BIAS));
    em_tap_product(c, taps, at, U4, at + U4 + m->I, m->U,
                   em_gradient_of(c, m->first + RECURRENT_MAP));
}

// ---- reference ----

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

// Gates in work [4 U]: candidate, input, forget, output.
void em_memory_reference(const struct em_reference_step *s, const struct em_memory *m, double *h,
                         double *c, double *work)
{
    const float *wi = parameter(s->call, m, INPUT_MAP), *b = parameter(s->call, m, INPUT_BIAS),
                *wr = parameter(s->call, m, RECURRENT_MAP);
    const size_t U = m->U;
    for (size_t i = 0; i < 4 * U; i++) {
        double z = (double)b[i];
        for (size_t k = 0; k < m->I; k++)
            z += (double)wi[i * m->I + k] * s->x[k];
        for (size_t k = 0; k < U; k++)
            z += (double)wr[i * U + k] * s->before[k];
        work[i] = i < U ? tanh(z) : sigmoid(i / U == 2 ? z + 1 : z);
    }
    for (size_t i = 0; i < U; i++) {
        c[i] = s->before[U + i] * work[2 * U + i] + work[i] * work[U + i];
        h[i] = tanh(c[i]) * work[3 * U + i];
    }
}

void em_memory_reference_back(const struct em_reference_step *s, const struct em_memory *m,
                              double *dh, double *dc, double *work)
{
    const struct em_call *call = s->call;
    const float *wi = parameter(call, m, INPUT_MAP), *wr = parameter(call, m, RECURRENT_MAP);
    float *gi = em_gradient_of(call, m->first + INPUT_MAP),
          *gb = em_gradient_of(call, m->first + INPUT_BIAS),
          *gr = em_gradient_of(call, m->first + RECURRENT_MAP);
    const size_t U = m->U;
    const double *a = work, *in = work + U, *f = work + 2 * U, *o = work + 3 * U;
    double *dz = work + 4 * U;
    for (size_t i = 0; i < U; i++) {
        const double c = s->before[U + i] * f[i] + a[i] * in[i], t = tanh(c);
        const double d = dc[i] + dh[i] * o[i] * (1 - t * t);
        dz[i] = d * in[i] * (1 - a[i] * a[i]);
        dz[U + i] = d * a[i] * in[i] * (1 - in[i]);
        dz[2 * U + i] = d * s->before[U + i] * f[i] * (1 - f[i]);
        dz[3 * U + i] = dh[i] * t * o[i] * (1 - o[i]);
        dc[i] = d * f[i];
        dh[i] = 0;
    }
    for (size_t i = 0; i < 4 * U; i++) {
        if (gb) gb[i] += (float)dz[i];
        for (size_t k = 0; k < m->I; k++) {
            s->dx[k] += dz[i] * (double)wi[i * m->I + k];
            if (gi) gi[i * m->I + k] += (float)(dz[i] * s->x[k]);
        }
        for (size_t k = 0; k < U; k++) {
            dh[k] += dz[i] * (double)wr[i * U + k];
            if (gr) gr[i * U + k] += (float)(dz[i] * s->before[k]);
        }
    }
}
