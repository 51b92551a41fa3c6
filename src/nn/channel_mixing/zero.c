// The null expert: whatever comes in, zeros come out. A token that goes there is left to the
// residual path. Jin et al. 2024 (MoE++), arXiv:2410.07348.
#include <ember/ops.h>

static const ember_option options[] = {{0}};

static ember_status build(ember_layer *l, ember_build *b)
{
    (void)l, (void)b;
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    (void)l;
    return ember_scale(f, x, 0, y);
}

extern const ember_layer_type em_layer_zero;
const ember_layer_type em_layer_zero = {
    .name = "zero",
    .kind = EMBER_CHANNEL_MIXER,
    .size = sizeof(ember_layer),
    .options = options,
    .help = "zeros: an expert that leaves a token alone. arXiv:2410.07348",
    .build = build,
    .forward = forward,
};
