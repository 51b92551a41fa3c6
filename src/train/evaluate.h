// Scores on held-out text.
#ifndef EM_TRAIN_EVALUATE_H
#define EM_TRAIN_EVALUATE_H

#include "data/windows.h"
#include "report/expert_view.h"
#include "train/routing_trace.h"
#include "train/step.h"

struct em_score {
    double nats, bytes;
    uint64_t tokens;
};
double em_score_bpb(const struct em_score *s); // NAN where there is no held-out text
// Mean over domains that have held-out text, each the same weight; NAN without any.
double em_mean_bpb(const struct em_score *scores, size_t count);

struct em_evaluation {
    const struct em_dataset *dataset;
    size_t context;                  // tokens of a window
    uint64_t limit;                  // about so many tokens of a domain; 0: all
    struct em_expert_views *experts; // NULL: not looked at
    struct em_routing_trace *trace;  // a moment of it was begun; NULL: none
};
// One score a domain. EMBER_E_INTERRUPTED where a stop was asked for.
ember_status em_evaluate(struct em_stepper *s, const struct em_evaluation *e,
                         struct em_score *scores) EMBER_CHECKED;

// The same for float sequences, whose rows have to be no longer than those that are trained on.
ember_status em_evaluate_tensors(struct em_stepper *s, const struct em_tensor_source *source,
                                 struct em_scored *out) EMBER_CHECKED;

// For every router of the stepper, over windows of `context` tokens.
ember_status em_stepper_views(const struct em_stepper *s, const struct em_dataset *dataset,
                              size_t context, struct em_expert_views *out) EMBER_CHECKED;

// DIR/logs/heldout/DOMAIN.txt, owned; NULL: out of memory.
char *em_held_out_path(const char *dir, const char *domain);
// Writes them: the bytes that such an evaluation scores, in its order.
ember_status em_write_held_out(const char *dir, const struct em_evaluation *e,
                               size_t batch_tokens) EMBER_CHECKED;

#endif
