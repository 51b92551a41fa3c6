// Faults one after the other: a scenario says what is prepared, what is called and what has to hold
// when the call has failed; a sweep makes the n-th allocation (or the n-th start of a thread) of
// that call fail, for every n that it has.
//
//     static const struct sweep_scenario scenario = {
//         .name = "open", .context = &job, .call = open_model, .after = check_files};
//     sweep(&scenario, &sweep_memory, sweep_amount_default());
#ifndef EMBER_TESTS_SWEEP_H
#define EMBER_TESTS_SWEEP_H

#include <stdbool.h>

#include "support/check.h"

struct sweep_scenario {
    const char *name;
    void *context;
    void (*setup)(void *context);        // before each call; NULL: nothing to prepare
    ember_status (*call)(void *context); // frees what it gets
    void (*after)(void *context,
                  ember_status status); // after each call, faults are off; may be NULL
    // So many faults of a sweep may be done without (a cache that is not tidied up): the call then
    // succeeds, and `after` sees to its being whole.
    size_t spares;
};

// What fails.
struct sweep_fault {
    const char *name;          // "allocation"
    ember_status status;       // that a call has to fail with,
    const char *message;       // and a part of what it has to say
    void (*fail_at)(size_t n); // the n-th from now, 1: the next; 0: none
    size_t (*count)(void);     // so far
};
extern const struct sweep_fault sweep_memory;
// Linked in only where it is used: the program's own pthread_create stands before the system's.
extern const struct sweep_fault sweep_threads;

// Each of the first `first`, then every `stride`-th.
struct sweep_amount {
    size_t first, stride;
};
// 2,000 and 97; all by the flag.
struct sweep_amount sweep_amount_default(void);

struct sweep_figures {
    size_t calls;    // of the call without a fault
    size_t failures; // that were staged
    size_t spared;   // of them, that the call did without
};

// Every staged fault has to end the call with the fault's status and message, to leave no memory
// behind, and `after` has to be content; at last the call without a fault has to succeed.
struct sweep_figures sweep(const struct sweep_scenario *scenario, const struct sweep_fault *fault,
                           struct sweep_amount amount);

#endif
