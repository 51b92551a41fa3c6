#include "nn/sequence_mixing/attention/heads.h"

ember_status em_heads_check(ember_build *b, size_t heads, size_t *kv_heads, size_t *head_dim)
{
    const size_t D = ember_build_width(b);
    if (!*kv_heads) *kv_heads = heads;
    if (heads % *kv_heads)
        return ember_build_refuse(b, "kv_heads", "%zu does not divide the %zu heads", *kv_heads,
                                  heads);
    if (!*head_dim && D % heads)
        return ember_build_refuse(b, "heads", "%zu does not divide the width %zu", heads, D);
    if (!*head_dim) *head_dim = D / heads;
    if (*head_dim > 256)
        return ember_build_refuse(b, "head_dim", "%zu is more than 256", *head_dim);
    return EMBER_OK;
}

ember_status em_heads_declare(ember_layer *l, ember_build *b, size_t heads, size_t kv_heads,
                              size_t head_dim, bool bias)
{
    static const char *const weight[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight",
                                         "o_proj.weight"};
    static const char *const names[] = {"q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias"};
    const size_t D = ember_build_width(b), q = heads * head_dim, kv = kv_heads * head_dim;
    const size_t rows[] = {q, kv, kv, D}, columns[] = {D, D, D, q};
    for (unsigned i = EM_HEADS_Q; i <= EM_HEADS_O; i++) {
        EMBER_TRY(ember_param(b, &l->param[i], weight[i], EMBER_INIT_NORMAL, EMBER_ROLE_ATTENTION,
                              (size_t[]){rows[i], columns[i]}, 2));
        if (bias)
            EMBER_TRY(ember_param(b, &l->param[EM_HEADS_Q_BIAS + i], names[i], EMBER_INIT_ZEROS,
                                  EMBER_ROLE_ATTENTION, &rows[i], 1));
    }
    return EMBER_OK;
}

ember_status em_heads_project(const ember_layer *l, ember_flow *f, ember_tensor *x, unsigned which,
                              size_t heads, size_t head_dim, ember_tensor **y)
{
    ember_tensor *h;
    EMBER_TRY(ember_linear(f, x, l->param[which], l->param[EM_HEADS_Q_BIAS + which], NULL, &h));
    return ember_reshape(f, h, (size_t[]){heads, head_dim}, 2, y);
}
