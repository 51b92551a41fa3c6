// The gated short convolution of one sequence (LFM2): u = B * X, y = C * (sum_j w_j u[t-(L-1)+j] +
// bias).
#ifndef EM_KERNELS_SHORT_CONV_H
#define EM_KERNELS_SHORT_CONV_H

#include <stddef.h>

struct em_short_conv {
    const float *bcx; // [T, 3 D], a row is B | C | X
    size_t bcx_stride;
    const float *taps; // [L, D]: the transposed weight; the last row multiplies the current token
    const float *bias; // [D] or NULL
    const float *history; // [L-1, D]: u of the tokens before the first, oldest first; NULL: zeros
    size_t D, L;
};

#endif
