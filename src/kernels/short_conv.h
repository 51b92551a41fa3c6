// The short depthwise causal convolution of one sequence, with gates (LFM2) or plain: u = B * X,
// y = C * (sum_j w_j u[t-(L-1)+j] + bias), where B = C = 1 in the plain form.
#ifndef EM_KERNELS_SHORT_CONV_H
#define EM_KERNELS_SHORT_CONV_H

#include <stdbool.h>
#include <stddef.h>

struct em_short_conv {
    const float *x;     // [T, D]
    const float *b, *c; // [T, D] with x's stride, both or neither: the plain form has no gates
    size_t stride;      // of their rows
    const float *taps;  // [L, D]: the transposed weight; the last row multiplies the current token
    const float *bias;  // [D] or NULL
    const float *history; // [L-1, D]: u of the tokens before the first, oldest first; NULL: zeros
    size_t D, L;
};

// What backward reads and what it adds to.
struct em_short_conv_gradient {
    const float *dy; // row 0 is that of token dy_first; rows up to L - 1 after the last are read
    size_t dy_stride, dy_first, T;
    float *dx;      // [T, D], or NULL: then dtaps and dbias alone
    float *db, *dc; // with dx's stride; NULL in the plain form
    size_t dx_stride;
    bool set;             // dx, db, dc hold nothing yet: they are written, not added to
    float *dtaps, *dbias; // [L, D], [D], or NULL
};

#endif
