// A block of channel mixing as one channel mixer: norms and residual paths within an expert.
#include <ember/ops.h>

#include "nn/build.h"

struct wrapped {
    ember_layer base;
    const ember_config *block;
    ember_layer *layer;
};

static const ember_option options[] = {
    EMBER_OPT_COMPONENT(struct wrapped, block, EMBER_BLOCK,
                        "{\"type\": \"pre_norm\", \"channel\": {\"type\": \"swiglu\"}}",
                        "a block without a sequence mixer: an expert sees some of a sequence's "
                        "tokens only"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct wrapped *w = (struct wrapped *)l;
    const size_t width = ember_build_width(b);
    const json_t *json = em_config_json(w->block);
    if (json_object_get(json, "sequence") || !json_object_get(json, "channel"))
        return ember_build_refuse(b, "block", "has to have a channel mixer and no sequence mixer");
    EMBER_TRY(ember_child(b, "block", EMBER_BLOCK, w->block, &w->layer));
    if (ember_build_width(b) != width)
        return ember_build_refuse(b, "block", "has to leave the width as it is");
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return ember_forward(((const struct wrapped *)l)->layer, f, x, y);
}

extern const ember_layer_type em_layer_block;
const ember_layer_type em_layer_block = {
    .name = "block",
    .kind = EMBER_CHANNEL_MIXER,
    .size = sizeof(struct wrapped),
    .options = options,
    .help = "a block of channel mixing, with its norms and residual paths",
    .build = build,
    .forward = forward,
};
