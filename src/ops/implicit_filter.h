// What the halves of the operation implicit_filter share.
#ifndef EM_OPS_IMPLICIT_FILTER_H
#define EM_OPS_IMPLICIT_FILTER_H

#include "ops/matmul.h"

// Inputs; from EM_FILTER_WEIGHTS on a weight and a bias by turns, the last weight without one.
enum {
    EM_FILTER_Z,
    EM_FILTER_T,
    EM_FILTER_DELTAS,
    EM_FILTER_FREQUENCY,
    EM_FILTER_SKIP,
    EM_FILTER_WEIGHTS
};
// Of a filter that lasts: the rows that are there, and the version of the weights they were made
// from.
enum { EM_FILTER_ROWS, EM_FILTER_LOW, EM_FILTER_HIGH, EM_FILTER_MARKS };

struct em_filter_attr {
    float shift;
    bool normalise;
};

size_t em_filter_hidden(const struct em_call *c); // layers of sines

ember_status em_filter_reference_memory(struct em_call *c, size_t channels) EMBER_CHECKED;
void em_filter_reference(const struct em_call *c);
void em_filter_reference_backward(const struct em_call *c);

#endif
