// Recurrent cells: EM_LANES sequences advance together, one in each lane. A vector of n values is
// [n][EM_LANES] ("lanes"), 64-byte aligned, so that whatever a cell does is done to whole vectors,
// and what a sequence gets does not depend on its neighbours.
#ifndef EM_KERNELS_RECURRENT_H
#define EM_KERNELS_RECURRENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EM_LANES = 16 };

// y [rows] (+)= W x + bias, W's element (i, k) at w[i * row_stride + k * col_stride]: rows of W, or
// its columns.
struct em_lanes_product {
    const float *w;
    size_t row_stride, col_stride, rows, columns;
    const float *bias; // [rows] or NULL
    bool add;          // to what y holds
};

// The gates of an LSTM, z = four blocks of H: c' = c sigmoid(f + forget_bias) + sigmoid(i) tanh(g),
// h' = sigmoid(o) tanh(c'). place says which block is i, f, g, o.
struct em_lstm_gates {
    size_t H;
    unsigned char place[4];
    float forget_bias;
};

// A closed-form continuous-time cell after its products (Hasani et al. 2022). With p = blocks of H:
//   default: f1 = tanh p0, f2 = tanh p1, s = sigmoid(p2 dt + p3), h = f1 (1 - s) + s f2
//   no_gate: h = f1 + s f2
//   pure:    h = A - A exp(-dt (|w_tau| + |p0|)) p0
enum em_cfc_mode { EM_CFC_DEFAULT, EM_CFC_NO_GATE, EM_CFC_PURE };
struct em_cfc_heads {
    size_t H;
    enum em_cfc_mode mode;
    const float *dt;        // one vector
    const float *p;         // 4 H vectors, pure: H
    const float *w_tau, *a; // [H], pure
};

// Synapses sorted by the neuron that they lead to: those of neuron i are start[i] .. start[i + 1).
// What each says to it: w sigmoid(sigma (v[source] - mu)), towards the potential erev.
struct em_ltc_synapses {
    const int32_t *start, *source;
    const float *sigma, *mu, *w, *erev;
    size_t count;
};
// A liquid time-constant cell (Hasani et al. 2021): `unfolds` fused steps of
//   v <- (c v + gleak vleak + sum a erev) / (c + gleak + sum a + epsilon), c = cm unfolds / dt.
struct em_ltc {
    size_t I, U;
    unsigned unfolds;
    float epsilon;
    const float *cm, *gleak, *vleak; // [U], positive where they have to be
    struct em_ltc_synapses sensory, inner;
};
// What forward leaves for backward of the same step. In vectors: v (unfolds + 1) U, inverse
// (denominators) unfolds U, sensory and inner sigmoids; `activity` [unfolds][inner.count] NULL:
// they are computed again.
struct em_ltc_trace {
    float *v, *inverse, *sensory, *activity;
};
// Sums over lanes' steps, kept per lane: of a list of synapses [count][4] (sigma, mu, w, erev), and
// [U][3] (cm, gleak, vleak).
struct em_ltc_sums {
    float *sensory, *inner, *neuron;
};

#endif
