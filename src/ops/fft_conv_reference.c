// The plain sums of the long convolution, in double.
#include "ops/fft_conv.h"

#include <math.h>

// Signal i of channel c of one sequence; `past` tokens were seen before.
struct view {
    struct em_fft_conv f;
    const struct em_slot *in;
    size_t s, start, T, past, block;
};

static struct view view_of(const struct em_call *c, size_t s)
{
    struct view v = {.f = em_fft_conv_of(c), .s = s, .start = c->exec->batch->offset[s]};
    v.T = c->exec->batch->offset[s + 1] - v.start;
    v.past = em_fft_conv_seen(&v.f, s);
    v.in = v.past ? em_slot_in(c, s) : NULL;
    v.block = v.f.attr.block;
    return v;
}

static size_t channel_of_u(const struct view *v, size_t c, size_t i)
{
    return c / v->f.d * v->f.d + i;
}

static double value(const struct view *v, unsigned input, size_t t, size_t c)
{
    const ember_tensor *x = v->f.call->in[input];
    return x ? (double)em_row(x, v->start + t)[c] : 1;
}

// What went in at token `at` of the whole sequence.
static double signal(const struct view *v, size_t at, size_t c, size_t i)
{
    const size_t cu = channel_of_u(v, c, i);
    if (at >= v->past)
        return value(v, EM_FC_U, at - v->past, cu) * value(v, EM_FC_PRE, at - v->past, c);
    const float *row = v->in->tokens + at % v->block * em_fft_conv_row(&v->f);
    return v->f.d > 1 ? (double)row[cu] * (double)row[v->f.D + c] : (double)row[c];
}

static double tap(const struct view *v, unsigned input, size_t c, size_t j)
{
    const ember_tensor *k = v->f.call->in[input];
    return j < v->f.taps ? (double)em_f32(k)[em_fft_conv_tap(&v->f, k, c / v->f.d, j)] : 0;
}

// The terms of z[t] that are not the skip: k and v of each; `each` gets them.
typedef void term(void *arg, unsigned input, size_t j, size_t at);

static void terms(const struct view *v, size_t t, term *each, void *arg)
{
    const size_t now = v->past + t, taps = v->f.taps;
    if (v->f.attr.circular) {
        const size_t period = v->f.attr.period > v->T ? v->f.attr.period : v->T;
        for (size_t j = 0; j < taps; j++) {
            const size_t at = (t + period - j % period) % period;
            if (at < v->T) each(arg, EM_FC_K, j, at);
        }
        return;
    }
    for (size_t j = 0; j < taps && j <= now; j++)
        each(arg, EM_FC_K, j, now - j);
    for (size_t j = 0; j < v->f.late && now + j < v->past + v->T; j++)
        each(arg, EM_FC_K_REV, j, now + j);
}

struct sum {
    const struct view *v;
    size_t c, i;
    double value;
};

static void add_term(void *arg, unsigned input, size_t j, size_t at)
{
    struct sum *s = arg;
    s->value += tap(s->v, input, s->c, j) * signal(s->v, at, s->c, s->i);
}

static double skip_of(const struct view *v, size_t c)
{
    const ember_tensor *skip = v->f.call->in[EM_FC_SKIP];
    return skip ? (double)em_f32(skip)[c / v->f.d] : 0;
}

static double convolved(const struct view *v, size_t t, size_t c, size_t i)
{
    struct sum s = {v, c, i, 0};
    terms(v, t, add_term, &s);
    return s.value + skip_of(v, c) * signal(v, v->past + t, c, i);
}

static double act(const struct view *v, double z, double *slope)
{
    if (!v->f.attr.gelu) {
        *slope = 1;
        return z;
    }
    const double below = 0.5 * (1 + erf(z * 0.70710678118654752440));
    *slope = below + z * exp(-0.5 * z * z) * 0.39894228040143267794;
    return z * below;
}

// What the blocks that end by now will add to token q: each meets as many tokens after it as it
// has.
static double pending(const struct view *v, size_t now, size_t q, size_t c, size_t i)
{
    double sum = 0;
    size_t at = 0;
    for (size_t rest = now; rest; rest = now - at) {
        size_t size = v->block;
        while (size > rest)
            size /= 2;
        at += size < v->block ? size : rest / size * size; // of the large ones the last is left
        const size_t meets = em_fft_conv_meets(at, v->block);
        for (size_t s = at - meets; q < at + meets && s < at; s++)
            sum += tap(v, EM_FC_K, c, q - s) * signal(v, s, c, i);
    }
    return sum;
}

static void write_state(const struct view *v)
{
    struct em_slot *out = v->f.call->slot >= 0 ? em_slot_out(v->f.call, v->s) : NULL;
    if (!out) return;
    const size_t D = v->f.D, now = v->past + v->T, row = em_fft_conv_row(&v->f),
                 inputs = em_fft_conv_inputs(&v->f);
    const struct em_fft_conv_pending p = em_fft_conv_pending(now, v->block);
    const size_t kept = now < v->block ? now : v->block;
    // Pending sums need inputs that a state continued in place is about to lose.
    for (size_t q = now; q < p.end; q++)
        for (size_t i = 0; i < v->f.d; i++)
            for (size_t c = 0; c < D; c++)
                out->tokens[(q - p.base) * row + inputs + i * D + c] =
                    (float)pending(v, now, q, c, i);
    if (v->in && v->in != out)
        for (size_t r = 0; r < kept && r < v->past; r++)
            memcpy(out->tokens + r * row, v->in->tokens + r * row, inputs * sizeof(float));
    for (size_t t = v->T > v->block ? v->T - v->block : 0; t < v->T; t++) {
        float *to = out->tokens + (v->past + t) % v->block * row;
        for (size_t c = 0; c < D; c++) {
            to[c] = (float)(v->f.d > 1 ? value(v, EM_FC_U, t, c) : signal(v, v->past + t, c, 0));
            if (v->f.d > 1) to[D + c] = (float)value(v, EM_FC_PRE, t, c);
        }
    }
    out->length = kept;
}

void em_fft_conv_reference_forward(const struct em_call *call)
{
    for (size_t s = 0; s < call->exec->batch->n_sequences; s++) {
        const struct view v = view_of(call, s);
        const ember_tensor *saved = call->saved[0];
        for (size_t t = 0; t < v.T; t++)
            for (size_t c = 0; c < v.f.D; c++) {
                double y = 0, slope;
                for (size_t i = 0; i < v.f.d; i++) {
                    const double z = convolved(&v, t, c, i);
                    if (saved)
                        em_f32(saved)[(v.start + t) * saved->stride[0] + i * v.f.D + c] = (float)z;
                    y += value(&v, EM_FC_POST, t, channel_of_u(&v, c, i)) * act(&v, z, &slope);
                }
                em_row(call->out[0], v.start + t)[c] =
                    (float)(y * (double)em_fft_conv_mask(&v.f, s, c));
            }
        write_state(&v);
    }
}

// Gradients of one token's z: to taps and to the signals that went in.
struct spread {
    const struct view *v;
    size_t c, i;
    double dz;
};

static void add_signal(const struct view *v, size_t at, size_t c, size_t i, double ds)
{
    const struct em_call *call = v->f.call;
    if (at < v->past) return;
    const size_t t = at - v->past, cu = channel_of_u(v, c, i);
    if (em_wants(call, EM_FC_U))
        em_row(call->in[EM_FC_U]->grad, v->start + t)[cu] +=
            (float)(ds * value(v, EM_FC_PRE, t, c));
    if (em_wants(call, EM_FC_PRE))
        em_row(call->in[EM_FC_PRE]->grad, v->start + t)[c] +=
            (float)(ds * value(v, EM_FC_U, t, cu));
}

static void spread_term(void *arg, unsigned input, size_t j, size_t at)
{
    const struct spread *s = arg;
    const struct em_call *call = s->v->f.call;
    if (em_wants(call, input)) {
        const ember_tensor *d = call->in[input]->grad;
        em_f32(d)[em_fft_conv_tap(&s->v->f, d, s->c / s->v->f.d, j)] +=
            (float)(s->dz * signal(s->v, at, s->c, s->i));
    }
    add_signal(s->v, at, s->c, s->i, s->dz * tap(s->v, input, s->c, j));
}

static void spread_token(const struct view *v, size_t t, size_t c, size_t i)
{
    const struct em_call *call = v->f.call;
    const size_t cu = channel_of_u(v, c, i);
    const double dy = (double)em_row(call->out[0]->grad, v->start + t)[c] *
                      (double)em_fft_conv_mask(&v->f, v->s, c);
    double slope;
    const double a = act(v, convolved(v, t, c, i), &slope);
    if (em_wants(call, EM_FC_POST))
        em_row(call->in[EM_FC_POST]->grad, v->start + t)[cu] += (float)(dy * a);
    struct spread d = {v, c, i, dy * value(v, EM_FC_POST, t, cu) * slope};
    terms(v, t, spread_term, &d);
    if (em_wants(call, EM_FC_SKIP))
        em_f32(call->in[EM_FC_SKIP]->grad)[c / v->f.d] +=
            (float)(d.dz * signal(v, v->past + t, c, i));
    add_signal(v, v->past + t, c, i, d.dz * skip_of(v, c));
}

void em_fft_conv_reference_backward(const struct em_call *call)
{
    for (unsigned i = 0; i < EM_FC_INPUTS; i++)
        em_zero_fresh(call, i);
    for (size_t s = 0; s < call->exec->batch->n_sequences; s++) {
        const struct view v = view_of(call, s);
        for (size_t t = 0; t < v.T; t++)
            for (size_t c = 0; c < v.f.D; c++)
                for (size_t i = 0; i < v.f.d; i++)
                    spread_token(&v, t, c, i);
    }
}
