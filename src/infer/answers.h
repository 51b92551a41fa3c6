// Answers to a file of prompts: one JSON line each, in the prompts' order, durable, and resumed
// where an earlier run stopped. Until all are there they lie in OUT.partial, whose first line says
// which job they belong to; then OUT is replaced.
#ifndef EM_INFER_ANSWERS_H
#define EM_INFER_ANSWERS_H

#include "base/io.h"
#include "base/json.h"

struct em_answers {
    struct em_append log;
    const char *path; // borrowed
    char *partial;
    char **line;         // [count]: made, but not written as an earlier one is still missing
    size_t count, first; // answers in all, and the first that is not written
    size_t resumed;      // how many were there already
    uint64_t seed;       // of the job: that of the earlier run, if there was one
};

// `job` tells jobs apart (a hash of prompts, model and settings); `any_seed`: `seed` is only a
// proposal. EMBER_E_STATE: OUT.partial belongs to another job.
ember_status em_answers_open(const char *path, size_t count, uint64_t job, uint64_t seed,
                             bool any_seed, struct em_answers *out) EMBER_CHECKED;
// The answer of prompt `index`, without a newline; taken (also on failure).
ember_status em_answers_put(struct em_answers *a, size_t index, char *line) EMBER_CHECKED;
// Puts what is written on the disk; when nothing is missing, OUT is replaced and OUT.partial goes.
ember_status em_answers_finish(struct em_answers *a) EMBER_CHECKED;
void em_answers_close(struct em_answers *a);

#endif
