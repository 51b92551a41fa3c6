// A run's logs: logs/train.jsonl (a line a step), logs/eval.jsonl (a line an evaluation) and
// TensorBoard's events. A training state knows their sizes; going on from it cuts them back.
#ifndef EM_TRAIN_RUN_LOG_H
#define EM_TRAIN_RUN_LOG_H

#include "base/io.h"
#include "base/json.h"
#include "report/tensorboard.h"
#include "train/evaluate.h"

struct em_run_log {
    char *folder; // logs/
    struct em_append train, eval;
    struct em_tensorboard board;
    uint64_t train_bytes, eval_bytes;
};

struct em_log_line {
    uint64_t step, tokens;                            // both so far
    double loss, bpb;                                 // bpb NAN: not known
    double lr, grad_norm, seconds, tokens_per_s, mfu; // seconds: of training so far
    const struct em_stepper *stepper;                 // for the routers' figures
    bool layers;                                      // each layer's figures as well
    const json_t *warnings;                           // of the routers; NULL: none
};

// JSON has no NaN: what is not known is null. NULL: out of memory.
json_t *em_json_finite(double v);
// The list with `value` (taken) at its end; NULL, and no list any more, when that fails.
json_t *em_json_add(json_t *list, json_t *value);

// `dir` is the run's; sizes as a state has them, 0 for a new run.
ember_status em_run_log_open(const char *dir, uint64_t train_bytes, uint64_t eval_bytes,
                             uint64_t last_step, struct em_run_log *log) EMBER_CHECKED;
void em_run_log_close(struct em_run_log *log); // {0} is fine
ember_status em_run_log_step(struct em_run_log *log, const struct em_log_line *line) EMBER_CHECKED;
ember_status em_run_log_eval(struct em_run_log *log, uint64_t step, uint64_t tokens,
                             const struct em_dataset *dataset,
                             const struct em_score *scores) EMBER_CHECKED;
// Of float sequences; `labels`: they have an accuracy.
ember_status em_run_log_scored(struct em_run_log *log, uint64_t step, uint64_t tokens,
                               const struct em_scored *scored, bool labels) EMBER_CHECKED;
ember_status em_run_log_sync(struct em_run_log *log) EMBER_CHECKED;

#endif
