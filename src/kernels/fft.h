// Fourier transforms of EM_FFT_LANES real sequences at once, for convolutions.
//
// Real sequences of 2 N values are polynomials modulo x^(2N) + 1. With x^N = i that ring is the
// complex polynomials modulo x^N - i: a sequence's first half is the real part of N complex
// numbers, its second half the imaginary part. Products there are negacyclic convolutions of 2 N
// real values, and linear ones as long as nothing comes round; a sequence of N values needs no
// padding, and there is no spectrum to be untangled. Bernstein 2007, "The tangent FFT", has the
// trick as a right-angle convolution.
//
// The transform is the tree of x^n - w^2 = (x^(n/2) - w)(x^(n/2) + w): a node's factor is the same
// for all its columns, nothing is reordered, and the product with the kernel's spectrum happens
// where the tree ends, so each part of it is done with while it is in the cache.
#ifndef EM_KERNELS_FFT_H
#define EM_KERNELS_FFT_H

#include <stdbool.h>
#include <stddef.h>

enum { EM_FFT_LANES = 16 };

// A workspace of N complex numbers a lane: rows of EM_FFT_LANES real parts, then as many imaginary
// ones. Row i stands at em_fft_row(i): a row is left out now and then, so that those a power of two
// apart do not fight for one set of the cache.
static inline size_t em_fft_row(size_t i)
{
    return (i + (i >> 6) + (i >> 12)) * 2 * EM_FFT_LANES;
}
static inline size_t em_fft_floats(size_t N)
{
    return em_fft_row(N - 1) + 2 * EM_FFT_LANES;
}

// How many parts a node of n numbers is split into: eights at the end.
static inline size_t em_fft_parts(size_t n)
{
    unsigned levels = 0;
    for (; n > 1; n >>= 1)
        levels++;
    if (levels < 3) return (size_t)1 << levels;
    return levels % 3 == 0 ? 8 : 4;
}

// What happens to the parts of x between its first pass and its last; see the kernels of a whole
// transform.
struct em_fft_parts {
    enum {
        EM_FFT_FORWARD,
        EM_FFT_INVERSE,
        EM_FFT_CONVOLVE,
        EM_FFT_CORRELATE,
        EM_FFT_GRADIENTS
    } work;
    float *x, *other, *dk;
    const float *k;
};

// `count` rows of up to EM_FFT_LANES values: x, or x * gate.
struct em_fft_rows {
    const float *x, *gate; // gate: NULL for none
    size_t stride, gate_stride, count, lanes;
};

// What follows a convolution, for `v.count` rows of v.lanes channels: with z += skip v,
// y = post act(mask z), or y += that; v is what went in.
struct em_fft_finish {
    struct em_fft_rows v;
    const float *conv; // [EM_FFT_LANES] a row
    const float *skip; // [lanes]; NULL: 0
    const float *mask; // [lanes]
    const float *post; // NULL: 1
    float *y, *z;      // z: left for backward; NULL: not wanted
    size_t post_stride, y_stride, z_stride;
    bool gelu, add;
};

// Its gradients in two parts, before the transforms and after them. First from dy:
// dz = dy mask post act'(z), dpost += dy mask act(z). Then, with dv the convolution's gradient and
// dz: v.x's += (dv + skip dz) gate, gate's += (dv + skip dz) v.x, dskip += the sum of dz v.
struct em_fft_gradient {
    struct em_fft_rows v;
    const float *dy, *post, *z, *skip, *mask;
    float *dz; // [EM_FFT_LANES] a row
    const float *dv;
    float *dpost, *dx, *dgate, *dskip; // NULL: not wanted
    size_t dy_stride, post_stride, z_stride, dpost_stride, dx_stride, dgate_stride;
    bool gelu;
    bool set_post, set_x, set_gate; // the gradient holds nothing yet; only in passes that transform
};

// The factors of the nodes `depth` below x^N - i, 8 floats each: w of the node, of its first child,
// and of that one's first child and second cousin; every other one is i times one of them. They
// depend on depth and place alone, not on N. NULL: too many to be kept, em_fft_factors() has each.
const float *em_fft_level(unsigned depth);
void em_fft_factors(unsigned depth, size_t node, float factors[8]);

#endif
