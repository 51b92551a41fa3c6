// Sequences in and out of a transform's workspace (kernels/fft.h). This file is compiled once per
// instruction set.
#include "kernels/fft.h"
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

#define ALWAYS static inline __attribute__((always_inline))

// Where value i of the 2 N of a lane stands: real parts, then imaginary ones.
ALWAYS float *place(float *x, size_t N, size_t i)
{
    return i < N ? x + em_fft_row(i) : x + em_fft_row(i - N) + EM_FFT_LANES;
}

ALWAYS void load_row(float *to, const struct em_fft_rows *r, size_t t, bool full)
{
    const float *x = r->x + t * r->stride, *gate = r->gate ? r->gate + t * r->gate_stride : NULL;
    for (size_t v = 0; v < EM_FFT_LANES; v += VF32_LANES) {
        const size_t m = r->lanes > v ? r->lanes - v : 0, n = m < VF32_LANES ? m : VF32_LANES;
        vf32 a = full ? vf32_load(x + v) : vf32_load_n(x + v, n);
        if (gate) a = vf32_mul(a, full ? vf32_load(gate + v) : vf32_load_n(gate + v, n));
        vf32_store(to + v, a);
    }
}

static void zero(float *x, size_t N, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        for (size_t v = 0; v < EM_FFT_LANES; v += VF32_LANES)
            vf32_store(place(x, N, i) + v, vf32_zero());
}

// The 2 N values of each lane: the rows from `first` on, zeros around them.
void EM_K(fft_read_f32)(float *x, size_t N, size_t first, const struct em_fft_rows *rows)
{
    zero(x, N, 0, first);
    if (rows->lanes == EM_FFT_LANES)
        for (size_t t = 0; t < rows->count; t++)
            load_row(place(x, N, first + t), rows, t, true);
    else
        for (size_t t = 0; t < rows->count; t++)
            load_row(place(x, N, first + t), rows, t, false);
    zero(x, N, first + rows->count, 2 * N);
}

// rows [count, EM_FFT_LANES] = values [first, first + count), or += them.
void EM_K(fft_take_f32)(float *rows, float *x, size_t N, size_t first, size_t count, bool add)
{
    for (size_t t = 0; t < count; t++, rows += EM_FFT_LANES) {
        const float *from = place(x, N, first + t);
        for (size_t v = 0; v < EM_FFT_LANES; v += VF32_LANES) {
            const vf32 a = vf32_load(from + v);
            vf32_store(rows + v, add ? vf32_add(vf32_load(rows + v), a) : a);
        }
    }
}

// Values [begin, end) of the 2 N of each lane from k, a kernel a lane, `stride` apart: taps times
// scale, and zeros from `count` on. begin is a multiple of 16.
void EM_K(fft_read_taps_f32)(float *x, size_t N, const float *k, size_t stride, size_t lanes,
                             size_t count, float scale, size_t begin, size_t end)
{
    for (size_t j = begin; j < end; j += VF32_LANES) {
        const size_t left = count > j ? count - j : 0, n = left < VF32_LANES ? left : VF32_LANES,
                     rows = end - j < VF32_LANES ? end - j : VF32_LANES;
        for (size_t v = 0; v < EM_FFT_LANES; v += VF32_LANES) {
            vf32 r[VF32_LANES];
            for (size_t i = 0; i < VF32_LANES; i++)
                r[i] = v + i < lanes
                           ? vf32_mul(vf32_load_n(k + (v + i) * stride + j, n), vf32_set1(scale))
                           : vf32_zero();
            vf32_transpose(r);
            for (size_t i = 0; i < rows; i++)
                vf32_store(place(x, N, j + i) + v, r[i]);
        }
    }
}

// The way back: k += scale times values [begin, end).
void EM_K(fft_add_taps_f32)(float *k, size_t stride, size_t lanes, float *x, size_t N, float scale,
                            size_t begin, size_t end)
{
    for (size_t j = begin; j < end; j += VF32_LANES) {
        const size_t n = end - j < VF32_LANES ? end - j : VF32_LANES;
        for (size_t v = 0; v < lanes; v += VF32_LANES) {
            vf32 r[VF32_LANES];
            for (size_t i = 0; i < VF32_LANES; i++)
                r[i] = i < n ? vf32_load(place(x, N, j + i) + v) : vf32_zero();
            vf32_transpose(r);
            for (size_t i = 0; i < VF32_LANES && v + i < lanes; i++) {
                float *to = k + (v + i) * stride + j;
                vf32_store_n(to, vf32_fma(vf32_set1(scale), r[i], vf32_load_n(to, n)), n);
            }
        }
    }
}

// Up to a vector of a row's lanes.
ALWAYS vf32 part(const float *x, size_t n)
{
    return vf32_load_n(x, n);
}

ALWAYS size_t left(size_t lanes, size_t v)
{
    return lanes - v < VF32_LANES ? lanes - v : VF32_LANES;
}

ALWAYS vf32 signal_of(const struct em_fft_rows *r, size_t t, size_t v, size_t n)
{
    const vf32 x = part(r->x + t * r->stride + v, n);
    return r->gate ? vf32_mul(x, part(r->gate + t * r->gate_stride + v, n)) : x;
}

// Phi(z), the normal distribution's.
ALWAYS vf32 below(vf32 z)
{
    const vf32 half = vf32_set1(0.5f);
    return vf32_fma(half, vf32_erf(vf32_mul(z, vf32_set1(0.70710678118654752f))), half);
}

ALWAYS void finish(const struct em_fft_finish *f, bool gelu)
{
    const size_t lanes = f->v.lanes;
    for (size_t t = 0; t < f->v.count; t++)
        for (size_t v = 0; v < lanes; v += VF32_LANES) {
            const size_t n = left(lanes, v);
            vf32 z = part(f->conv + t * EM_FFT_LANES + v, n);
            if (f->skip) z = vf32_fma(part(f->skip + v, n), signal_of(&f->v, t, v, n), z);
            if (f->z) vf32_store_n(f->z + t * f->z_stride + v, z, n);
            if (gelu) z = vf32_mul(z, below(z));
            z = vf32_mul(z, part(f->mask + v, n));
            if (f->post) z = vf32_mul(z, part(f->post + t * f->post_stride + v, n));
            float *y = f->y + t * f->y_stride + v;
            vf32_store_n(y, f->add ? vf32_add(part(y, n), z) : z, n);
        }
}

void EM_K(fft_finish_f32)(const struct em_fft_finish *f)
{
    if (f->gelu)
        finish(f, true);
    else
        finish(f, false);
}

ALWAYS void begin(const struct em_fft_gradient *g, bool gelu)
{
    const size_t lanes = g->v.lanes;
    for (size_t t = 0; t < g->v.count; t++) {
        for (size_t v = lanes; v < EM_FFT_LANES; v++)
            g->dz[t * EM_FFT_LANES + v] = 0;
        for (size_t v = 0; v < lanes; v += VF32_LANES) {
            const size_t n = left(lanes, v);
            const vf32 dy = vf32_mul(part(g->dy + t * g->dy_stride + v, n), part(g->mask + v, n));
            vf32 act = g->z ? part(g->z + t * g->z_stride + v, n) : vf32_zero();
            vf32 dz = g->post ? vf32_mul(dy, part(g->post + t * g->post_stride + v, n)) : dy;
            if (gelu) { // act' = Phi(z) + z phi(z)
                const vf32 z = act, phi = below(z);
                const vf32 bell = vf32_mul(vf32_set1(0.39894228040143268f),
                                           vf32_exp(vf32_mul(vf32_mul(z, z), vf32_set1(-0.5f))));
                act = vf32_mul(z, phi);
                dz = vf32_mul(dz, vf32_fma(z, bell, phi));
            }
            if (g->dpost) {
                float *to = g->dpost + t * g->dpost_stride + v;
                vf32_store_n(to, vf32_fma(dy, act, part(to, n)), n);
            }
            vf32_store_n(g->dz + t * EM_FFT_LANES + v, dz, n);
        }
    }
}

void EM_K(fft_begin_backward_f32)(const struct em_fft_gradient *g)
{
    if (g->gelu)
        begin(g, true);
    else
        begin(g, false);
}

void EM_K(fft_end_backward_f32)(const struct em_fft_gradient *g)
{
    const struct em_fft_rows *r = &g->v;
    for (size_t v = 0; v < r->lanes; v += VF32_LANES) {
        const size_t n = left(r->lanes, v);
        const vf32 skip = g->skip ? part(g->skip + v, n) : vf32_zero();
        vf32 dskip = vf32_zero();
        for (size_t t = 0; t < r->count; t++) {
            const vf32 dz = part(g->dz + t * EM_FFT_LANES + v, n);
            const vf32 x = part(r->x + t * r->stride + v, n);
            const vf32 ds = vf32_fma(skip, dz, part(g->dv + t * EM_FFT_LANES + v, n));
            dskip = vf32_fma(dz, signal_of(r, t, v, n), dskip);
            if (g->dx) {
                float *to = g->dx + t * g->dx_stride + v;
                const vf32 d =
                    r->gate ? vf32_mul(ds, part(r->gate + t * r->gate_stride + v, n)) : ds;
                vf32_store_n(to, vf32_add(part(to, n), d), n);
            }
            if (g->dgate) {
                float *to = g->dgate + t * g->dgate_stride + v;
                vf32_store_n(to, vf32_fma(ds, x, part(to, n)), n);
            }
        }
        if (g->dskip) vf32_store_n(g->dskip + v, vf32_add(part(g->dskip + v, n), dskip), n);
    }
}
