// x += norm(mixer(norm(x))), for the sequence mixer, then for the channel mixer.
#include "nn/blocks/block.h"

static const ember_option options[] = {EM_BLOCK_OPTIONS};

static ember_status build(ember_layer *l, ember_build *b)
{
    return em_block_build((struct em_block *)l, b, true, true);
}

extern const ember_layer_type em_layer_sandwich_norm;
const ember_layer_type em_layer_sandwich_norm = {
    .name = "sandwich_norm",
    .kind = EMBER_BLOCK,
    .size = sizeof(struct em_block),
    .options = options,
    .help = "x + norm(mixer(norm(x))). Ding et al. 2021, arXiv:2105.13290",
    .build = build,
    .forward = em_block_residual,
};
