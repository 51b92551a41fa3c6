// The memory of training beside the parameters themselves: gradients and the optimizer's moments,
// and what walks over all of them at once. Sums are over fixed blocks in a fixed order, so nothing
// here depends on the number of threads.
#ifndef EM_TRAIN_PARAMETERS_H
#define EM_TRAIN_PARAMETERS_H

#include "base/threads.h"
#include "models/model.h"
#include "train/optimizer.h"

struct em_trainable {
    struct em_model *model; // borrowed
    struct em_pool *pool;
    float *gradients;           // of what is trained, in the parameters' order
    float *moments[EM_MOMENTS]; // the same layout; NULL where the optimizer has fewer
    size_t bytes;               // of each
    const struct em_optimizer *optimizer;
    const void *optimizer_options; // borrowed
    struct em_trainable_block *block;
    size_t n_blocks;
    double *partial;            // [n_blocks]
    struct em_update_step step; // that is being done
    bool dry;
};

// Values that are trained: neither buffers nor frozen.
size_t em_trainable_values(const struct em_model *model);
// What em_trainable_open takes: gradients and moments of these.
size_t em_trainable_bytes(const struct em_model *model, const struct em_optimizer *optimizer);

// Points the model's gradients into memory of its own; moments are zero.
ember_status em_trainable_open(struct em_model *model, const struct em_optimizer *optimizer,
                               const void *optimizer_options, struct em_pool *pool,
                               struct em_trainable *t) EMBER_CHECKED;
void em_trainable_close(struct em_trainable *t);

void em_trainable_zero_gradients(struct em_trainable *t);
void em_trainable_zero_moments(struct em_trainable *t);
// The 2-norm of the whole gradient.
double em_trainable_norm(struct em_trainable *t);
// One optimizer step over every parameter that has a gradient. `dry`: the same work, but on the
// gradients' memory instead of the parameters'; moments are garbage then. Gives the first parameter
// whose values or moments are no longer finite, NULL: none. They are looked at while they are in
// the cache.
const struct em_param *em_trainable_update(struct em_trainable *t,
                                           const struct em_update_step *step, bool dry);

// The last parameter (in the model's order) whose gradient is not finite, as backward came to it
// first; the first whose moment `m` is not; NULL: none. *count: how many of its elements are not.
// See em_model_find_bad() for values.
const struct em_param *em_trainable_bad_gradient(const struct em_trainable *t, size_t *count);
const struct em_param *em_trainable_bad_moment(const struct em_trainable *t, size_t m,
                                               size_t *count);

// Where a parameter's moments and gradient begin in their arrays. Frozen ones have none.
size_t em_trainable_offset(const struct em_trainable *t, size_t param);

#endif
