// Who runs where, when there are more threads than processors because another process wants one.
//
// The system leaves a thread that it preempted where it is, for milliseconds, although the threads
// that wait for it have nothing to do with their processors; a caller that starts phases of some
// microseconds then does nothing half of the time. So a thread that has waited for longer than a
// phase should take looks whether those that it waits for get any processor time at all, and puts
// one that does not into the queue of its own processor, which it then leaves:
//   a worker that waits for the caller changes places with it;
//   the caller that waits for a worker sleeps until that is done, and has its processor back.
// And as waking a thread when no processor is free may put it behind the caller, which is not going
// to stop, workers are moved away from there.
//
// A move is an affinity to one processor for the time of two system calls, and then what it was
// before: threads of a pool may run wherever the program was allowed to. Where the system refuses,
// nothing is lost but time.
#include <sched.h>
#include <time.h>

#include "base/threads_priv.h"

enum { MOST_WATCHED = 64 }; // threads, by one that waits

// Long against a clock's step, short against a time slice.
static const int64_t watch_nanoseconds = 5 * 1000;

// Nanoseconds of processor time that a thread has had up to now; -1 where that is not known.
static int64_t processor_time(pthread_t thread)
{
    clockid_t clock;
    struct timespec t;
    if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &t)) return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Another one that the calling thread may run on; -1 where there is none.
static int next_processor(int processor)
{
    cpu_set_t allowed;
    if (processor < 0 || processor >= CPU_SETSIZE) return -1;
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed)) return -1;
    for (int i = 1; i < CPU_SETSIZE; i++)
        if (CPU_ISSET((processor + i) % CPU_SETSIZE, &allowed))
            return (processor + i) % CPU_SETSIZE;
    return -1;
}

// A thread that starts others meanwhile would leave them an affinity to one processor alone; those
// of a pool start none in tasks.
static bool move_thread(pthread_t thread, int processor)
{
    cpu_set_t allowed, one;
    if (processor < 0 || processor >= CPU_SETSIZE) return false;
    if (pthread_getaffinity_np(thread, sizeof allowed, &allowed)) return false;
    if (!CPU_ISSET(processor, &allowed)) return false;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (pthread_setaffinity_np(thread, sizeof one, &one)) return false;
    return pthread_setaffinity_np(thread, sizeof allowed, &allowed) == 0;
}

static bool move_self(struct em_pool_worker *self, int processor)
{
    if (pthread_mutex_trylock(&self->moving)) return false;
    const bool moved = move_thread(pthread_self(), processor);
    pthread_mutex_unlock(&self->moving);
    return moved;
}

static bool move_other(struct em_pool_worker *w, int processor)
{
    if (pthread_mutex_trylock(&w->moving)) return false;
    const bool moved = (w->number || w->pool->called) && move_thread(w->id, processor);
    pthread_mutex_unlock(&w->moving);
    return moved;
}

// What a thread has had that others wait for: a worker with units, or the caller; -1 otherwise.
static int64_t time_if_needed(struct em_pool_worker *w)
{
    int64_t time = -1;
    if (pthread_mutex_trylock(&w->moving)) return -1;
    if (w->number ? atomic_load(&w->holds) : w->pool->called) time = processor_time(w->id);
    pthread_mutex_unlock(&w->moving);
    return time;
}

void em_pool_call(struct em_pool *pool, bool begins)
{
    struct em_pool_worker *caller = &pool->workers[0];
    pthread_mutex_lock(&caller->moving);
    caller->id = pthread_self();
    pool->called = begins;
    pthread_mutex_unlock(&caller->moving);
}

void em_pool_here(struct em_pool_worker *self)
{
    if (!atomic_load_explicit(&self->lent, memory_order_relaxed))
        atomic_store_explicit(&self->processor, sched_getcpu(), memory_order_relaxed);
}

void em_pool_leave_caller(struct em_pool_worker *self)
{
    const int here = sched_getcpu(), home = atomic_load(&self->processor);
    const bool lent = atomic_exchange(&self->lent, false);
    if (here < 0 || (!lent && here != atomic_load(&self->pool->workers[0].processor))) return;
    (void)move_self(self, home >= 0 && home != here ? home : next_processor(here));
}

// Thread w waits for a processor, and this one, on processor `here`, waits for w.
static void give(struct em_pool_worker *self, struct em_pool_worker *w, int here)
{
    const int there = atomic_load(&w->processor);
    const bool shared = there == here; // then w runs as soon as this thread is out of its way
    if (!shared && !move_other(w, here)) return;
    if (self->number == 0) {
        atomic_store(&w->lent, true);
        return;
    }
    const int next = shared ? next_processor(here) : there;
    atomic_store(&w->processor, here);
    if (next < 0) return;
    atomic_store(&self->processor, next);
    (void)move_self(self, next);
}

void em_pool_hand_over(struct em_pool_worker *self)
{
    struct em_pool *pool = self->pool;
    if (self->number) { // while a pool is created its threads are not known, and it has no caller
        pthread_mutex_lock(&pool->workers[0].moving);
        const bool called = pool->called;
        pthread_mutex_unlock(&pool->workers[0].moving);
        if (!called) return;
    }
    int64_t before[MOST_WATCHED];
    const unsigned watched = pool->threads < MOST_WATCHED ? pool->threads : MOST_WATCHED;
    const int here = sched_getcpu();
    for (unsigned t = 0; t < watched; t++)
        before[t] = t == self->number ? -1 : time_if_needed(&pool->workers[t]);
    for (const int64_t until = em_pool_clock() + watch_nanoseconds; em_pool_clock() < until;)
        em_pool_relax();
    for (unsigned t = 0; t < watched; t++)
        if (before[t] >= 0 && time_if_needed(&pool->workers[t]) == before[t]) {
            give(self, &pool->workers[t], here);
            return;
        }
}

void em_pool_place_workers(struct em_pool *pool)
{
    const int here = sched_getcpu();
    for (unsigned t = 1; t < pool->threads; t++) {
        struct em_pool_worker *w = &pool->workers[t];
        const int home = atomic_load(&w->processor);
        if (atomic_load(&w->asleep) && home >= 0 && home != here) (void)move_other(w, home);
    }
}
