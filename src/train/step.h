// One training step: batches in, parameters changed, figures out.
#ifndef EM_TRAIN_STEP_H
#define EM_TRAIN_STEP_H

#include "data/packed.h"
#include "ops/program.h"
#include "train/batches.h"
#include "train/parameters.h"
#include "train/routers.h"

struct em_stepper_options {
    enum em_backend backend;
    struct em_pool *pool;
    bool bf16, recompute;
    enum em_head head;             // 0: EM_HEAD_LOSS
    bool whole_rows;               // a row is one sequence; otherwise it may be cut into many
    bool scoring;                  // only ever em_stepper_evaluate(): nothing is kept for backward
    size_t batch, seq, accumulate; // accumulate: parts that a batch is computed in
    uint64_t seed;
};

// The recorded pass over a model, and what training and evaluation share.
struct em_stepper {
    struct em_model *model;         // borrowed
    struct em_trainable *trainable; // borrowed
    struct em_program *program;
    struct em_model_outputs outputs;
    struct em_packed packed;
    struct em_router_record *routers;
    size_t n_routers;
    struct em_router_figures *figures; // [n_routers] of the last step
    struct em_stepper_options options;
};

// Records and plans; em_stepper_allocate() takes the memory.
ember_status em_stepper_open(struct em_model *model, struct em_trainable *trainable,
                             const struct em_stepper_options *options,
                             struct em_stepper *s) EMBER_CHECKED;
ember_status em_stepper_allocate(struct em_stepper *s) EMBER_CHECKED;
// Gives the pass's memory back; what is known of the routers stays, but not their tensors.
void em_stepper_release(struct em_stepper *s);
void em_stepper_close(struct em_stepper *s);

struct em_step_request {
    const struct em_batches *batches;
    uint64_t step; // 0: the first
    double lr, clip;
    double share; // of the peak that lr is
    bool dry;     // for timing: all the work, but parameters stay, and moments are zero afterwards
};
struct em_step_figures {
    double loss;      // mean over scored places, nats
    double bytes;     // raw bytes that the targets stand for; 0: not known
    double grad_norm; // before clipping
    uint64_t tokens;
};
// EMBER_E_NUMERIC: the loss, a gradient, or what the update makes of them is not finite; the
// message names the step, the layer and the tensor. But in the last case parameters and moments are
// as before the step.
ember_status em_step(struct em_stepper *s, const struct em_step_request *request,
                     struct em_step_figures *out) EMBER_CHECKED;

struct em_scored {
    double loss;            // the sum of negative log-likelihoods in nats, or of squared errors
    uint64_t places, right; // right: of labels, those with the largest logit
};
// A forward pass alone in evaluation mode over the stepper's own batch `packed`.
ember_status em_stepper_evaluate(struct em_stepper *s, struct em_scored *out) EMBER_CHECKED;

#endif
