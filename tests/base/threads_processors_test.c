// Who runs where: threads that wait give their processors to those that they wait for, and nothing
// of that shows afterwards. A thread that sleeps within a task looks as if it had been preempted.
// timeout: 120
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/threads.h"
#include "support/check.h"

enum { ITEMS = 64 };

static cpu_set_t affinity(void)
{
    cpu_set_t set;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof set, &set), 0);
    return set;
}

struct job {
    unsigned sleeper; // thread that sleeps in its first item; 1000: none
    atomic_bool slept;
    atomic_uint done[ITEMS];
};

static void work(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct job *job = arg;
    bool none = false;
    if (thread == job->sleeper && atomic_compare_exchange_strong(&job->slept, &none, true))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&job->done[i], 1);
}

static void check_phase(struct em_pool *pool, unsigned sleeper)
{
    struct job job = {.sleeper = sleeper};
    em_parallel(pool, ITEMS, 1, work, &job);
    for (size_t i = 0; i < ITEMS; i++)
        assert_int_equal(job.done[i], 1);
}

struct masks {
    cpu_set_t expected;
    atomic_uint seen[8];
};

static void compare_affinity(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)begin;
    (void)end;
    struct masks *m = arg;
    const cpu_set_t now = affinity();
    if (CPU_EQUAL(&now, &m->expected)) atomic_fetch_add(&m->seen[thread], 1);
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); // so that every thread gets some
}

// A worker may be on its way to another processor just when it looks, so each looks until it has
// seen its own affinity again.
static void check_affinities(struct em_pool *pool, const cpu_set_t *expected)
{
    struct masks m = {.expected = *expected};
    const unsigned threads = em_pool_threads(pool);
    const double end = em_clock_seconds() + 60;
    for (unsigned seen = 0; seen < threads;) {
        em_parallel(pool, ITEMS, 1, compare_affinity, &m);
        seen = 0;
        for (unsigned t = 0; t < threads; t++)
            seen += m.seen[t] > 0;
        if (em_clock_seconds() > end) fail_msg("%u of %u threads", seen, threads);
    }
    const cpu_set_t now = affinity();
    assert_true(CPU_EQUAL(&now, expected));
}

static void stalled_threads_lose_nothing(void **state)
{
    (void)state;
    const cpu_set_t before = affinity();
    for (unsigned threads = 2; threads <= 4; threads++) {
        struct em_pool *pool;
        CHECK_OK(em_pool_create(threads, &pool));
        for (unsigned round = 0; round < 100; round++) {
            check_phase(pool, round % (threads + 1));
            const cpu_set_t now = affinity();
            assert_true(CPU_EQUAL(&now, &before));
        }
        check_affinities(pool, &before);
        em_pool_destroy(pool);
    }
}

// Phases of different callers, one after the other: the workers never look at one that is gone.
static void *call_once(void *pool)
{
    check_phase(pool, 0);
    check_phase(pool, 1);
    return NULL;
}

static void callers_come_and_go(void **state)
{
    (void)state;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(2, &pool));
    for (unsigned i = 0; i < 50; i++) {
        pthread_t caller;
        assert_int_equal(pthread_create(&caller, NULL, call_once, pool), 0);
        pthread_join(caller, NULL);
    }
    em_pool_destroy(pool);
}

// A caller that may use one processor alone is never moved from it, nor is a worker of its own.
static void pinned_threads_stay(void **state)
{
    (void)state;
    const cpu_set_t before = affinity();
    struct em_pool *both;
    CHECK_OK(em_pool_create(2, &both));
    cpu_set_t one;
    CPU_ZERO(&one);
    int processor = 0;
    while (!CPU_ISSET(processor, &before))
        processor++;
    CPU_SET(processor, &one);
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    for (unsigned round = 0; round < 50; round++) {
        check_phase(both, round % 3);
        const cpu_set_t now = affinity();
        assert_true(CPU_EQUAL(&now, &one) && sched_getcpu() == processor);
    }
    struct em_pool *single;
    CHECK_OK(em_pool_create(2, &single)); // more threads than they may use processors
    for (unsigned round = 0; round < 20; round++)
        check_phase(single, round % 3);
    check_affinities(single, &one);
    em_pool_destroy(single);
    em_pool_destroy(both);
    assert_int_equal(pthread_setaffinity_np(pthread_self(), sizeof before, &before), 0);
}

static void spin(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    for (size_t i = begin; i < end; i++)
        for (volatile unsigned turns = 0; turns < 20000; turns = turns + 1) {
        }
    atomic_fetch_add((atomic_size_t *)arg, end - begin);
}

static double phases_a_second(struct em_pool *pool)
{
    atomic_size_t done = 0;
    size_t phases = 0;
    const double start = em_clock_seconds();
    double now = start;
    for (; now < start + 0.4; now = em_clock_seconds(), phases++)
        em_parallel(pool, 16, 1, spin, &done);
    assert_int_equal(done, phases * 16);
    return (double)phases / (now - start);
}

// The share that is kept is a figure to read: it depends on what else runs here.
static void a_spinning_neighbour_changes_no_result(void **state)
{
    (void)state;
    const cpu_set_t before = affinity();
    struct em_pool *pool;
    CHECK_OK(em_pool_create(0, &pool));
    const double quiet = phases_a_second(pool);
    const pid_t parent = getpid(), child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const double end = em_clock_seconds() + 20;
        while (getppid() == parent && em_clock_seconds() < end) {
        }
        _exit(0);
    }
    const double busy = phases_a_second(pool);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    print_message("%.0f phases a second, beside a process that spins %.0f\n", quiet, busy);
    check_affinities(pool, &before);
    em_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalled_threads_lose_nothing),
        cmocka_unit_test(callers_come_and_go),
        cmocka_unit_test(pinned_threads_stay),
        cmocka_unit_test(a_spinning_neighbour_changes_no_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
