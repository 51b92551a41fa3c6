// A linear operator whose weights follow the token itself.
#include "nn/sequence_mixing/adaptive/adaptive.h"

static const ember_option options[] = {EM_ADAPTIVE_OPTIONS};

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    return em_adaptive_forward(l, f, x, x, y);
}

extern const ember_layer_type em_layer_adaptive_linear;
const ember_layer_type em_layer_adaptive_linear = {
    .name = "adaptive_linear",
    .kind = EMBER_CHANNEL_MIXER,
    .size = sizeof(struct em_adaptive),
    .options = options,
    .help = "a linear operator with weights that the token itself adapts",
    .build = em_adaptive_build,
    .forward = forward,
};
