// channel(sequence(x)): mixers in a row, without norms or residual paths.
#include "nn/blocks/block.h"

static const ember_option options[] = {EM_BLOCK_OPTIONS};

static ember_status build(ember_layer *l, ember_build *b)
{
    return em_block_build((struct em_block *)l, b, false, false);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    for (unsigned half = 0; half < 2; half++) {
        ember_tensor *mixed;
        EMBER_TRY(em_block_half((const struct em_block *)l, f, half, x, &mixed));
        if (mixed) x = mixed;
    }
    *y = x;
    return EMBER_OK;
}

extern const ember_layer_type em_layer_plain;
const ember_layer_type em_layer_plain = {
    .name = "plain",
    .kind = EMBER_BLOCK,
    .size = sizeof(struct em_block),
    .options = options,
    .help = "mixers in a row, without norms or residual paths",
    .build = build,
    .forward = forward,
};
