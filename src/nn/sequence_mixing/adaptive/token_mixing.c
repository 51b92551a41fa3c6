// Adaptive token mixing, causal: a linear operator whose weights follow the mean of the tokens so
// far. The idea of input-conditioned operators is that of kyegomez/LFM; there the mean is over all
// tokens, later ones too, and a whole matrix is generated.
#include "nn/sequence_mixing/adaptive/adaptive.h"

static const ember_option options[] = {EM_ADAPTIVE_OPTIONS};

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *context;
    EMBER_TRY(ember_running_mean(f, x, &context));
    return em_adaptive_forward(l, f, x, context, y);
}

extern const ember_layer_type em_layer_token_mixing;
const ember_layer_type em_layer_token_mixing = {
    .name = "token_mixing",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct em_adaptive),
    .options = options,
    .help = "a linear operator with weights that the mean of the tokens so far adapts",
    .build = em_adaptive_build,
    .forward = forward,
};
