// What the plug-in says of itself.
#include <ember/plugin.h>

extern const ember_layer_type example_low_rank_glu, example_cosine_topk;

static const ember_layer_type *const layers[] = {&example_low_rank_glu, &example_cosine_topk, NULL};

const ember_plugin_descriptor ember_plugin = {
    .abi = EMBER_PLUGIN_ABI, .name = "example", .version = "1.0", .layers = layers};
