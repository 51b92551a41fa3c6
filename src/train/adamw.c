// AdamW: Adam with decoupled weight decay. Kingma and Ba 2014, arXiv:1412.6980; Loshchilov and
// Hutter 2017, arXiv:1711.05101, algorithm 2.
#include <math.h>

#include "kernels/adamw.h"
#include "kernels/kernels.h"
#include "train/optimizer.h"

struct adamw {
    double weight_decay, beta1, beta2, eps;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct adamw, weight_decay, 0.1, 0, 10,
                     "decoupled decay of matrices and embeddings; norms and biases have none"),
    EMBER_OPT_DOUBLE(struct adamw, beta1, 0.9, 0, 0.9999, "memory of the mean gradient"),
    EMBER_OPT_DOUBLE(struct adamw, beta2, 0.95, 0, 0.99999, "memory of its square"),
    EMBER_OPT_DOUBLE(struct adamw, eps, 1e-8, 1e-16, 1, "added to the root of the mean square"),
    {0},
};

static float update(const void *opaque, const struct em_update_step *step,
                    const struct em_update *u)
{
    const struct adamw *o = opaque;
    const double t = (double)step->number;
    const struct em_adamw k = {
        .lr = (float)u->lr,
        .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2,
        .eps = (float)o->eps,
        .decay = (float)em_update_decay(u, o->weight_decay),
        .gradient_scale = (float)step->gradient_scale,
        .correction1 = (float)(1 - pow(o->beta1, t)),
        .correction2 = (float)(1 - pow(o->beta2, t)),
    };
    return em_kernels()->adamw_f32(u->value, u->moment[0], u->moment[1], u->gradient, u->count, &k);
}

extern const struct em_optimizer em_optimizer_adamw;
const struct em_optimizer em_optimizer_adamw = {
    .name = "adamw",
    .help = "Adam with decoupled weight decay. arXiv:1711.05101",
    .options = options,
    .size = sizeof(struct adamw),
    .moments = 2,
    .update = update,
};
