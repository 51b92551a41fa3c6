// The implicit filter in plain loops and double, a row at a time.
#include <math.h>

#include "ops/implicit_filter.h"

// One row on its way through the network.
struct row {
    const struct em_call *c;
    size_t r, E, W, channels, hidden;
    double *before, *after; // [hidden][W]
    double *m, *dm;         // [channels]
    double *dh, *next;      // [max(W, E)]
};

static const float *weights(const struct row *x, size_t i)
{
    return em_f32(x->c->in[EM_FILTER_WEIGHTS + 2 * i]);
}

static double input(const struct row *x, size_t layer, size_t j)
{
    return layer ? x->after[(layer - 1) * x->W + j]
                 : (double)em_row(x->c->in[EM_FILTER_Z], x->r)[j];
}

static size_t input_width(const struct row *x, size_t layer)
{
    return layer ? x->W : x->E;
}

static double frequency(const struct row *x, size_t j)
{
    return (double)em_f32(x->c->in[EM_FILTER_FREQUENCY])[j];
}

static double window(const struct row *x, size_t channel)
{
    const double t = (double)em_f32(x->c->in[EM_FILTER_T])[x->r],
                 delta = (double)em_f32(x->c->in[EM_FILTER_DELTAS])[channel];
    return exp(-t * fabs(delta)) + (double)em_attr_const(x->c, struct em_filter_attr)->shift;
}

static struct row row_of(const struct em_call *c)
{
    struct row x = {.c = c, .hidden = em_filter_hidden(c)};
    x.E = em_last_dim(c->in[EM_FILTER_Z]);
    x.W = em_last_dim(c->in[EM_FILTER_FREQUENCY]);
    x.channels = em_last_dim(c->out[0]);
    const size_t widest = x.W > x.E ? x.W : x.E;
    const size_t doubles = 2 * x.hidden * x.W + 2 * x.channels + 2 * widest;
    double *p = em_scratch_take(em_scratch_of(c), doubles * sizeof *p);
    x.before = p;
    x.after = x.before + x.hidden * x.W;
    x.m = x.after + x.hidden * x.W;
    x.dm = x.m + x.channels;
    x.dh = x.dm + x.channels;
    x.next = x.dh + widest;
    return x;
}

ember_status em_filter_reference_memory(struct em_call *c, size_t channels)
{
    const size_t W = em_last_dim(c->in[EM_FILTER_FREQUENCY]), E = em_last_dim(c->in[EM_FILTER_Z]);
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, 2, 2 * em_filter_hidden(c) * W + 2 * channels + 2 * (W + E), &bytes));
    em_need_scratch(c, bytes);
    return EMBER_OK;
}

// Leaves the windowed row in m, before it is divided; returns the sum of its magnitudes.
static double forward_row(const struct row *x)
{
    for (size_t i = 0; i <= x->hidden; i++) {
        const size_t N = i < x->hidden ? x->W : x->channels, K = input_width(x, i);
        for (size_t n = 0; n < N; n++) {
            double sum = 0;
            for (size_t j = 0; j < K; j++)
                sum += (double)weights(x, i)[n * K + j] * input(x, i, j);
            if (i == x->hidden) {
                x->m[n] = sum * window(x, n);
                continue;
            }
            sum += (double)em_f32(x->c->in[EM_FILTER_WEIGHTS + 2 * i + 1])[n];
            x->before[i * x->W + n] = sum;
            x->after[i * x->W + n] = sin(frequency(x, n) * sum);
        }
    }
    double sum = 0;
    for (size_t n = 0; n < x->channels; n++)
        sum += fabs(x->m[n]);
    return sum;
}

void em_filter_reference(const struct em_call *c)
{
    struct row x = row_of(c);
    const bool normalise = em_attr_const(c, struct em_filter_attr)->normalise;
    for (x.r = 0; x.r < c->out[0]->dim[0]; x.r++) {
        const double sum = forward_row(&x), divisor = normalise && sum > 0 ? sum : 1;
        const float *skip =
            x.r == 0 && c->in[EM_FILTER_SKIP] ? em_f32(c->in[EM_FILTER_SKIP]) : NULL;
        for (size_t n = 0; n < x.channels; n++)
            em_row(c->out[0], x.r)[n] = (float)(x.m[n] / divisor + (skip ? (double)skip[n] : 0));
    }
}

static void output_backward(const struct row *x, double sum)
{
    const bool normalise = em_attr_const(x->c, struct em_filter_attr)->normalise && sum > 0;
    const float *dy = em_row(x->c->out[0]->grad, x->r);
    double mixed = 0;
    for (size_t n = 0; normalise && n < x->channels; n++)
        mixed += (double)dy[n] * x->m[n] / sum;
    for (size_t n = 0; n < x->channels; n++) {
        const double sign = x->m[n] > 0 ? 1 : x->m[n] < 0 ? -1 : 0;
        const double d = normalise ? ((double)dy[n] - sign * mixed) / sum : (double)dy[n];
        x->dm[n] = d * window(x, n);
    }
}

// Gradients of layer i's weights and of its input, from dy [N].
static void layer_backward(const struct row *x, size_t i, const double *dy, size_t N, double *dx)
{
    const unsigned at = (unsigned)(EM_FILTER_WEIGHTS + 2 * i);
    const size_t K = input_width(x, i);
    for (size_t j = 0; j < K; j++)
        dx[j] = 0;
    for (size_t n = 0; n < N; n++) {
        if (i < x->hidden && em_wants(x->c, at + 1))
            em_f32(x->c->in[at + 1]->grad)[n] += (float)dy[n];
        for (size_t j = 0; j < K; j++) {
            if (em_wants(x->c, at))
                em_f32(x->c->in[at]->grad)[n * K + j] += (float)(dy[n] * input(x, i, j));
            dx[j] += dy[n] * (double)weights(x, i)[n * K + j];
        }
    }
}

void em_filter_reference_backward(const struct em_call *c)
{
    struct row x = row_of(c);
    for (size_t n = 0; em_wants(c, EM_FILTER_SKIP) && n < x.channels; n++)
        em_f32(c->in[EM_FILTER_SKIP]->grad)[n] += em_row(c->out[0]->grad, 0)[n];
    for (x.r = 0; x.r < c->out[0]->dim[0]; x.r++) {
        output_backward(&x, forward_row(&x));
        layer_backward(&x, x.hidden, x.dm, x.channels, x.dh);
        for (size_t i = x.hidden; i-- > 0;) {
            for (size_t n = 0; n < x.W; n++) {
                const double a = x.before[i * x.W + n], w = frequency(&x, n),
                             slope = x.dh[n] * cos(w * a);
                if (em_wants(c, EM_FILTER_FREQUENCY))
                    em_f32(c->in[EM_FILTER_FREQUENCY]->grad)[n] += (float)(slope * a);
                x.dh[n] = slope * w;
            }
            layer_backward(&x, i, x.dh, x.W, x.next);
            double *swap = x.dh;
            x.dh = x.next;
            x.next = swap;
        }
        for (size_t j = 0; em_wants(c, EM_FILTER_Z) && j < x.E; j++)
            em_row(c->in[EM_FILTER_Z]->grad, x.r)[j] += (float)x.dh[j];
    }
}
