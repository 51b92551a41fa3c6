// Transforms for convolutions (kernels/fft.h). This file is compiled once per instruction set.
//
// Passes take three levels of the tree at once, or two: 16 vectors in registers. Each is followed
// by its parts, one after the other and to their end, so a part that fits into a cache is read from
// memory once and written once.
#include "kernels/fft.h"
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { ROW = 2 * EM_FFT_LANES, RUN = 64 };

struct complex {
    vf32 re, im;
};

ALWAYS struct complex load(const float *p)
{
    return (struct complex){vf32_load(p), vf32_load(p + EM_FFT_LANES)};
}
ALWAYS void store(float *p, struct complex a)
{
    vf32_store(p, a.re);
    vf32_store(p + EM_FFT_LANES, a.im);
}
ALWAYS struct complex plus(struct complex a, struct complex b)
{
    return (struct complex){vf32_add(a.re, b.re), vf32_add(a.im, b.im)};
}
ALWAYS struct complex minus(struct complex a, struct complex b)
{
    return (struct complex){vf32_sub(a.re, b.re), vf32_sub(a.im, b.im)};
}
ALWAYS struct complex times(struct complex a, struct complex b)
{
    return (struct complex){vf32_fnma(a.im, b.im, vf32_mul(a.re, b.re)),
                            vf32_fma(a.im, b.re, vf32_mul(a.re, b.im))};
}
// a conj(b)
ALWAYS struct complex times_conj(struct complex a, struct complex b)
{
    return (struct complex){vf32_fma(a.im, b.im, vf32_mul(a.re, b.re)),
                            vf32_fnma(a.re, b.im, vf32_mul(a.im, b.re))};
}

// (a, b) become a + w b and a - w b; turned: with i w for w.
ALWAYS void split(struct complex *a, struct complex *b, struct complex w, bool turned)
{
    const struct complex t = times(*b, w), c = *a;
    if (turned) {
        *a = (struct complex){vf32_sub(c.re, t.im), vf32_add(c.im, t.re)};
        *b = (struct complex){vf32_add(c.re, t.im), vf32_sub(c.im, t.re)};
    } else {
        *a = plus(c, t);
        *b = minus(c, t);
    }
}
// The way back, but for a factor of 2: a + b and (a - b) / w.
ALWAYS void join(struct complex *a, struct complex *b, struct complex w, bool turned)
{
    const struct complex t = turned ? minus(*b, *a) : minus(*a, *b);
    *a = plus(*a, *b);
    if (turned)
        *b = (struct complex){vf32_fnma(t.im, w.re, vf32_mul(t.re, w.im)),
                              vf32_fma(t.im, w.im, vf32_mul(t.re, w.re))};
    else
        *b = times_conj(t, w);
}

struct factors {
    struct complex w[4];
};
ALWAYS struct factors broadcast(const float *f)
{
    struct factors r;
    UNROLL
    for (int i = 0; i < 4; i++)
        r.w[i] = (struct complex){vf32_set1(f[2 * i]), vf32_set1(f[2 * i + 1])};
    return r;
}

// `radix` numbers down the tree by one level to three; the first level, and the others.
ALWAYS void down_rest(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2, quarter = radix / 4;
    UNROLL
    for (int i = 0; i < quarter; i++) {
        split(&x[i], &x[i + quarter], f->w[1], false);
        split(&x[half + i], &x[half + i + quarter], f->w[1], true);
    }
    if (radix < 8) return;
    split(&x[0], &x[1], f->w[2], false);
    split(&x[2], &x[3], f->w[2], true);
    split(&x[4], &x[5], f->w[3], false);
    split(&x[6], &x[7], f->w[3], true);
}

ALWAYS void down(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2;
    UNROLL
    for (int i = 0; i < half; i++)
        split(&x[i], &x[i + half], f->w[0], false);
    down_rest(x, radix, f);
}

ALWAYS void up_rest(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2, quarter = radix / 4;
    if (radix == 8) {
        join(&x[0], &x[1], f->w[2], false);
        join(&x[2], &x[3], f->w[2], true);
        join(&x[4], &x[5], f->w[3], false);
        join(&x[6], &x[7], f->w[3], true);
    }
    UNROLL
    for (int i = 0; i < quarter; i++) {
        join(&x[i], &x[i + quarter], f->w[1], false);
        join(&x[half + i], &x[half + i + quarter], f->w[1], true);
    }
}

ALWAYS void up(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2;
    up_rest(x, radix, f);
    UNROLL
    for (int i = 0; i < half; i++)
        join(&x[i], &x[i + half], f->w[0], false);
}

// One pass over columns [begin, end) of the n numbers from number `first` of x on; there are n /
// radix columns.
ALWAYS void pass(float *x, size_t first, size_t n, int radix, bool forward, const float *factors,
                 size_t begin, size_t end)
{
    const size_t step = n / (size_t)radix;
    const struct factors f = broadcast(factors);
    for (size_t j = begin, run; j < end; j += run) {
        run = RUN - j % RUN < end - j ? RUN - j % RUN : end - j;
        float *p[8];
        UNROLL
        for (int m = 0; m < radix; m++)
            p[m] = x + em_fft_row(first + (size_t)m * step + j);
        for (size_t at = 0; at < run * ROW; at += ROW)
            for (size_t v = 0; v < EM_FFT_LANES; v += VF32_LANES) {
                struct complex a[8];
                UNROLL
                for (int m = 0; m < radix; m++)
                    a[m] = load(p[m] + at + v);
                if (forward)
                    down(a, radix, &f);
                else
                    up(a, radix, &f);
                UNROLL
                for (int m = 0; m < radix; m++)
                    store(p[m] + at + v, a[m]);
            }
    }
}

ALWAYS void pass_any(float *x, size_t first, size_t n, int radix, bool forward, const float *f,
                     size_t begin, size_t end)
{
    if (radix == 8)
        pass(x, first, n, 8, forward, f, begin, end);
    else if (radix == 4)
        pass(x, first, n, 4, forward, f, begin, end);
    else
        pass(x, first, n, 2, forward, f, begin, end);
}

__attribute__((noinline)) static void pass_down(float *x, size_t first, size_t n, int radix,
                                                const float *f, size_t begin, size_t end)
{
    pass_any(x, first, n, radix, true, f, begin, end);
}

__attribute__((noinline)) static void pass_up(float *x, size_t first, size_t n, int radix,
                                              const float *f, size_t begin, size_t end)
{
    pass_any(x, first, n, radix, false, f, begin, end);
}

static const float *factors_of(unsigned depth, size_t node, float own[8])
{
    const float *level = em_fft_level(depth);
    if (level) return level + node * 8;
    em_fft_factors(depth, node, own);
    return own;
}

static int radix_of(size_t n)
{
    return (int)em_fft_parts(n);
}

static unsigned levels_of(int radix)
{
    return radix == 8 ? 3 : radix == 4 ? 2 : 1;
}

enum work {
    FORWARD = EM_FFT_FORWARD,
    INVERSE = EM_FFT_INVERSE,
    CONVOLVE = EM_FFT_CONVOLVE,
    CORRELATE = EM_FFT_CORRELATE,
    GRADIENTS = EM_FFT_GRADIENTS
};

struct job {
    float *x, *other; // GRADIENTS: of the output, and the signal
    const float *k;
    float *dk;
};

ALWAYS void get(struct complex *a, int n, const float *from)
{
    UNROLL
    for (int m = 0; m < n; m++)
        a[m] = load(from + (size_t)m * ROW);
}

// Down, product, up, of n <= 8 neighbours.
ALWAYS void leaf(const struct job *f, size_t first, int n, enum work work, const float *factors)
{
    const struct factors w = broadcast(factors);
    const size_t at = em_fft_row(first);
    for (size_t v = at; v < at + EM_FFT_LANES; v += VF32_LANES) {
        struct complex x[8];
        get(x, n, f->x + v);
        if (work != INVERSE && n > 1) down(x, n, &w);
        if (work == GRADIENTS) {
            struct complex s[8];
            get(s, n, f->other + v);
            if (n > 1) down(s, n, &w);
            UNROLL
            for (int m = 0; m < n; m++) {
                float *to = f->dk + v + (size_t)m * ROW;
                store(to, plus(load(to), times_conj(x[m], s[m])));
            }
        }
        if (work == CONVOLVE || work == CORRELATE || work == GRADIENTS) {
            UNROLL
            for (int m = 0; m < n; m++) {
                const struct complex k = load(f->k + v + (size_t)m * ROW);
                x[m] = work == CONVOLVE ? times(x[m], k) : times_conj(x[m], k);
            }
        }
        if (work != FORWARD && n > 1) up(x, n, &w);
        UNROLL
        for (int m = 0; m < n; m++)
            store(f->x + v + (size_t)m * ROW, x[m]);
    }
}

ALWAYS void leaves(const struct job *f, size_t first, size_t n, enum work work, const float *w)
{
    if (n == 8)
        leaf(f, first, 8, work, w);
    else if (n == 4)
        leaf(f, first, 4, work, w);
    else if (n == 2)
        leaf(f, first, 2, work, w);
    else
        leaf(f, first, 1, work, w);
}

static void node(const struct job *f, size_t first, size_t n, unsigned depth, enum work work)
{
    float own[8];
    const float *w = factors_of(depth, first / n, own);
    if (n <= 8) {
        switch (work) {
        case FORWARD: leaves(f, first, n, FORWARD, w); break;
        case INVERSE: leaves(f, first, n, INVERSE, w); break;
        case CONVOLVE: leaves(f, first, n, CONVOLVE, w); break;
        case CORRELATE: leaves(f, first, n, CORRELATE, w); break;
        case GRADIENTS: leaves(f, first, n, GRADIENTS, w); break;
        }
        return;
    }
    const int radix = radix_of(n);
    const size_t part = n / (size_t)radix;
    if (work != INVERSE) pass_down(f->x, first, n, radix, w, 0, part);
    if (work == GRADIENTS) pass_down(f->other, first, n, radix, w, 0, part);
    for (size_t m = 0; m < (size_t)radix; m++)
        node(f, first + m * part, part, depth + levels_of(radix), work);
    if (work != FORWARD) pass_up(f->x, first, n, radix, w, 0, part);
}

// N a power of two. Down and up again multiply by N.
void EM_K(fft_forward_f32)(float *x, size_t N)
{
    node(&(struct job){.x = x}, 0, N, 0, FORWARD);
}

void EM_K(fft_inverse_f32)(float *x, size_t N)
{
    node(&(struct job){.x = x}, 0, N, 0, INVERSE);
}

// x = N x * k, where k has been transformed.
void EM_K(fft_convolve_f32)(float *x, const float *k, size_t N)
{
    node(&(struct job){.x = x, .k = k}, 0, N, 0, CONVOLVE);
}

// With gradients g of a convolution's output, the signal s that went in, and the spectrum of k:
// g = N times the signal's gradient, dk += the spectrum's gradient, and s = garbage. dk NULL: none
// is wanted, and s is not looked at.
void EM_K(fft_correlate_f32)(float *g, float *s, const float *k, float *dk, size_t N)
{
    node(&(struct job){.x = g, .other = s, .k = k, .dk = dk}, 0, N, 0, dk ? GRADIENTS : CORRELATE);
}

// The same in steps that threads may share: the first pass or the last one over columns [begin,
// end) of N / em_fft_parts(N), and what is between them of parts [begin, end) of em_fft_parts(N).
void EM_K(fft_pass_f32)(float *x, size_t N, bool forward, size_t begin, size_t end)
{
    float own[8];
    const float *w = factors_of(0, 0, own);
    if (forward)
        pass_down(x, 0, N, radix_of(N), w, begin, end);
    else
        pass_up(x, 0, N, radix_of(N), w, begin, end);
}

void EM_K(fft_parts_f32)(const struct em_fft_parts *p, size_t N, size_t begin, size_t end)
{
    const struct job f = {.x = p->x, .other = p->other, .k = p->k, .dk = p->dk};
    const int radix = radix_of(N);
    const size_t part = N / (size_t)radix;
    for (size_t m = begin; m < end; m++)
        node(&f, m * part, part, levels_of(radix), (enum work)p->work);
}

// ---- passes that read sequences, or leave them ----

ALWAYS vf32 load_part(const float *x, size_t n, bool full)
{
    return full ? vf32_load(x) : vf32_load_n(x, n);
}

ALWAYS void store_part(float *x, vf32 a, size_t n, bool full)
{
    if (full)
        vf32_store(x, a);
    else
        vf32_store_n(x, a, n);
}

ALWAYS vf32 signal_at(const struct em_fft_rows *r, size_t t, size_t v, size_t n, bool full)
{
    const vf32 x = load_part(r->x + t * r->stride + v, n, full);
    return r->gate ? vf32_mul(x, load_part(r->gate + t * r->gate_stride + v, n, full)) : x;
}

// Phi(z), the normal distribution's.
ALWAYS vf32 below(vf32 z)
{
    const vf32 half = vf32_set1(0.5f);
    return vf32_fma(half, vf32_erf(vf32_mul(z, vf32_set1(0.70710678118654752f))), half);
}

// dz of a row, and what post_gate's gradient gets.
ALWAYS vf32 begin_row(const struct em_fft_gradient *g, size_t t, size_t v, size_t n, bool full,
                      bool gelu, bool post)
{
    const vf32 dy =
        vf32_mul(load_part(g->dy + t * g->dy_stride + v, n, full), load_part(g->mask + v, n, full));
    vf32 dz = dy;
    if (g->post) dz = vf32_mul(dy, load_part(g->post + t * g->post_stride + v, n, full));
    if (!gelu && !(post && g->dpost)) return dz;
    vf32 act = load_part(g->z + t * g->z_stride + v, n, full);
    if (gelu) { // act' = Phi(z) + z phi(z)
        const vf32 z = act, phi = below(z);
        const vf32 bell = vf32_mul(vf32_set1(0.39894228040143268f),
                                   vf32_exp(vf32_mul(vf32_mul(z, z), vf32_set1(-0.5f))));
        act = vf32_mul(z, phi);
        dz = vf32_mul(dz, vf32_fma(z, bell, phi));
    }
    if (post && g->dpost) {
        float *to = g->dpost + t * g->dpost_stride + v;
        const vf32 d = vf32_mul(dy, act);
        store_part(to, g->set_post ? d : vf32_add(load_part(to, n, full), d), n, full);
    }
    return dz;
}

ALWAYS void finish_row(const struct em_fft_finish *f, size_t t, size_t v, size_t n, bool full,
                       bool gelu, vf32 z)
{
    if (f->skip) z = vf32_fma(load_part(f->skip + v, n, full), signal_at(&f->v, t, v, n, full), z);
    if (f->z) store_part(f->z + t * f->z_stride + v, z, n, full);
    if (gelu) z = vf32_mul(z, below(z));
    z = vf32_mul(z, load_part(f->mask + v, n, full));
    if (f->post) z = vf32_mul(z, load_part(f->post + t * f->post_stride + v, n, full));
    store_part(f->y + t * f->y_stride + v, z, n, full);
}

ALWAYS void end_row(const struct em_fft_gradient *g, size_t t, size_t v, size_t n, bool full,
                    bool gelu, vf32 ds)
{
    const struct em_fft_rows *r = &g->v;
    if (g->skip || g->dskip) {
        const vf32 dz = begin_row(g, t, v, n, full, gelu, false);
        if (g->skip) ds = vf32_fma(load_part(g->skip + v, n, full), dz, ds);
        if (g->dskip)
            store_part(g->dskip + v,
                       vf32_fma(dz, signal_at(r, t, v, n, full), load_part(g->dskip + v, n, full)),
                       n, full);
    }
    if (g->dx) {
        float *to = g->dx + t * g->dx_stride + v;
        vf32 d = ds;
        if (r->gate) d = vf32_mul(ds, load_part(r->gate + t * r->gate_stride + v, n, full));
        store_part(to, g->set_x ? d : vf32_add(load_part(to, n, full), d), n, full);
    }
    if (g->dgate) {
        float *to = g->dgate + t * g->dgate_stride + v;
        const vf32 d = vf32_mul(ds, load_part(r->x + t * r->stride + v, n, full));
        store_part(to, g->set_gate ? d : vf32_add(load_part(to, n, full), d), n, full);
    }
}

// What the first pass reads, or the last one writes: values of sequences (rows, and finish when
// they leave), or gradients.
struct edge {
    const struct em_fft_rows *rows;
    const struct em_fft_finish *finish;
    const struct em_fft_gradient *gradient; // NULL: values
};

// The first level of the way down, of real values; and the last one of the way up to them.
ALWAYS void down_real(struct complex *a, int radix, struct complex w)
{
    const int half = radix / 2;
    const vf32 minus_im = vf32_neg(w.im);
    UNROLL
    for (int m = 0; m < half; m++) {
        const vf32 low = a[m].re, high = a[m + half].re, turned = vf32_mul(w.re, high);
        a[m] = (struct complex){vf32_add(low, turned), vf32_mul(w.im, high)};
        a[m + half] = (struct complex){vf32_sub(low, turned), vf32_mul(minus_im, high)};
    }
}

ALWAYS void up_real(struct complex *a, int radix, struct complex w)
{
    const int half = radix / 2;
    UNROLL
    for (int m = 0; m < half; m++) {
        const struct complex d = minus(a[m], a[m + half]);
        a[m].re = vf32_add(a[m].re, a[m + half].re);
        a[m + half].re = vf32_fma(d.im, w.im, vf32_mul(d.re, w.re));
    }
}

// Down by the first pass, from rows; or up by the last one, as far as there are rows.
ALWAYS void edge_pass(float *x, size_t N, int radix, bool forward, const struct edge *e,
                      size_t begin, size_t end, bool full, bool gelu)
{
    float own[8];
    const struct factors f = broadcast(factors_of(0, 0, own));
    const struct em_fft_rows *r = e->rows;
    const size_t step = N / (size_t)radix, count = r->count,
                 lanes = forward ? EM_FFT_LANES : r->lanes;
    for (size_t j = begin, run; j < end; j += run) {
        run = RUN - j % RUN < end - j ? RUN - j % RUN : end - j;
        size_t have[8];
        UNROLL
        for (int m = 0; m < radix; m++) {
            const size_t t = (size_t)m * step + j;
            have[m] = t < count ? count - t : 0;
        }
        for (size_t i = 0; i < run; i++)
            for (size_t v = 0; v < lanes; v += VF32_LANES) {
                const size_t left = r->lanes > v ? r->lanes - v : 0,
                             n = left < VF32_LANES ? left : VF32_LANES;
                struct complex a[8];
                UNROLL
                for (int m = 0; m < radix; m++) {
                    const size_t t = (size_t)m * step + j + i;
                    if (!forward)
                        a[m] = load(x + em_fft_row((size_t)m * step + j) + i * ROW + v);
                    else if (i >= have[m])
                        a[m].re = vf32_zero();
                    else
                        a[m].re = e->gradient ? begin_row(e->gradient, t, v, n, full, gelu, true)
                                              : signal_at(r, t, v, n, full);
                }
                if (forward) {
                    down_real(a, radix, f.w[0]);
                    down_rest(a, radix, &f);
                } else {
                    up_rest(a, radix, &f);
                    up_real(a, radix, f.w[0]);
                }
                UNROLL
                for (int m = 0; m < radix; m++) {
                    const size_t t = (size_t)m * step + j + i;
                    if (forward)
                        store(x + em_fft_row((size_t)m * step + j) + i * ROW + v, a[m]);
                    else if (i >= have[m])
                        continue;
                    else if (e->gradient)
                        end_row(e->gradient, t, v, n, full, gelu, a[m].re);
                    else
                        finish_row(e->finish, t, v, n, full, gelu, a[m].re);
                }
            }
    }
}

ALWAYS void edge_of_radix(float *x, size_t N, int radix, bool forward, const struct edge *e,
                          size_t begin, size_t end, bool gelu)
{
    if (e->rows->lanes == EM_FFT_LANES)
        edge_pass(x, N, radix, forward, e, begin, end, true, gelu);
    else
        edge_pass(x, N, radix, forward, e, begin, end, false, gelu);
}

ALWAYS void edge_any(float *x, size_t N, bool forward, const struct edge *e, size_t begin,
                     size_t end, bool gelu)
{
    if (radix_of(N) == 8)
        edge_of_radix(x, N, 8, forward, e, begin, end, gelu);
    else
        edge_of_radix(x, N, 4, forward, e, begin, end, gelu);
}

// As fft_pass_f32 down, of at most N values that are read on the way. N >= 4.
void EM_K(fft_enter_f32)(float *x, size_t N, const struct em_fft_rows *r, size_t begin, size_t end)
{
    edge_any(x, N, true, &(struct edge){.rows = r}, begin, end, false);
}

// Of dz; leaves post_gate's gradient.
void EM_K(fft_enter_gradient_f32)(float *x, size_t N, const struct em_fft_gradient *g, size_t begin,
                                  size_t end)
{
    const struct edge e = {.rows = &g->v, .gradient = g};
    if (g->gelu)
        edge_any(x, N, true, &e, begin, end, true);
    else
        edge_any(x, N, true, &e, begin, end, false);
}

// As fft_pass_f32 up, and fft_finish_f32 of values 0, 1, ..
void EM_K(fft_leave_f32)(float *x, size_t N, const struct em_fft_finish *f, size_t begin,
                         size_t end)
{
    const struct edge e = {.rows = &f->v, .finish = f};
    if (f->gelu)
        edge_any(x, N, false, &e, begin, end, true);
    else
        edge_any(x, N, false, &e, begin, end, false);
}

// Of the signal's gradient; makes dz again where it needs that.
void EM_K(fft_leave_gradient_f32)(float *x, size_t N, const struct em_fft_gradient *g, size_t begin,
                                  size_t end)
{
    const struct edge e = {.rows = &g->v, .gradient = g};
    if (g->gelu)
        edge_any(x, N, false, &e, begin, end, true);
    else
        edge_any(x, N, false, &e, begin, end, false);
}
