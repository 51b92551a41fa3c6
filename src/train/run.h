// A run of training: what the parts of the trainer share.
#ifndef EM_TRAIN_RUN_H
#define EM_TRAIN_RUN_H

#include "train/evaluate.h"
#include "train/router_watch.h"
#include "train/run_log.h"
#include "train/tokenizer_choice.h"
#include "train/trainer.h"

// How far a run is; a training state holds it.
struct em_progress {
    uint64_t step, steps, tokens; // done, in all, trained on
    uint64_t evaluated;           // the last step after which held-out text was scored
    double seconds;               // of training
    double best;                  // mean bits per byte on held-out text, or the loss on held-out
                                  // float sequences; NAN before the first
    uint64_t best_step;
    double last_loss;
};

// What a run needs and takes, before it begins.
struct em_forecast {
    size_t parameters, active;
    size_t weights, gradients, optimizer, packed, activations, scratch, text, other, memory;
    uint64_t free_memory; // 0: not known
    uint64_t disk, free_disk;
    double step_seconds;               // measured; 0: not
    double evaluation_seconds;         // of a token on held-out text
    double file_seconds, byte_seconds; // to write a file for good: each, and for each byte of it
    double total_seconds, end_seconds; // end: of those, after the last step
    uint64_t first_step;               // that this part of the run does
};

struct em_run_state { // of the folder that a run writes to
    char *dir;
    int lock;                         // -1: not held
    char *state;                      // folder of the state to go on from, or NULL
    uint64_t train_bytes, eval_bytes; // of the logs, in that state
    uint64_t data_hash;
    bool fresh; // the folder was absent or empty
};

struct em_training {
    const struct em_train_job *job;
    struct em_recipe recipe;
    struct em_run_state run;
    struct em_tokenizer_choice tokenizer;
    struct em_batches batches;
    struct em_model *model;
    struct em_trainable trainable;
    struct em_stepper stepper;
    bool bf16;
    double peak_flops; // of all threads in the format of the run
    struct em_forecast forecast;
    struct em_progress progress;
    double started; // on the clock, when the forecast was told
    bool began;     // the folder holds a run
    struct em_run_log log;
    struct em_router_watch watch;
    struct em_routing_trace trace;
    struct em_score *untrained; // [domains], NULL without held-out text
    size_t context;             // of evaluation windows
    double held_out;            // bits per byte of the last evaluation, NAN before it
    struct em_scored scored;    // of float sequences, by the last evaluation; 0 places: none
};

// ---- run_folder.c: the run's folder ----

// Takes the folder: absent or empty, or one to go on from; opens the recipe.
ember_status em_run_open(struct em_training *t) EMBER_CHECKED;
void em_run_close(struct em_run_state *r);
// After a failure before the first step: takes out of a fresh folder what the run put there, so
// that the mistake can be corrected and the same command be given again.
void em_run_undo(const struct em_run_state *r);

// ---- run_data.c: data.json of the run's folder ----

ember_status em_run_write_data(const struct em_training *t) EMBER_CHECKED;
// A list of domains, each with its files.
ember_status em_run_read_data(const struct em_training *t, json_t **list) EMBER_CHECKED;
// Why the data are not those of data.json, as text for a message.
void em_run_find_change(const struct em_training *t, char *text, size_t size);

// ---- setup.c: everything that the recipe names ----

ember_status em_training_setup(struct em_training *t) EMBER_CHECKED;
void em_training_deinit(struct em_training *t);

// ---- forecast_memory.c, forecast_time.c, forecast_disk.c, forecast.c ----

ember_status em_forecast_memory(struct em_training *t) EMBER_CHECKED;
// Measures a few steps, and from them fixes the number of steps and the time.
ember_status em_forecast_time(struct em_training *t) EMBER_CHECKED;
uint64_t em_evaluation_every(const struct em_training *t); // steps between evaluations; 0: none
void em_probe_disk(struct em_training *t);                 // how fast it writes
// EMBER_E_IO: there is no room for the states.
ember_status em_forecast_disk(struct em_training *t) EMBER_CHECKED;
ember_status em_forecast_print(const struct em_training *t, struct em_buf *out) EMBER_CHECKED;
json_t *em_forecast_json(const struct em_training *t); // NULL: out of memory
// Seconds until the end, at so many a step: scores, states and report are as they were foretold.
double em_forecast_left(const struct em_training *t, double step_seconds);
// A line with what the run took, beside what was foretold.
void em_forecast_outcome(const struct em_training *t);

// ---- run_state.c: training states ----

ember_status em_run_save(struct em_training *t) EMBER_CHECKED;
// The moments of the state in t->run.state, whose model and progress are there already; the
// folder's model becomes that state's.
ember_status em_run_load(struct em_training *t) EMBER_CHECKED;
// Progress and the untrained model's scores.
ember_status em_run_load_progress(struct em_training *t) EMBER_CHECKED;
// Puts config and tokenizer into the run's folder; later ones are copied from there.
ember_status em_run_begin_folder(struct em_training *t) EMBER_CHECKED;
// DIR/best from the weights as they are.
ember_status em_run_save_best(struct em_training *t) EMBER_CHECKED;

// ---- finish.c: what a finished run leaves ----

ember_status em_run_finish(struct em_training *t, struct em_train_result *result) EMBER_CHECKED;
// logs/eval.json: one object a domain.
ember_status em_write_eval(const struct em_training *t,
                           const struct em_score *scores) EMBER_CHECKED;
// The recipe for others' eyes: files without the folders that they lie in.
ember_status em_print_recipe(const struct em_training *t, struct em_buf *out) EMBER_CHECKED;
// README.md, the model's card.
ember_status em_write_card(const struct em_training *t,
                           const struct em_score *scores) EMBER_CHECKED;

#endif
