// What tests of convolutions with a few taps share: (x [T, columns], w [D, L], bias [D] or none).
#ifndef EMBER_TESTS_CONV_CHECK_H
#define EMBER_TESTS_CONV_CHECK_H

#include "support/op_check.h"

enum { CONV_X, CONV_W, CONV_BIAS };

struct conv_form {
    const char *name;
    op_record *record;
    size_t columns;              // of x, for each of D
    const void *const *contexts; // of rounds 0, 1, .. by turns
    size_t n_contexts;
};

// Every round another D, L, packing; with and without bias, and each input in turn constant.
void check_conv_rounds(const struct conv_form *form, uint64_t sizes);

// Three tokens as one sequence, and then as two, the first of `first` tokens: outputs of both on
// every backend. w is [1, 2], bias [1], x three rows of `columns`.
struct conv_by_hand {
    op_record *record;
    const void *context;
    size_t columns, first;
    const float *x;
    float w[2], bias;
    float whole[3], cut[3];
};
void check_conv_by_hand(const struct conv_by_hand *c);

#endif
