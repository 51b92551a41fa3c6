// Operations on numbers one by one: y_j = f(a_j, b_j), inputs and output of one shape. Such an
// operation says what it does with a run of numbers, and for the reference with one; the frame
// checks shapes, walks rows on all threads, and knows which gradients are wanted.
#ifndef EM_OPS_ELEMENTWISE_H
#define EM_OPS_ELEMENTWISE_H

#include "kernels/kernels.h"
#include "ops/rows.h"

enum { EM_ELEMENTWISE_INPUTS = 2 };

struct em_elementwise {
    unsigned inputs;
    const char *what[EM_ELEMENTWISE_INPUTS]; // the inputs' names in messages
    double flops, backward_flops;            // an element
    // y = f(x[0], ..): n numbers, the first of which has the index `first` in its tensor.
    void (*forward)(const struct em_call *c, float *y, const float *const *x, size_t first,
                    size_t n);
    // d[i] += dy * slope i, or d[i] = where set[i]. NULL where no gradient is wanted.
    void (*backward)(const struct em_call *c, float *const *d, const bool *set, const float *dy,
                     const float *const *x, size_t first, size_t n);
    // f of one number of each input, and its slopes.
    double (*reference)(const struct em_call *c, const double *x, size_t index, double *slope);
};

ember_status em_elementwise_shape(struct em_call *c);
void em_elementwise_cost(const struct em_call *c, struct em_cost *forward,
                         struct em_cost *backward);
void em_elementwise_forward(const struct em_call *c);
void em_elementwise_backward(const struct em_call *c);
void em_elementwise_reference_forward(const struct em_call *c);
void em_elementwise_reference_backward(const struct em_call *c);

#define EM_TRAINING_ONLY(function) (EMBER_TRAINING ? (function) : NULL)

// The members of an em_op that the frame fills; besides these it has .name and .backward_reads.
#define EM_ELEMENTWISE(frame)                                                                      \
    .shape = em_elementwise_shape, .cost = em_elementwise_cost,                                    \
    .backend = {[EM_CPU] = EM_PASSES(em_elementwise_forward, em_elementwise_backward),             \
                [EM_REFERENCE] = EM_PASSES(em_elementwise_reference_forward,                       \
                                           em_elementwise_reference_backward)},                    \
    .flags = EM_OP_SETS_FRESH | EM_OP_REPEATS | EM_OP_ROW_WISE, .elementwise = (frame)

#endif
