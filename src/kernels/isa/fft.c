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

// `radix` numbers down the tree by two levels or three.
ALWAYS void down(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2;
    UNROLL
    for (int i = 0; i < half; i++)
        split(&x[i], &x[i + half], f->w[0], false);
    if (radix == 2) return;
    const int quarter = radix / 4;
    UNROLL
    for (int i = 0; i < quarter; i++) {
        split(&x[i], &x[i + quarter], f->w[1], false);
        split(&x[half + i], &x[half + i + quarter], f->w[1], true);
    }
    if (radix == 4) return;
    split(&x[0], &x[1], f->w[2], false);
    split(&x[2], &x[3], f->w[2], true);
    split(&x[4], &x[5], f->w[3], false);
    split(&x[6], &x[7], f->w[3], true);
}

ALWAYS void up(struct complex *x, int radix, const struct factors *f)
{
    const int half = radix / 2, quarter = radix / 4;
    if (radix == 8) {
        join(&x[0], &x[1], f->w[2], false);
        join(&x[2], &x[3], f->w[2], true);
        join(&x[4], &x[5], f->w[3], false);
        join(&x[6], &x[7], f->w[3], true);
    }
    if (radix >= 4) {
        UNROLL
        for (int i = 0; i < quarter; i++) {
            join(&x[i], &x[i + quarter], f->w[1], false);
            join(&x[half + i], &x[half + i + quarter], f->w[1], true);
        }
    }
    UNROLL
    for (int i = 0; i < half; i++)
        join(&x[i], &x[i + half], f->w[0], false);
}

// One pass over the n numbers from number `first` of x on.
ALWAYS void pass(float *x, size_t first, size_t n, int radix, bool forward, const float *factors)
{
    const size_t step = n / (size_t)radix, run = step < RUN ? step : RUN;
    const struct factors f = broadcast(factors);
    for (size_t j = 0; j < step; j += run) {
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

__attribute__((noinline)) static void pass_down(float *x, size_t first, size_t n, int radix,
                                                const float *f)
{
    if (radix == 8)
        pass(x, first, n, 8, true, f);
    else if (radix == 4)
        pass(x, first, n, 4, true, f);
    else
        pass(x, first, n, 2, true, f);
}

__attribute__((noinline)) static void pass_up(float *x, size_t first, size_t n, int radix,
                                              const float *f)
{
    if (radix == 8)
        pass(x, first, n, 8, false, f);
    else if (radix == 4)
        pass(x, first, n, 4, false, f);
    else
        pass(x, first, n, 2, false, f);
}

static const float *factors_of(unsigned depth, size_t node, float own[8])
{
    const float *level = em_fft_level(depth);
    if (level) return level + node * 8;
    em_fft_factors(depth, node, own);
    return own;
}

// How many parts a node of n numbers is split into: eights at the end.
static int radix_of(size_t n)
{
    unsigned levels = 0;
    for (; n > 1; n >>= 1)
        levels++;
    if (levels < 3) return 1 << levels;
    return levels % 3 == 0 ? 8 : 4;
}

static unsigned levels_of(int radix)
{
    return radix == 8 ? 3 : radix == 4 ? 2 : 1;
}

enum work { FORWARD, INVERSE, CONVOLVE, CORRELATE, GRADIENTS };

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
    if (work != INVERSE) pass_down(f->x, first, n, radix, w);
    if (work == GRADIENTS) pass_down(f->other, first, n, radix, w);
    for (size_t m = 0; m < (size_t)radix; m++)
        node(f, first + m * part, part, depth + levels_of(radix), work);
    if (work != FORWARD) pass_up(f->x, first, n, radix, w);
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
