// x += mixer(norm(x)), for the sequence mixer, then for the channel mixer.
#include "nn/blocks/block.h"

static const ember_option options[] = {EM_BLOCK_OPTIONS};

static ember_status build(ember_layer *l, ember_build *b)
{
    return em_block_build((struct em_block *)l, b, true, false);
}

extern const ember_layer_type em_layer_pre_norm;
const ember_layer_type em_layer_pre_norm = {
    .name = "pre_norm",
    .kind = EMBER_BLOCK,
    .size = sizeof(struct em_block),
    .options = options,
    .help = "x + mixer(norm(x)). Xiong et al. 2020, arXiv:2002.04745",
    .build = build,
    .forward = em_block_residual,
};
