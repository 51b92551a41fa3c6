// One phase is one em_parallel. Its items are cut into units; each thread owns a range of them
// behind a cursor of its own, takes from the front of it, and when that is empty from the back of
// the others'. A cursor is one word of phase number and both ends, changed by compare-and-swap
// only, so a thread that comes late cannot take work of a phase it did not look at. The caller of
// em_parallel leaves when every item is done, not when every thread has seen the phase: a thread
// without a core is waited for only while it holds a unit, and gets one then
// (threads_processors.c).
#include "base/threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sizes.h"
#include "base/threads_priv.h"

enum {
    MOST_THREADS = 1024,
    MOST_UNITS = 65535, // of one thread in one phase: 16 bits
};

// Spinning longer than a wake-up costs (tens of microseconds) gains nothing and robs whoever shares
// the core.
static const int64_t spin_nanoseconds = 40 * 1000;

// Workers that were woken usually run by then.
static const int64_t late_nanoseconds = 30 * 1000;

// The pool whose task this thread is running, and its number there.
static _Thread_local const struct em_pool *inside;
static _Thread_local unsigned inside_number;

int64_t em_pool_clock(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void em_pool_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t while_it_is)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

// Units [*begin, *end) are thread t's.
static void range_of(size_t units, unsigned threads, unsigned t, size_t *begin, size_t *end)
{
    const size_t share = units / threads, extra = units % threads;
    *begin = share * t + (t < extra ? t : extra);
    *end = *begin + share + (t < extra);
}

static bool take(struct em_pool_cursor *cursor, uint32_t phase, bool front, size_t *unit)
{
    uint64_t word = atomic_load_explicit(&cursor->word, memory_order_acquire);
    for (;;) {
        const uint64_t first = word & 0xffff, last = word >> 16 & 0xffff;
        if (word >> 32 != phase || first == last) return false;
        const uint64_t next = front ? word + 1 : word - (UINT64_C(1) << 16);
        if (atomic_compare_exchange_weak_explicit(&cursor->word, &word, next, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            *unit = front ? first : last - 1;
            return true;
        }
    }
}

static void run_items(em_task *task, void *arg, size_t begin, size_t end, size_t grain,
                      unsigned number)
{
    while (begin < end) {
        const size_t n = end - begin < grain ? end - begin : grain;
        task(arg, begin, begin + n, number);
        begin += n;
    }
}

// Takes part in a phase until there is nothing left to take.
static void work_on(struct em_pool *pool, uint32_t phase, unsigned number)
{
    em_task *task = atomic_load_explicit(&pool->task, memory_order_relaxed);
    void *arg = atomic_load_explicit(&pool->arg, memory_order_relaxed);
    const size_t count = atomic_load_explicit(&pool->count, memory_order_relaxed);
    const size_t grain = atomic_load_explicit(&pool->grain, memory_order_relaxed);
    const size_t unit = atomic_load_explicit(&pool->unit, memory_order_relaxed);
    const size_t units = unit ? em_ceil_div(count, unit) : 0;
    size_t finished = 0;
    struct em_pool_worker *self = &pool->workers[number];
    em_pool_here(self);
    for (unsigned i = 0; i < pool->threads; i++) {
        const unsigned owner = (number + i) % pool->threads;
        size_t first, end, taken;
        range_of(units, pool->threads, owner, &first, &end);
        while (take(&pool->cursors[owner], phase, i == 0, &taken)) {
            if (finished == 0) atomic_store_explicit(&self->holds, true, memory_order_relaxed);
            const size_t begin = (first + taken) * unit;
            run_items(task, arg, begin, count - begin < unit ? count : begin + unit, grain, number);
            finished++;
        }
    }
    if (finished == 0) return;
    atomic_store_explicit(&self->holds, false, memory_order_relaxed);
    if (atomic_fetch_sub(&pool->left, finished) == finished && atomic_load(&pool->caller_sleeps)) {
        atomic_store(&pool->caller_sleeps, 0);
        futex_wake(&pool->caller_sleeps);
    }
}

// A thread that comes late does not hide one that sleeps after a later phase.
static void announce_sleep(struct em_pool *pool, uint32_t seen)
{
    uint64_t said = atomic_load(&pool->sleepers);
    while (!said || (int32_t)(seen - (uint32_t)(said - 1)) > 0)
        if (atomic_compare_exchange_weak(&pool->sleepers, &said, (uint64_t)seen + 1)) return;
}

static uint32_t wait_for_phase(struct em_pool_worker *self, uint32_t seen)
{
    struct em_pool *pool = self->pool;
    uint32_t phase = atomic_load(&pool->phase);
    if (phase != seen) return phase;
    if (pool->spins) {
        em_pool_leave_caller(self);
        for (const int64_t until = em_pool_clock() + spin_nanoseconds; em_pool_clock() < until;)
            for (int i = 0; i < 16; i++) {
                em_pool_relax();
                phase = atomic_load_explicit(&pool->phase, memory_order_acquire);
                if (phase != seen) return phase;
            }
        em_pool_hand_over(self);
    }
    // Said before the phase is looked at again: the caller does it in reverse.
    atomic_store(&self->asleep, true);
    announce_sleep(pool, seen);
    while ((phase = atomic_load(&pool->phase)) == seen)
        futex_wait(&pool->phase, seen);
    atomic_store(&self->asleep, false);
    return phase;
}

static void wait_for_done(struct em_pool *pool)
{
    if (atomic_load(&pool->left) == 0) return;
    if (pool->spins) {
        for (const int64_t until = em_pool_clock() + spin_nanoseconds; em_pool_clock() < until;)
            for (int i = 0; i < 16; i++) {
                em_pool_relax();
                if (atomic_load_explicit(&pool->left, memory_order_acquire) == 0) return;
            }
        em_pool_hand_over(&pool->workers[0]);
    }
    for (;;) {
        // An exchange, as emulators of weakly ordered processors let a load pass the store before
        // it.
        (void)atomic_exchange(&pool->caller_sleeps, 1);
        if (atomic_load(&pool->left) == 0) break;
        futex_wait(&pool->caller_sleeps, 1);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

static void start_phase(struct em_pool *pool)
{
    const uint32_t phase = atomic_fetch_add(&pool->phase, 1) + 1;
    uint64_t after = atomic_load(&pool->sleepers);
    if (after) {
        // Who sleeps after this very phase, which is over already, has to be found by the next one.
        if (after != (uint64_t)phase + 1)
            (void)atomic_compare_exchange_strong(&pool->sleepers, &after, 0);
        futex_wake(&pool->phase);
        pool->woken = em_pool_clock();
    } else if (pool->woken && em_pool_clock() - pool->woken > late_nanoseconds) {
        if (pool->spins) em_pool_place_workers(pool);
        pool->woken = 0;
    }
}

static void *worker_main(void *arg)
{
    struct em_pool_worker *worker = arg;
    struct em_pool *pool = worker->pool;
    inside = pool;
    inside_number = worker->number;
    // The pool's creation is phase 0; a thread that starts late just finds a later phase.
    for (uint32_t phase = 0;;) {
        phase = wait_for_phase(worker, phase);
        if (atomic_load(&pool->stop)) return NULL;
        work_on(pool, phase, worker->number);
    }
}

void em_parallel(struct em_pool *pool, size_t count, size_t grain, em_task *task, void *arg)
{
    if (count == 0) return;
    if (grain == 0) grain = 1;
    if (!pool || pool->threads == 1 || count <= grain || inside) {
        run_items(task, arg, 0, count, grain, inside == pool && pool ? inside_number : 0);
        return;
    }
    const size_t pieces = em_ceil_div(count, grain);
    const size_t together =
        em_ceil_div(pieces, (size_t)MOST_UNITS * pool->threads); // pieces of a unit
    const size_t unit = grain * together, units = em_ceil_div(count, unit);
    const uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed) + 1;
    atomic_store_explicit(&pool->task, task, memory_order_relaxed);
    atomic_store_explicit(&pool->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&pool->count, count, memory_order_relaxed);
    atomic_store_explicit(&pool->grain, grain, memory_order_relaxed);
    atomic_store_explicit(&pool->unit, unit, memory_order_relaxed);
    atomic_store_explicit(&pool->left, units, memory_order_relaxed);
    for (unsigned t = 0; t < pool->threads; t++) {
        size_t begin, end;
        range_of(units, pool->threads, t, &begin, &end);
        atomic_store_explicit(&pool->cursors[t].word,
                              (uint64_t)phase << 32 | (uint64_t)(end - begin) << 16,
                              memory_order_release);
    }
    em_pool_call(pool, true);
    start_phase(pool);
    inside = pool;
    inside_number = 0;
    work_on(pool, phase, 0);
    inside = NULL;
    wait_for_done(pool);
    em_pool_call(pool, false);
}

unsigned em_pool_threads(const struct em_pool *pool)
{
    return pool ? pool->threads : 1;
}

// Workers leave signals to the threads of the program, which may sleep in a call that one should
// interrupt.
static ember_status start_worker(struct em_pool_worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&worker->id, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        errno = error;
        return em_fail_errno("thread pool", "cannot start a thread");
    }
    char name[16];
    snprintf(name, sizeof name, "ember-%u", worker->number % 10000);
    (void)pthread_setname_np(worker->id, name);
    return EMBER_OK;
}

static void init_worker(struct em_pool *pool, unsigned number)
{
    pool->workers[number] =
        (struct em_pool_worker){.pool = pool, .number = number, .processor = -1};
    pthread_mutex_init(&pool->workers[number].moving, NULL);
}

ember_status em_pool_create(unsigned threads, struct em_pool **pool)
{
    const unsigned available = em_threads_available();
    if (threads == 0) threads = available < MOST_THREADS ? available : MOST_THREADS;
    if (threads > MOST_THREADS)
        return em_fail(EMBER_E_RANGE, "threads: expected 1 to %d, found %u", MOST_THREADS, threads);
    // One block: it is aligned to pages, which the lines of the cursors need.
    const size_t cursor_bytes = threads * sizeof(struct em_pool_cursor);
    const size_t bytes =
        sizeof(struct em_pool) + cursor_bytes + threads * sizeof(struct em_pool_worker);
    struct em_pool *p = em_block_alloc(bytes);
    if (!p) return EMBER_E_NOMEM;
    p->bytes = bytes;
    p->cursors = (struct em_pool_cursor *)(p + 1);
    p->workers = (struct em_pool_worker *)(p->cursors + threads);
    p->spins = threads <= available;
    init_worker(p, 0);
    p->threads = 1; // started so far, for em_pool_destroy
    for (unsigned t = 1; t < threads; t++) {
        init_worker(p, t);
        const ember_status status = start_worker(&p->workers[t]);
        if (status != EMBER_OK) {
            em_pool_destroy(p);
            return status;
        }
        p->threads = t + 1;
    }
    *pool = p;
    return EMBER_OK;
}

void em_pool_destroy(struct em_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->stop, true);
    start_phase(pool);
    for (unsigned t = 1; t < pool->threads; t++)
        pthread_join(pool->workers[t].id, NULL);
    for (unsigned t = 0; t < pool->threads; t++)
        pthread_mutex_destroy(&pool->workers[t].moving);
    em_block_free(pool, pool->bytes);
}
