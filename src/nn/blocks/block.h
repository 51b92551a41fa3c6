// What the blocks share: a sequence mixer and a channel mixer, each with its norms and a residual
// path.
#ifndef EM_NN_BLOCKS_BLOCK_H
#define EM_NN_BLOCKS_BLOCK_H

#include <ember/ops.h>

struct em_block {
    ember_layer base;
    const ember_config *sequence, *channel, *norm;
    float dropout, drop_path;
    struct em_half {
        ember_layer *mixer, *before, *after; // norms around the mixer; NULL where there is none
        ember_layer *of_sum;                 // post_norm: of x + mixer(x)
    } half[2];                               // sequence, channel
};

#define EM_BLOCK_OPTIONS                                                                           \
    EMBER_OPT_COMPONENT(struct em_block, sequence, EMBER_SEQUENCE_MIXER, NULL,                     \
                        "mixes tokens; absent: the block has none"),                               \
        EMBER_OPT_COMPONENT(struct em_block, channel, EMBER_CHANNEL_MIXER, NULL,                   \
                            "mixes channels; absent: the block has none"),                         \
        EMBER_OPT_COMPONENT(struct em_block, norm, EMBER_NORM, "{\"type\": \"rmsnorm\"}",          \
                            "the norm at every place"),                                            \
        EMBER_OPT_FLOAT(struct em_block, dropout, 0, 0, 0.999, "of a mixer's output in training"), \
        EMBER_OPT_FLOAT(struct em_block, drop_path, 0, 0, 0.999,                                   \
                        "of a whole sequence of it in training. arXiv:1603.09382"),                \
    {                                                                                              \
        0                                                                                          \
    }

// Builds the mixers and the norms before and after them, as asked.
ember_status em_block_build(struct em_block *block, ember_build *build, bool before,
                            bool after) EMBER_CHECKED;

// The mixer of one half with the norms around it and dropout, without the residual path. NULL
// mixer: *y is NULL.
ember_status em_block_half(const struct em_block *block, ember_flow *flow, unsigned half,
                           ember_tensor *x, ember_tensor **y) EMBER_CHECKED;

// x + half(x) for both: the forward of blocks whose residual path has no norm on it.
ember_status em_block_residual(const ember_layer *block, ember_flow *flow, ember_tensor *x,
                               ember_tensor **y) EMBER_CHECKED;

#endif
