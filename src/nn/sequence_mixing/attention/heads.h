// What layers of attention share: how a width is divided into heads, and their four projections.
#ifndef EM_NN_HEADS_H
#define EM_NN_HEADS_H

#include <ember/ops.h>

// A layer's first parameters.
enum {
    EM_HEADS_Q,
    EM_HEADS_K,
    EM_HEADS_V,
    EM_HEADS_O,
    EM_HEADS_Q_BIAS,
    EM_HEADS_K_BIAS,
    EM_HEADS_V_BIAS,
    EM_HEADS_O_BIAS,
    EM_HEADS_PARAMS
};

// 0 becomes as many as heads, and the model's width / heads.
ember_status em_heads_check(ember_build *b, size_t heads, size_t *kv_heads,
                            size_t *head_dim) EMBER_CHECKED;
// q_proj, k_proj, v_proj and o_proj.
ember_status em_heads_declare(ember_layer *l, ember_build *b, size_t heads, size_t kv_heads,
                              size_t head_dim, bool bias) EMBER_CHECKED;
// x W^T as heads [T, heads, head_dim]; `which`: EM_HEADS_Q, K or V.
ember_status em_heads_project(const ember_layer *l, ember_flow *f, ember_tensor *x, unsigned which,
                              size_t heads, size_t head_dim, ember_tensor **y) EMBER_CHECKED;

#endif
