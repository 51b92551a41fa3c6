// What threads.c (phases of work) and threads_processors.c (who runs where) share.
#ifndef EM_BASE_THREADS_PRIV_H
#define EM_BASE_THREADS_PRIV_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/threads.h"

enum { EM_POOL_LINE = 128 }; // two cache lines: the prefetcher fetches pairs

struct em_pool_cursor {
    // phase << 32 | back << 16 | front; units relative to the range
    alignas(EM_POOL_LINE) _Atomic uint64_t word;
};

struct em_pool_worker {
    struct em_pool *pool;
    unsigned number;
    // Of number 0: the caller, while there is one. A worker does not read its own.
    pthread_t id;
    alignas(EM_POOL_LINE) atomic_bool holds; // units that are not done
    atomic_bool asleep;                      // or woken and not running yet
    atomic_bool lent;                        // runs on the processor of the caller, who sleeps
    atomic_int processor;                    // where it ran last, or belongs; -1: not known
    pthread_mutex_t moving;                  // held by who changes its affinity
};

struct em_pool {
    unsigned threads;
    size_t bytes; // of the block that holds all this
    bool spins;   // not when the pool has more threads than there are cores
    struct em_pool_worker *workers;
    struct em_pool_cursor *cursors;

    // The phase's work. Atomic, as a late thread may read them while the next phase is written;
    // what it read counts only when it then gets a unit of the phase that it saw.
    _Atomic(em_task *) task;
    _Atomic(void *) arg;
    atomic_size_t count, grain, unit;

    alignas(EM_POOL_LINE) _Atomic uint32_t phase;
    alignas(EM_POOL_LINE) atomic_size_t left; // units not done yet
    // 1 + the phase after which somebody sleeps until the next, or did not see that he need not; 0:
    // all of those were woken.
    alignas(EM_POOL_LINE) _Atomic uint64_t sleepers;
    _Atomic uint32_t caller_sleeps;
    atomic_bool stop;

    // The caller's alone: when sleepers were last woken; 0: they have been looked after.
    int64_t woken;

    // Within em_parallel, on the thread workers[0].id. Changed with workers[0].moving held: the
    // caller does not leave while its affinity is not its own.
    bool called;
};

int64_t em_pool_clock(void); // nanoseconds
void em_pool_relax(void);    // for a moment

void em_pool_call(struct em_pool *pool, bool begins);

// Where the thread is, for those who look for it.
void em_pool_here(struct em_pool_worker *self);

// A worker that shares a processor with the caller goes elsewhere.
void em_pool_leave_caller(struct em_pool_worker *self);

// Of the threads that have to finish something before this one has anything to do, gives one that
// was preempted the processor that this one runs on.
void em_pool_hand_over(struct em_pool_worker *self);

// The caller sends workers that were woken and have not run since back to where they were.
void em_pool_place_workers(struct em_pool *pool);

#endif
