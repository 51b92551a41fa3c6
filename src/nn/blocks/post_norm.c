// x = norm(x + mixer(x)), for the sequence mixer, then for the channel mixer.
#include "nn/blocks/block.h"

static const ember_option options[] = {EM_BLOCK_OPTIONS};

// The norm belongs to the sum here: em_block_half gets none, the norms are run after the residual
// path.
static ember_status build(ember_layer *l, ember_build *b)
{
    struct em_block *block = (struct em_block *)l;
    static const char *const name[2] = {"sequence_norm", "channel_norm"};
    EMBER_TRY(em_block_build(block, b, false, false));
    for (unsigned i = 0; i < 2; i++)
        if (block->half[i].mixer)
            EMBER_TRY(ember_child(b, name[i], EMBER_NORM, block->norm, &block->half[i].of_sum));
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct em_block *block = (const struct em_block *)l;
    ember_tensor *mixed;
    for (unsigned half = 0; half < 2; half++) {
        EMBER_TRY(em_block_half(block, f, half, x, &mixed));
        if (!mixed) continue;
        EMBER_TRY(ember_add(f, x, mixed, &x));
        EMBER_TRY(ember_forward(block->half[half].of_sum, f, x, &x));
    }
    *y = x;
    return EMBER_OK;
}

extern const ember_layer_type em_layer_post_norm;
const ember_layer_type em_layer_post_norm = {
    .name = "post_norm",
    .kind = EMBER_BLOCK,
    .size = sizeof(struct em_block),
    .options = options,
    .help = "norm(x + mixer(x)). Vaswani et al. 2017, arXiv:1706.03762",
    .build = build,
    .forward = forward,
};
