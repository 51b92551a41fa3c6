// RMSprop: gradients divided by the root of their mean square. Tieleman and Hinton 2012, Neural
// Networks for Machine Learning, lecture 6. Weight decay is decoupled, as AdamW's.
#include "kernels/rmsprop.h"
#include "kernels/kernels.h"
#include "train/optimizer.h"

struct rmsprop {
    double weight_decay, rho, eps;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct rmsprop, weight_decay, 0, 0, 10,
                     "decoupled decay of matrices and embeddings; norms and biases have none"),
    EMBER_OPT_DOUBLE(struct rmsprop, rho, 0.9, 0, 0.99999, "memory of the gradient's square"),
    EMBER_OPT_DOUBLE(struct rmsprop, eps, 1e-7, 1e-16, 1, "added to the root of the mean square"),
    {0},
};

static float update(const void *opaque, const struct em_update_step *step,
                    const struct em_update *u)
{
    const struct rmsprop *o = opaque;
    const struct em_rmsprop k = {.lr = (float)u->lr,
                                 .rho = (float)o->rho,
                                 .eps = (float)o->eps,
                                 .decay = (float)em_update_decay(u, o->weight_decay),
                                 .gradient_scale = (float)step->gradient_scale};
    return em_kernels()->rmsprop_f32(u->value, u->moment[0], u->gradient, u->count, &k);
}

extern const struct em_optimizer em_optimizer_rmsprop;
const struct em_optimizer em_optimizer_rmsprop = {
    .name = "rmsprop",
    .help = "gradients divided by the root of their mean square. Tieleman and Hinton 2012",
    .options = options,
    .size = sizeof(struct rmsprop),
    .moments = 1,
    .update = update,
};
