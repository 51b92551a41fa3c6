// Attention of one sequence: what the kernels of isa/attention*.c are given. Memory is linear in
// the length: scores exist only in blocks (Dao et al. 2022, arXiv:2205.14135).
//
// T queries follow `past` older tokens: query t stands at position past + t, and keys and values of
// positions 0 .. past + T - 1 are given. H query heads share G key heads: head h reads head h / (H
// / G). A query sees the keys at and before its position, of these the last `window` when window >
// 0; with `bidirectional` all keys, or those nearer than `window` on both sides.
#ifndef EM_KERNELS_ATTENTION_H
#define EM_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

struct em_attention {
    size_t T, past, H, G, K; // K: head dimension
    size_t window;
    bool bidirectional;
    float scale; // of the scores
    // Floats from one token to the next; the heads of a token are contiguous.
    size_t q_stride, k_stride, v_stride, o_stride;
    const float *q; // [T, H, K]
    const float *k; // [past + T, G, K]
    const float *v; // [past + T, G, K]
    float *o;       // [T, H, K]: written by forward, read by backward
    float *lse;     // [T, H]: log of the sum of exponentials, for backward; NULL: not wanted
};

// What backward adds to. Keys and values of the past get no gradient.
struct em_attention_gradient {
    size_t do_stride, dq_stride, dk_stride, dv_stride;
    const float *d_o; // [T, H, K]
    float *dq;        // [T, H, K]
    float *dk, *dv;   // [T, G, K]
};

// Rows, that is pairs of a query and a head, which a block of the forward pass takes.
enum { EM_ATTENTION_ROWS = 192 };

// Queries that one call of attention_f32 is best given, with all heads of one key head: a block
// full. Any other split is right too; results are bit-equal for a fixed split.
static inline size_t em_attention_queries(const struct em_attention *a)
{
    const size_t group = a->H / a->G;
    return group < EM_ATTENTION_ROWS ? EM_ATTENTION_ROWS / group : 1;
}

#endif
