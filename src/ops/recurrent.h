// Cells that advance token by token, over all sequences of a batch together. A cell says what one
// step does, forward and backward, for EM_LANES sequences side by side and (reference) for one;
// walking through time, states, and products over all tokens are done here.
//
// A sequence's state is S values; the output of a token is O of them, as they are after its step.
// Backward goes back through time from the saved states and computes each step anew.
#ifndef EM_OPS_RECURRENT_H
#define EM_OPS_RECURRENT_H

#include "kernels/kernels.h"
#include "ops/matmul.h"

// What a step reads and writes; vectors are [n][EM_LANES] of floats.
struct em_step {
    const struct em_call *call;
    const void *prepared;
    const float *x, *dt, *before; // [I], one vector, [S]
    float *after;                 // [S]; forward only
    float *work;                  // [cell.work]
    const size_t *token;          // [EM_LANES]: of the batch, SIZE_MAX in idle lanes
    // backward: ds [S] holds the gradient of `after` and becomes that of `before`; dx is added to,
    // tap written, sums added to.
    float *ds, *dx, *tap, *sums;
};

// The same for one sequence, in double.
struct em_reference_step {
    const struct em_call *call;
    size_t token;
    const double *x, *before;
    double dt;
    double *after, *work; // [cell.reference_work]
    double *ds, *dx;      // as above; parameters' gradients are added to by the cell
};

// A call's sizes, set by its shape rule.
struct em_cell_sizes {
    size_t I, S, O, first; // the output is state[first .. first + O)
    size_t work;           // vectors of a thread, besides those of em_step
    size_t taps;           // values of each token that `finish` reads
    size_t sums;           // vectors that are summed over all steps and lanes
    size_t prepared;       // bytes
    size_t product;        // widest `columns` of em_tap_product(), 0: none
    size_t reference_work; // doubles
};

struct em_cell {
    void (*sizes)(const struct em_call *c, struct em_cell_sizes *sizes);
    // Once per run, before the first step: masked weights and the like.
    void (*prepare)(const struct em_call *c, void *prepared);
    // How many of the sums there are, known then; NULL: all.
    size_t (*sums)(const void *prepared);
    void (*step)(const struct em_step *s);
    void (*step_back)(const struct em_step *s);
    // After the last step of backward: parameters' gradients from taps [T, taps] and sums [sums].
    void (*finish)(const struct em_call *c, const void *prepared, const float *taps,
                   const double *sums);
    void (*reference)(const struct em_reference_step *s);
    void (*reference_back)(const struct em_reference_step *s);
};

// Head of the attributes of operations that are made of a cell.
struct em_recurrent_attr {
    const struct em_cell *cell;
    size_t sequences; // at most
    size_t stride;    // a sequence's state moves at positions that are multiples of it, with the
                      // time since it last did, and stands still in between; 0, 1: always
};

// For recording functions: the call with its head filled in; and state and record at the end.
struct em_call *em_recurrent_new(ember_flow *flow, const struct em_op *op,
                                 const struct em_cell *cell, unsigned n_in);
ember_status em_recurrent_record(ember_flow *flow, struct em_call *c, size_t S,
                                 ember_tensor **y) EMBER_CHECKED;
// For shape rules, last: output, what is saved, and scratch.
ember_status em_recurrent_shape(struct em_call *c) EMBER_CHECKED;
// For op tables.
void em_recurrent_forward(const struct em_call *c);
void em_recurrent_backward(const struct em_call *c);
void em_recurrent_reference_forward(const struct em_call *c);
void em_recurrent_reference_backward(const struct em_call *c);

// gradient [rows, columns] += dz^T z over all tokens: dz at taps[.. + dz_at], z at taps[.. + z_at].
// Nothing is done where the gradient is not wanted (NULL).
void em_tap_product(const struct em_call *c, const float *taps, size_t dz_at, size_t rows,
                    size_t z_at, size_t columns, float *gradient);
// gradient [rows] += the sum of dz.
void em_tap_bias(const struct em_call *c, const float *taps, size_t dz_at, size_t rows,
                 float *gradient);
static inline float *em_gradient_of(const struct em_call *c, unsigned i)
{
    return em_wants(c, i) ? em_f32(c->in[i]->grad) : NULL;
}
static inline float *em_lanes_at(float *lanes, size_t i)
{
    return lanes + i * EM_LANES;
}

// Fails unless in[i] is a contiguous f32 parameter of this shape (ndim 1 or 2).
ember_status em_check_parameter(const struct em_call *c, unsigned i, const char *what,
                                const size_t *dim, unsigned ndim) EMBER_CHECKED;

// ---- an LSTM that runs before a cell and writes the memory it starts from (mixed memory) ----

// Inputs first, first + 1, first + 2 of the call: input_map [4 U, I], its bias [4 U] and
// recurrent_map [4 U, U]; blocks in the order candidate, input, forget (+ 1), output.
struct em_memory {
    unsigned first;
    size_t I, U;
};
ember_status em_memory_check(const struct em_call *c, const struct em_memory *m) EMBER_CHECKED;
static inline size_t em_memory_work(const struct em_memory *m)
{
    return 4 * m->U + m->U; // z, and the gradient of h while it is made
}
static inline size_t em_memory_taps(const struct em_memory *m)
{
    return 4 * m->U + m->I + m->U;
}
// h, c [U] from the step's input and its `before`, which is [h | c].
void em_memory_step(const struct em_step *s, const struct em_memory *m, float *h, float *c,
                    float *work);
// dh, dc: of what the step made; they become those of `before`. work is what the step left.
void em_memory_step_back(const struct em_step *s, const struct em_memory *m, float *dh, float *dc,
                         float *work, float *tap);
void em_memory_finish(const struct em_call *c, const struct em_memory *m, const float *taps,
                      size_t at);
// Doubles of work: 4 U for gates, 4 U for their gradients, U for dh.
static inline size_t em_memory_reference_work(const struct em_memory *m)
{
    return 9 * m->U;
}
void em_memory_reference(const struct em_reference_step *s, const struct em_memory *m, double *h,
                         double *c, double *work);
void em_memory_reference_back(const struct em_reference_step *s, const struct em_memory *m,
                              double *dh, double *dc, double *work);

#endif
