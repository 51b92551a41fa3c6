// How a sequence is cut, and the spectra of kernels for that.
#include "ops/fft_conv.h"

#include "base/sizes.h"

static size_t power_of_2(size_t least)
{
    size_t n = 1;
    while (n < least)
        n *= 2;
    return n;
}

// The longest transform for lags that short: longer ones cost more than segments.
static size_t longest(size_t lags)
{
    return em_max_size(256, 4 * power_of_2(lags));
}

static double work_of(size_t N, size_t segments)
{
    double levels = N > 8192 ? 8 : 4; // and what is not butterflies, more where caches end
    for (size_t n = N; n > 1; n /= 2)
        levels++;
    return levels * (double)N * (double)segments;
}

struct em_fft_conv_plan em_fft_conv_plan_of(const struct em_fft_conv *f, size_t past, size_t T)
{
    struct em_fft_conv_plan p = {.past = past, .T = T};
    p.before = f->attr.circular ? T : em_min_size(f->taps, past + T);
    p.late = f->attr.circular ? T : em_min_size(f->late, T);
    const size_t around = p.late ? p.late - 1 : 0, lags = p.before + around;
    const size_t values =
        em_max_size(past + T, T + em_max_size(p.before - 1, around ? past + around : 0));
    p.N = power_of_2((values + 1) / 2);
    p.A = T;
    if (f->attr.circular) return p;
    const size_t most = longest(lags);
    double best = p.N <= most ? work_of(p.N, 1) : 1e300;
    const struct em_fft_conv_plan whole = p;
    for (size_t N = power_of_2((lags + 1) / 2); N <= most && N <= whole.N; N *= 2) {
        if (2 * N < lags) continue;
        const size_t A = 2 * N - lags + 1;
        const double work = work_of(N, (T + A - 1) / A);
        if (A >= T && whole.N <= N) continue;
        if (work >= best) continue;
        best = work;
        p.N = N;
        p.A = em_min_size(A, T);
    }
    return p;
}

// At least the N of every plan of up to T tokens.
size_t em_fft_conv_most_numbers(const struct em_fft_conv *f, size_t T)
{
    const size_t past = f->causal && f->call->slot >= 0 ? f->taps - 1 : 0;
    const size_t lags = f->attr.circular ? T : em_min_size(f->taps, past + T);
    const size_t late = f->attr.circular ? T : em_min_size(f->late, T);
    const size_t whole = power_of_2((past + T + em_max_size(lags, late) + 1) / 2);
    return f->attr.circular ? whole : em_min_size(whole, longest(lags + late));
}

// ---- spectra ----

static float *value_at(float *work, size_t N, size_t i)
{
    return i < N ? work + em_fft_row(i) : work + em_fft_row(i - N) + EM_FC_LANES;
}

// Lags first, first + 1, ... of a kernel as values at, at + 1, ..., or from `at` downwards with the
// other sign.
static void read_taps(const struct em_fft_conv_group *g, const ember_tensor *k, size_t N,
                      float *work, size_t at, size_t first, size_t count, bool down)
{
    const float *tap = em_f32(k), scale = 1 / (float)N;
    for (size_t j = 0; j < count; j++) {
        float *to = value_at(work, N, down ? at - j : at + j);
        for (size_t lane = 0; lane < g->lanes; lane++) {
            const float x = tap[em_fft_conv_tap(g->f, k, em_fft_conv_head(g, lane), first + j)];
            to[lane] += scale * (down ? -x : x);
        }
    }
}

static void add_taps(const struct em_fft_conv_group *g, const ember_tensor *k, size_t N,
                     float *work, size_t at, size_t first, size_t count, bool down)
{
    float *tap = em_f32(k);
    const float scale = 1 / (float)N;
    for (size_t j = 0; j < count; j++) {
        const float *from = value_at(work, N, down ? at - j : at + j);
        for (size_t lane = 0; lane < g->lanes; lane++)
            tap[em_fft_conv_tap(g->f, k, em_fft_conv_head(g, lane), first + j)] +=
                scale * (down ? -from[lane] : from[lane]);
    }
}

typedef void each_taps(const struct em_fft_conv_group *g, const ember_tensor *k, size_t N,
                       float *work, size_t at, size_t first, size_t count, bool down);

// Where the plan's kernel has its taps among the 2 N values: lag l at l, or at 2 N + l with the
// other sign.
static void place_taps(const struct em_fft_conv_group *g, const struct em_fft_conv_plan *p,
                       bool gradients, float *work, each_taps *each)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *k = c->in[EM_FC_K], *rev = c->in[EM_FC_K_REV];
    if (gradients) {
        k = em_wants(c, EM_FC_K) ? k->grad : NULL;
        rev = rev && em_wants(c, EM_FC_K_REV) ? rev->grad : NULL;
    }
    if (k && !g->f->attr.circular) each(g, k, p->N, work, 0, 0, p->before, false);
    if (rev && p->late) {
        each(g, rev, p->N, work, 0, 0, 1, false);
        if (p->late > 1) each(g, rev, p->N, work, 2 * p->N - 1, 1, p->late - 1, true);
    }
    if (!k || !g->f->attr.circular) return;
    const size_t T = p->T, taps = g->f->taps, period = em_max_size(g->f->attr.period, T);
    for (size_t round = 0; round < taps; round += period) {
        // Lags 0 .. T - 1, and those before 0: -1 is tap period - 1.
        each(g, k, p->N, work, 0, round, em_min_size(T, taps - round), false);
        for (size_t l = 1; l < T; l++)
            if (round + period - l < taps)
                each(g, k, p->N, work, 2 * p->N - l, round + period - l, 1, true);
    }
}

void em_fft_conv_clear(float *work, size_t N)
{
    memset(work, 0, em_fft_floats(N) * sizeof *work);
}

// Channels of their own, a causal kernel that fills half of the values at most: read and written by
// kernels, all threads together.
static bool plain(const struct em_fft_conv_group *g, const struct em_fft_conv_plan *p)
{
    return g->f->d == 1 && g->f->causal && p->before <= p->N && p->N >= EM_FC_LANES;
}

struct taps {
    const struct em_fft_conv_group *g;
    const ember_tensor *k;
    float *work;
    size_t N, count;
};

enum { TAPS = 4096 }; // of a piece

static void read_piece(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct taps *t = arg;
    for (size_t at = begin * TAPS; at < end * TAPS; at += TAPS)
        em_kernels()->fft_read_taps_f32(t->work, t->N, em_f32(t->k) + t->g->channel * t->k->dim[1],
                                        t->k->dim[1], t->g->lanes, t->count, 1 / (float)t->N, at,
                                        em_min_size(at + TAPS, 2 * t->N));
}

static void add_piece(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct taps *t = arg;
    const float scale = 1 / (float)t->N;
    const size_t stop = em_min_size(end * TAPS, t->count);
    if (!t->g->f->attr.tap_rows) {
        em_kernels()->fft_add_taps_f32(em_f32(t->k) + t->g->channel * t->k->dim[1], t->k->dim[1],
                                       t->g->lanes, t->work, t->N, scale, begin * TAPS, stop);
        return;
    }
    for (size_t j = begin * TAPS; j < stop; j++)
        em_kernels()->axpy_f32(em_f32(t->k) + j * t->k->stride[0] + t->g->channel, scale,
                               value_at(t->work, t->N, j), t->g->lanes);
}

static size_t pieces(size_t n)
{
    return (n + TAPS - 1) / TAPS;
}

void em_fft_conv_plan_spectrum(const struct em_fft_conv_group *g, const struct em_fft_conv_plan *p,
                               float *spectrum)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *k = c->in[EM_FC_K];
    struct em_fft_conv_transform t = {
        .call = c, .N = p->N, .parts = {.work = EM_FFT_FORWARD, .x = spectrum}};
    if (!plain(g, p)) {
        em_fft_conv_clear(spectrum, p->N);
        place_taps(g, p, false, spectrum, read_taps);
        em_kernels()->fft_forward_f32(spectrum, p->N);
        return;
    }
    float scale[EM_FC_LANES];
    for (size_t lane = 0; lane < EM_FC_LANES; lane++)
        scale[lane] = 1 / (float)p->N;
    const struct em_fft_rows rows = {.x = em_f32(k) + g->channel,
                                     .gate = scale,
                                     .stride = k->stride[0],
                                     .count = p->before,
                                     .lanes = g->lanes};
    struct taps taps = {g, k, spectrum, p->N, p->before};
    if (g->f->attr.tap_rows)
        t.rows = &rows;
    else
        em_parallel(c->exec->pool, pieces(2 * p->N), 1, read_piece, &taps);
    em_fft_conv_run(&t, EM_FC_ENTER);
    em_fft_conv_run(&t, EM_FC_PARTS);
}

void em_fft_conv_spectrum_gradient(const struct em_fft_conv_group *g,
                                   const struct em_fft_conv_plan *p, float *gradient)
{
    const struct em_call *c = g->f->call;
    if (!plain(g, p)) {
        em_kernels()->fft_inverse_f32(gradient, p->N);
        place_taps(g, p, true, gradient, add_taps);
        return;
    }
    const struct em_fft_conv_transform t = {
        .call = c, .N = p->N, .parts = {.work = EM_FFT_INVERSE, .x = gradient}};
    em_fft_conv_run(&t, EM_FC_PARTS);
    em_fft_conv_run(&t, EM_FC_LEAVE);
    struct taps taps = {g, c->in[EM_FC_K]->grad, gradient, p->N, p->before};
    em_parallel(c->exec->pool, pieces(p->before), 1, add_piece, &taps);
}

void em_fft_conv_spectrum(const struct em_fft_conv_group *g, size_t N, size_t first, size_t count)
{
    em_fft_conv_clear(g->scratch->spectrum, N);
    if (first < g->f->taps)
        read_taps(g, g->f->call->in[EM_FC_K], N, g->scratch->spectrum, 0, first,
                  em_min_size(count, g->f->taps - first), false);
    em_kernels()->fft_forward_f32(g->scratch->spectrum, N);
}
