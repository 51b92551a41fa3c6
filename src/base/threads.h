// The thread pool. Work is split over outputs, never over sums, so results do not depend on the
// number of threads or on who took which piece.
#ifndef EM_BASE_THREADS_H
#define EM_BASE_THREADS_H

#include <stddef.h>

#include "base/fail.h"

struct em_pool;

// Threads that affinity and the cgroup CPU quota allow, at least 1.
unsigned em_threads_available(void);

// The same with its reasons. Files are looked for below `root`: "" for those of the system.
struct em_threads_found {
    unsigned threads;
    unsigned affinity;     // processors that this process may run on
    double quota;          // processors that the smallest cgroup quota pays for; 0: there is none
    char quota_file[1200]; // the file that says so
};
void em_threads_find(const char *root, struct em_threads_found *found);

// threads = 0: em_threads_available(). The caller of em_parallel is thread 0.
ember_status em_pool_create(unsigned threads, struct em_pool **pool) EMBER_CHECKED;
void em_pool_destroy(struct em_pool *pool);
unsigned em_pool_threads(const struct em_pool *pool); // 1 for NULL

// Items [begin, end) are this call's; `thread` < em_pool_threads(pool) is unique among the calls
// that run at the same time, to index per-thread scratch.
typedef void em_task(void *arg, size_t begin, size_t end, unsigned thread);

// Runs task over [0, count) in pieces of at most `grain` items (0: 1) and returns when all are
// done. Each thread owns a contiguous range, takes pieces from its front, and steals from others
// when done (a neighbour process that takes a core costs one piece, not half the work). NULL pool,
// one thread, one piece, or a call from inside a task: runs inline on the calling thread, with its
// thread number. Not to be called on one pool from two threads at once.
void em_parallel(struct em_pool *pool, size_t count, size_t grain, em_task *task, void *arg);

#endif
