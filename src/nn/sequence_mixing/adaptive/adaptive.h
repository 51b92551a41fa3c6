// Linear operators whose weights follow a context: what the token mixer and the channel mixer
// share.
#ifndef EM_NN_ADAPTIVE_H
#define EM_NN_ADAPTIVE_H

#include <ember/ops.h>

enum { EM_ADAPTIVE_LOW_RANK, EM_ADAPTIVE_DIAGONAL, EM_ADAPTIVE_FILM };

struct em_adaptive {
    ember_layer base;
    size_t adapt, rank;
    int generator, activation;
    bool bias;
    float norm_eps;
};

#define EM_ADAPTIVE_OPTIONS                                                                        \
    EMBER_OPT_SIZE(struct em_adaptive, adapt, 32, 1, 1 << 16,                                      \
                   "width of the vector that the weights are made from"),                          \
        EMBER_OPT_ENUM(struct em_adaptive, generator, EM_ADAPTIVE_LOW_RANK,                        \
                       "low_rank|diagonal|film",                                                   \
                       "what it makes: W + U diag(g) V, diag(g) W, or diag(g) W x + h"),           \
        EMBER_OPT_SIZE(struct em_adaptive, rank, 16, 1, 1 << 16, "low_rank: rows of V"),           \
        EMBER_OPT_ENUM(struct em_adaptive, activation, EMBER_TANH, EMBER_ACTIVATION_CHOICES,       \
                       "of that vector"),                                                          \
        EMBER_OPT_BOOL(struct em_adaptive, bias, true, "a bias beside W"),                         \
        EMBER_OPT_FLOAT(struct em_adaptive, norm_eps, 1e-5, 0, 1, "of the context's RMSNorm"),     \
    {                                                                                              \
        0                                                                                          \
    }

ember_status em_adaptive_build(ember_layer *l, ember_build *b);
// y [T, D] = W(context) x, context [T, D].
ember_status em_adaptive_forward(const ember_layer *l, ember_flow *f, ember_tensor *x,
                                 ember_tensor *context, ember_tensor **y);

#endif
