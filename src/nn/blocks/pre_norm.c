// x += mixer(norm(x)), for the sequence mixer, then for the channel mixer.
#include "nn/blocks/block.h"

static const ember_option options[] = {EM_BLOCK_OPTIONS};

static ember_status build(ember_layer *l, ember_build *b)
{
    return em_block_build((struct em_block *)l, b, true, false);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *mixed;
    for (unsigned half = 0; half < 2; half++) {
        EMBER_TRY(em_block_half((const struct em_block *)l, f, half, x, &mixed));
        if (mixed) EMBER_TRY(ember_add(f, x, mixed, &x));
    }
    *y = x;
    return EMBER_OK;
}

extern const ember_layer_type em_layer_pre_norm;
const ember_layer_type em_layer_pre_norm = {
    .name = "pre_norm",
    .kind = EMBER_BLOCK,
    .size = sizeof(struct em_block),
    .options = options,
    .help = "x + mixer(norm(x)). Xiong et al. 2020, arXiv:2002.04745",
    .build = build,
    .forward = forward,
};
