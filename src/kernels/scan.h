// The selective scan of one sequence (Mamba): with dt = softplus(delta + delta_bias) and a = 2^(dt
// A),
//   h[t] = a h[t-1] + dt x[t] B[t],  y[t] = (h[t] . C[t] + D x[t]) silu(z[t]).
#ifndef EM_KERNELS_SCAN_H
#define EM_KERNELS_SCAN_H

#include <stdbool.h>
#include <stddef.h>

// The most states of a channel, and the tokens from one checkpoint to the next.
enum { EM_SCAN_STATES = 256, EM_SCAN_CHUNK = 64 };

struct em_scan {
    const float *x, *delta, *z;                                  // [T, E]; z may be NULL: no gate
    const float *b, *c;                                          // [T, groups * N]
    size_t x_stride, delta_stride, z_stride, b_stride, c_stride; // of rows
    const float *rate;                                           // A log2(e), [N, E]
    const float *skip, *delta_bias;                              // D and its like, [E] or NULL
    size_t E, N, T, per_group;                                   // per_group: channels
    const float *state;                                          // [N, E] before; NULL: zeros
};

struct em_scan_out {
    float *y; // [T, E]
    size_t y_stride;
    float *state;       // [N, E] after; may be the one before; NULL: not wanted
    float *checkpoints; // [ceil(T / EM_SCAN_CHUNK)][N, E]: h before each chunk; or NULL
};

// What backward reads and makes.
struct em_scan_gradient {
    const float *dy, *checkpoints;
    size_t dy_stride;
    float *dx, *ddelta, *dz; // [T, E]; NULL: not wanted
    size_t dx_stride, ddelta_stride, dz_stride;
    bool set_x, set_delta, set_z; // they hold nothing yet: written, not added to
    float *db, *dc;               // [T, N], written: what these channels add to their group's
    float *dA;                    // [N, E], added to, as are
    float *dskip, *ddelta_bias;   // [E]; NULL: not wanted
    float *carry;                 // [N, E]: memory to work in
};

#endif
