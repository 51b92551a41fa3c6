#include "nn/blocks/block.h"

ember_status em_block_build(struct em_block *block, ember_build *build, bool before, bool after)
{
    static const char *const name[2][3] = {{"sequence_norm", "sequence", "sequence_post_norm"},
                                           {"channel_norm", "channel", "channel_post_norm"}};
    static const ember_kind kind[2] = {EMBER_SEQUENCE_MIXER, EMBER_CHANNEL_MIXER};
    const ember_config *mixer[2] = {block->sequence, block->channel};
    if (block->drop_path > 0) EMBER_TRY(ember_build_need_tokens(build));
    if (!mixer[0] && !mixer[1])
        return ember_build_refuse(build, "",
                                  "a block needs a sequence mixer, a channel mixer, or both");
    for (unsigned i = 0; i < 2; i++) {
        struct em_half *h = &block->half[i];
        if (!mixer[i]) continue;
        if (before) EMBER_TRY(ember_child(build, name[i][0], EMBER_NORM, block->norm, &h->before));
        EMBER_TRY(ember_child(build, name[i][1], kind[i], mixer[i], &h->mixer));
        if (after) EMBER_TRY(ember_child(build, name[i][2], EMBER_NORM, block->norm, &h->after));
    }
    return EMBER_OK;
}

ember_status em_block_half(const struct em_block *block, ember_flow *flow, unsigned half,
                           ember_tensor *x, ember_tensor **y)
{
    const struct em_half *h = &block->half[half];
    ember_tensor *t = x;
    *y = NULL;
    if (!h->mixer) return EMBER_OK;
    if (h->before) EMBER_TRY(ember_forward(h->before, flow, t, &t));
    EMBER_TRY(ember_forward(h->mixer, flow, t, &t));
    if (h->after) EMBER_TRY(ember_forward(h->after, flow, t, &t));
    if (block->dropout > 0) EMBER_TRY(ember_dropout(flow, t, block->dropout, &t));
    if (block->drop_path > 0) EMBER_TRY(ember_drop_path(flow, t, block->drop_path, &t));
    *y = t;
    return EMBER_OK;
}

ember_status em_block_residual(const ember_layer *block, ember_flow *flow, ember_tensor *x,
                               ember_tensor **y)
{
    ember_tensor *mixed;
    for (unsigned half = 0; half < 2; half++) {
        EMBER_TRY(em_block_half((const struct em_block *)block, flow, half, x, &mixed));
        if (mixed) EMBER_TRY(ember_add(flow, x, mixed, &x));
    }
    *y = x;
    return EMBER_OK;
}
