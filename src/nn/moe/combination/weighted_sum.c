// y = sum over a token's k experts of weight * output.
#include <ember/ops.h>

static const ember_option options[] = {{0}};

static ember_status build(ember_layer *l, ember_build *b)
{
    (void)l, (void)b;
    return EMBER_OK;
}

static ember_status combine(const ember_layer *l, ember_flow *f, ember_tensor *x,
                            ember_tensor *rows, const ember_routing *routing, ember_tensor **y)
{
    (void)l, (void)x;
    return ember_weighted_sum(f, rows, routing, y);
}

extern const ember_layer_type em_layer_weighted_sum;
const ember_layer_type em_layer_weighted_sum = {
    .name = "weighted_sum",
    .kind = EMBER_COMBINER,
    .size = sizeof(ember_layer),
    .options = options,
    .help = "the sum of the chosen experts' outputs times their weights",
    .build = build,
    .combine = combine,
};
