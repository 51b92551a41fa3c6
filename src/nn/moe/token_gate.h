// One sigmoid gate for each token.
#ifndef EM_NN_MOE_TOKEN_GATE_H
#define EM_NN_MOE_TOKEN_GATE_H

#include <ember/ops.h>

// y [T, D] = sigmoid(x weight^T + bias) * u, a number for each row of u [T, D]; weight [1, D], bias
// [1] or NULL.
static inline ember_status em_token_gate(ember_flow *f, ember_tensor *x, ember_tensor *weight,
                                         ember_tensor *bias, ember_tensor *u, ember_tensor **y)
{
    const size_t D = u->dim[1];
    ember_tensor *gate;
    EMBER_TRY(ember_linear_f32(f, x, weight, bias, &gate));
    EMBER_TRY(ember_reshape(f, u, (size_t[]){1, D}, 2, &u));
    EMBER_TRY(ember_gate_rows(f, gate, u, EMBER_SIGMOID, &u));
    return ember_reshape(f, u, (size_t[]){D}, 1, y);
}

#endif
