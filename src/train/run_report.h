// report.html and report.json of a run, from its logs and its last evaluation.
#ifndef EM_TRAIN_RUN_REPORT_H
#define EM_TRAIN_RUN_REPORT_H

#include "base/arena.h"
#include "report/report.h"
#include "train/run.h"

enum { EM_XZ_LARGEST = 8 << 20 }; // longer text would keep the user waiting for a yardstick

struct em_run_report {
    struct em_report report; // points into the arena and the run
    struct em_arena arena;
};

// `scores` and `views` are those of the last evaluation; views NULL: nothing is held out.
ember_status em_run_report_open(struct em_training *t, const struct em_score *scores,
                                const struct em_expert_views *views,
                                struct em_run_report *r) EMBER_CHECKED;
void em_run_report_close(struct em_run_report *r);
ember_status em_run_report_write(const struct em_run_report *r, const char *dir) EMBER_CHECKED;
// The curve and the tables for the terminal behind a file descriptor.
ember_status em_run_report_sketch(const struct em_run_report *r, int fd,
                                  struct em_buf *out) EMBER_CHECKED;

// ---- run_curves.c: what logs/*.jsonl say ----

// Curves, and what em_run_routers() adds. The layers are there already.
ember_status em_run_curves(struct em_training *t, struct em_run_report *r,
                           struct em_report_layer *layers) EMBER_CHECKED;

// ---- run_routers.c: what the log says of routers ----

// Calls `visit` for every line of a log of the run in `dir`.
ember_status em_run_each_line(const char *dir, const char *name,
                              ember_status (*visit)(void *context, const json_t *line),
                              void *context) EMBER_CHECKED;
// The report's load_steps, its layers' load, and the warnings that there were in training.
ember_status em_run_routers(const char *dir, struct em_arena *arena, struct em_report_layer *layers,
                            struct em_report *report) EMBER_CHECKED;

#endif
