// The backward pass of the long convolution: transforms of the gradients, by the segments of
// forward.
#include "ops/fft_conv_rows.h"

#include "base/sizes.h"

// The group's channels of a gradient that partners share: sums over the lanes of a head.
static void add_partners(const struct em_fft_conv_group *g, const ember_tensor *d, size_t start,
                         size_t count, const float *rows)
{
    for (size_t t = 0; t < count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            em_row(d, start + t)[em_fft_conv_partner(g, lane)] += rows[t * EM_FC_LANES + lane];
}

static ember_tensor *wanted(const struct em_call *c, unsigned i)
{
    return em_wants(c, i) ? c->in[i]->grad : NULL;
}

// dz of a sequence into rows, and post_gate's gradient.
static void begin_backward(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *dy = c->out[0]->grad, *z = c->saved[0], *d = wanted(c, EM_FC_POST);
    const size_t start = c->exec->batch->offset[s], T = em_fft_conv_tokens(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], post[EM_FC_STRETCH * EM_FC_LANES],
        dpost[EM_FC_STRETCH * EM_FC_LANES];
    em_fft_conv_lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += EM_FC_STRETCH) {
        const size_t n = em_min_size(EM_FC_STRETCH, T - t), at = start + t;
        struct em_fft_gradient q = {.v = {.count = n, .lanes = g->lanes},
                                    .dy = em_row(dy, at) + g->channel,
                                    .dy_stride = dy->stride[0],
                                    .mask = mask,
                                    .dz = rows + t * EM_FC_LANES,
                                    .gelu = g->f->attr.gelu};
        q.post = em_fft_conv_post_rows(g, at, n, post, &q.post_stride);
        if (z) {
            q.z = em_f32(z) + at * z->stride[0] + g->i * g->f->D + g->channel;
            q.z_stride = z->stride[0];
        }
        if (d && g->f->d == 1) {
            q.dpost = em_row(d, at) + g->channel, q.dpost_stride = d->stride[0];
        } else if (d) {
            memset(dpost, 0, sizeof dpost);
            q.dpost = dpost, q.dpost_stride = EM_FC_LANES;
        }
        em_kernels()->fft_begin_backward_f32(&q);
        if (d && g->f->d > 1) add_partners(g, d, at, n, dpost);
    }
}

static void end_backward(const struct em_fft_conv_group *g, size_t s, float *dz, const float *dv)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *du = wanted(c, EM_FC_U), *dpre = wanted(c, EM_FC_PRE),
                       *dskip = wanted(c, EM_FC_SKIP);
    const size_t start = c->exec->batch->offset[s], T = em_fft_conv_tokens(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], u[EM_FC_STRETCH * EM_FC_LANES],
        dx[EM_FC_STRETCH * EM_FC_LANES], sum[EM_FC_LANES] = {0};
    em_fft_conv_lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += EM_FC_STRETCH) {
        const size_t n = em_min_size(EM_FC_STRETCH, T - t), at = start + t;
        struct em_fft_gradient q = {.v = em_fft_conv_batch_rows(g, at, n, u),
                                    .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                    .dz = dz + t * EM_FC_LANES,
                                    .dv = dv + t * EM_FC_LANES,
                                    .dskip = dskip ? sum : NULL};
        if (dpre) q.dgate = em_row(dpre, at) + g->channel, q.dgate_stride = dpre->stride[0];
        if (du && g->f->d == 1) {
            q.dx = em_row(du, at) + g->channel, q.dx_stride = du->stride[0];
        } else if (du) {
            memset(dx, 0, sizeof dx);
            q.dx = dx, q.dx_stride = EM_FC_LANES;
        }
        em_kernels()->fft_end_backward_f32(&q);
        if (du && g->f->d > 1) add_partners(g, du, at, n, dx);
    }
    for (size_t lane = 0; dskip && lane < g->lanes; lane++)
        em_f32(dskip)[em_fft_conv_head(g, lane)] += sum[lane];
}

// dv of a sequence, and its part of the kernel's spectrum's gradient.
static void correlate(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                      const float *dz, float *dv, bool taps)
{
    struct em_fft_conv_scratch *x = g->scratch;
    memset(dv, 0, (p->past + p->T) * EM_FC_LANES * sizeof *dv);
    for (size_t t = 0; t < p->T; t += p->A) {
        const struct em_fft_conv_segment q = em_fft_conv_segment_at(p, t);
        const size_t inputs = q.H + q.A + q.F;
        if (taps) em_fft_conv_read(g, s, p, q.input, q.input + inputs, x->other);
        em_kernels()->fft_read_f32(x->work, p->N, q.H,
                                   &(struct em_fft_rows){.x = dz + t * EM_FC_LANES,
                                                         .stride = EM_FC_LANES,
                                                         .count = q.A,
                                                         .lanes = EM_FC_LANES});
        em_kernels()->fft_correlate_f32(x->work, x->other, x->spectrum, taps ? x->gradient : NULL,
                                        p->N);
        em_kernels()->fft_take_f32(dv + q.input * EM_FC_LANES, x->work, p->N, 0, inputs, true);
    }
}

// All of a sequence that is transformed at once; gradients that hold nothing yet are set.
static void backward_fused(const struct em_fft_conv_group *g, size_t s,
                           const struct em_fft_conv_plan *p, bool taps)
{
    const struct em_call *c = g->f->call;
    struct em_fft_conv_scratch *x = g->scratch;
    const ember_tensor *dy = c->out[0]->grad, *z = c->saved[0], *dpost = wanted(c, EM_FC_POST),
                       *du = wanted(c, EM_FC_U), *dpre = wanted(c, EM_FC_PRE),
                       *dskip = wanted(c, EM_FC_SKIP);
    const size_t start = c->exec->batch->offset[s];
    float mask[EM_FC_LANES], skip[EM_FC_LANES], sums[(EM_FC_PIECES + 1) * EM_FC_LANES] = {0};
    em_fft_conv_lane_values(g, s, mask, skip);
    struct em_fft_gradient q = {.v = em_fft_conv_batch_rows(g, start, p->T, NULL),
                                .dy = em_row(dy, start) + g->channel,
                                .dy_stride = dy->stride[0],
                                .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                .mask = mask,
                                .gelu = g->f->attr.gelu,
                                .set_post = em_fresh(c, EM_FC_POST),
                                .set_x = em_fresh(c, EM_FC_U),
                                .set_gate = em_fresh(c, EM_FC_PRE)};
    // One tensor in several places: the first step that gets to it sets it.
    if (c->in[EM_FC_POST] && c->in[EM_FC_POST] == c->in[EM_FC_PRE])
        q.set_post = q.set_post || q.set_gate, q.set_gate = false;
    if (c->in[EM_FC_POST] == c->in[EM_FC_U]) q.set_post = q.set_post || q.set_x, q.set_x = false;
    q.post = em_fft_conv_post_rows(g, start, p->T, NULL, &q.post_stride);
    if (z) {
        q.z = em_f32(z) + start * z->stride[0] + g->channel;
        q.z_stride = z->stride[0];
    }
    if (dpost) q.dpost = em_row(dpost, start) + g->channel, q.dpost_stride = dpost->stride[0];
    if (du) q.dx = em_row(du, start) + g->channel, q.dx_stride = du->stride[0];
    if (dpre) q.dgate = em_row(dpre, start) + g->channel, q.dgate_stride = dpre->stride[0];
    const struct em_fft_conv_transform signal = {
        .call = c, .N = p->N, .parts = {.x = x->other}, .rows = &q.v};
    const struct em_fft_conv_transform t = {
        .call = c,
        .N = p->N,
        .parts = {.work = taps ? EM_FFT_GRADIENTS : EM_FFT_CORRELATE,
                  .x = x->work,
                  .other = x->other,
                  .dk = x->gradient,
                  .k = x->spectrum},
        .gradient = &q,
        .dskip = dskip ? sums : NULL};
    if (taps) em_fft_conv_run(&signal, EM_FC_ENTER);
    for (enum em_fft_conv_step step = EM_FC_ENTER; step <= EM_FC_LEAVE; step++)
        em_fft_conv_run(&t, step);
    for (size_t piece = 0; dskip && piece <= EM_FC_PIECES; piece++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            em_f32(dskip)[g->channel + lane] += sums[piece * EM_FC_LANES + lane];
}

static void backward_group(const struct em_fft_conv_group *g)
{
    const struct em_call *c = g->f->call;
    const bool taps = em_wants(c, EM_FC_K) || em_wants(c, EM_FC_K_REV);
    struct em_fft_conv_scratch *x = g->scratch;
    struct em_fft_conv_plan ready = {0}; // whose spectrum is there, and whose gradient is summed
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const size_t seen = em_fft_conv_seen(g->f, s);
        const struct em_fft_conv_plan p =
            em_fft_conv_plan_of(g->f, em_min_size(seen, g->f->taps - 1), em_fft_conv_tokens(c, s));
        if (memcmp(&p, &ready, sizeof p) != 0) {
            if (ready.N && taps) em_fft_conv_spectrum_gradient(g, &ready, x->gradient);
            em_fft_conv_plan_spectrum(g, &p, x->spectrum);
            if (taps) em_fft_conv_clear(x->gradient, p.N);
            ready = p;
        }
        if (em_fft_conv_fused(g->f, &p)) {
            backward_fused(g, s, &p, taps);
        } else {
            begin_backward(g, s, x->rows);
            correlate(g, s, &p, x->rows, x->more, taps);
            end_backward(g, s, x->rows, x->more + p.past * EM_FC_LANES);
        }
    }
    if (taps) em_fft_conv_spectrum_gradient(g, &ready, x->gradient);
}

// Zeros where what adds will find garbage: in all that is not a row per token, and in the rows of
// sequences that are not transformed at once.
static void zero_rows(const struct em_call *c, const struct em_fft_conv *f, unsigned i)
{
    if (!em_wants(c, i) || !em_fresh(c, i)) return;
    const struct em_strip d = em_strip_of(c->in[i]->grad);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_fft_conv_plan p = em_fft_conv_plan_of(
            f, em_min_size(em_fft_conv_seen(f, s), f->taps - 1), em_fft_conv_tokens(c, s));
        const size_t *offset = c->exec->batch->offset;
        for (size_t t = offset[s]; !em_fft_conv_fused(f, &p) && t < offset[s + 1]; t++)
            memset(em_strip_row(&d, t), 0, d.width * sizeof *d.data);
    }
}

void em_fft_conv_cpu_backward(const struct em_call *c)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    static const unsigned rows[] = {EM_FC_U, EM_FC_PRE, EM_FC_POST},
                          others[] = {EM_FC_K, EM_FC_K_REV, EM_FC_SKIP};
    for (size_t i = 0; i < 3; i++) {
        zero_rows(c, &f, rows[i]);
        em_zero_fresh(c, others[i]);
    }
    em_fft_conv_each_group(c, backward_group, false);
}
