// The gated short convolution of one sequence (LFM2): u = B * X, y = C * (sum_j w_j u[t-(L-1)+j] +
// bias).
#ifndef EM_KERNELS_SHORT_CONV_H
#define EM_KERNELS_SHORT_CONV_H

#include <stdbool.h>
#include <stddef.h>

struct em_short_conv {
    const float *bcx; // [T, 3 D], a row is B | C | X
    size_t bcx_stride;
    const float *taps; // [L, D]: the transposed weight; the last row multiplies the current token
    const float *bias; // [D] or NULL
    const float *history; // [L-1, D]: u of the tokens before the first, oldest first; NULL: zeros
    size_t D, L;
};

// What backward reads and what it adds to.
struct em_short_conv_gradient {
    const float *dy; // [T, D]
    size_t dy_stride, T;
    float *dbcx; // [T, 3 D], or NULL
    size_t dbcx_stride;
    bool set;             // dbcx holds nothing yet: it is written, not added to
    float *dtaps, *dbias; // [L, D], [D], or NULL
};

#endif
