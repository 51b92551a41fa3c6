// timeout: 300
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "support/check.h"

enum { ITEMS = 5000 };

struct tally {
    unsigned char seen[ITEMS]; // plain: an item done twice at once is a data race
    atomic_uint busy[64];      // thread numbers in use
    unsigned threads;
    size_t grain, count;
    atomic_uint wrong;
};

static void tally_items(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct tally *t = arg;
    if (begin >= end || end > t->count || end - begin > t->grain || thread >= t->threads) {
        atomic_fetch_add(&t->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&t->busy[thread], 1) != 0) atomic_fetch_add(&t->wrong, 1);
    for (size_t i = begin; i < end; i++)
        t->seen[i]++;
    atomic_fetch_sub(&t->busy[thread], 1);
}

static void check_tally(struct em_pool *pool, size_t count, size_t grain)
{
    static struct tally t;
    memset(&t, 0, sizeof t);
    t.threads = em_pool_threads(pool);
    t.count = count;
    t.grain = grain ? grain : 1;
    em_parallel(pool, count, grain, tally_items, &t);
    assert_int_equal(t.wrong, 0);
    for (size_t i = 0; i < ITEMS; i++)
        if (t.seen[i] != (i < count))
            fail_msg("item %zu of %zu, grain %zu: %u times", i, count, grain, t.seen[i]);
}

static void every_item_is_done_exactly_once(void **state)
{
    (void)state;
    const size_t counts[] = {0, 1, 2, 3, 7, 64, 100, 1001, ITEMS};
    const size_t grains[] = {0, 1, 2, 5, 64, 1000, ITEMS, SIZE_MAX};
    const unsigned threads[] = {1, 2, 3, 4, 7, 16};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct em_pool *pool;
        CHECK_OK(em_pool_create(threads[t], &pool));
        assert_int_equal(em_pool_threads(pool), threads[t]);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
                check_tally(pool, counts[c], grains[g]);
        em_pool_destroy(pool);
    }
    check_tally(NULL, ITEMS, 3);
}

// More pieces than a cursor counts: several go together, and none is longer than the grain.
static atomic_size_t items_done;
static atomic_uint too_long;

static void count_items(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    if (end - begin > *(size_t *)arg) atomic_fetch_add(&too_long, 1);
    atomic_fetch_add_explicit(&items_done, end - begin, memory_order_relaxed);
}

static void very_many_pieces_work(void **state)
{
    (void)state;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(2, &pool));
    size_t grain = 3;
    const size_t count = (size_t)65535 * 2 * 3 * 2 + 100;
    em_parallel(pool, count, grain, count_items, &grain);
    assert_int_equal(items_done, count);
    assert_int_equal(too_long, 0);
    em_pool_destroy(pool);
}

struct nest {
    struct em_pool *pool, *other;
    atomic_uint inner, wrong;
};

struct inner {
    struct nest *nest;
    unsigned number;
    pthread_t thread;
};

static void inner_task(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct inner *inner = arg;
    if (thread != inner->number || !pthread_equal(pthread_self(), inner->thread) || end - begin > 2)
        atomic_fetch_add(&inner->nest->wrong, 1);
    atomic_fetch_add(&inner->nest->inner, (unsigned)(end - begin));
}

static void outer_task(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)begin;
    (void)end;
    struct nest *nest = arg;
    struct inner inner = {nest, thread, pthread_self()};
    em_parallel(nest->pool, 9, 2, inner_task, &inner);
    inner.number = 0; // without a pool there is one thread, and its number is 0
    em_parallel(NULL, 9, 2, inner_task, &inner);
}

static void a_call_from_a_task_runs_on_its_thread(void **state)
{
    (void)state;
    struct nest nest = {0};
    CHECK_OK(em_pool_create(4, &nest.pool));
    for (int i = 0; i < 200; i++)
        em_parallel(nest.pool, 8, 1, outer_task, &nest);
    em_pool_destroy(nest.pool);
    assert_int_equal(nest.wrong, 0);
    assert_int_equal(nest.inner, 200 * 8 * 18);
}

// What one phase writes, the next one reads on other threads.
static void add_neighbours(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    unsigned **v = arg;
    for (size_t i = begin; i < end; i++)
        v[1][i] = v[0][i] + v[0][(i * 31 + 7) % ITEMS];
}

static void phases_follow_each_other(void **state)
{
    (void)state;
    static unsigned a[ITEMS], b[ITEMS], expected[ITEMS], next[ITEMS];
    struct em_pool *pool;
    CHECK_OK(em_pool_create(3, &pool));
    for (size_t i = 0; i < ITEMS; i++)
        a[i] = expected[i] = (unsigned)i;
    unsigned *v[2] = {a, b};
    for (int round = 0; round < 500; round++) {
        em_parallel(pool, ITEMS, 1 + (size_t)round % 200, add_neighbours, v);
        for (size_t i = 0; i < ITEMS; i++)
            next[i] = expected[i] + expected[(i * 31 + 7) % ITEMS];
        memcpy(expected, next, sizeof next);
        unsigned *const swapped = v[0];
        v[0] = v[1];
        v[1] = swapped;
    }
    assert_memory_equal(v[0], expected, sizeof expected);
    em_pool_destroy(pool);
}

static void add_one(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    atomic_fetch_add_explicit((atomic_size_t *)arg, end - begin, memory_order_relaxed);
}

// Short phases, with pauses in which the workers fall asleep, and more threads than cores.
static void short_phases_and_sleeping_workers_lose_nothing(void **state)
{
    (void)state;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(5, &pool));
    atomic_size_t sum = 0;
    size_t expected = 0;
    for (size_t i = 0; i < 20000; i++) {
        const size_t count = 2 + i % 9;
        em_parallel(pool, count, 1, add_one, &sum);
        expected += count;
        if (i % 500 == 0) nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
        assert_int_equal(sum, expected);
    }
    em_pool_destroy(pool);
}

static void pools_come_and_go(void **state)
{
    (void)state;
    const size_t before = em_alloc_live();
    atomic_size_t sum = 0;
    for (unsigned i = 0; i < 200; i++) {
        struct em_pool *pool;
        CHECK_OK(em_pool_create(1 + i % 6, &pool));
        if (i % 3) em_parallel(pool, 10, 1, add_one, &sum);
        em_pool_destroy(pool);
    }
    em_pool_destroy(NULL);
    assert_int_equal(em_alloc_live(), before);
}

static void impossible_pools_are_refused(void **state)
{
    (void)state;
    struct em_pool *pool = NULL;
    CHECK_FAILS(em_pool_create(100000, &pool), EMBER_E_RANGE, "expected 1 to 1024, found 100000");
    em_alloc_fail_at(1, 1);
    CHECK_FAILS(em_pool_create(2, &pool), EMBER_E_NOMEM, "out of memory");
    em_alloc_fail_at(0, 0);
    assert_null(pool);
    assert_true(em_threads_available() >= 1);
    CHECK_OK(em_pool_create(0, &pool));
    assert_true(em_pool_threads(pool) >= 1);
    em_pool_destroy(pool);
    assert_int_equal(em_pool_threads(NULL), 1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// A figure to read, not a promise: it depends on what else runs here.
static void fork_and_join_have_a_price(void **state)
{
    (void)state;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(0, &pool));
    atomic_size_t sum = 0;
    double best = 1, asleep = 1;
    for (int round = 0; round < 20; round++) {
        const double start = seconds();
        for (int i = 0; i < 500; i++)
            em_parallel(pool, em_pool_threads(pool), 1, add_one, &sum);
        const double each = (seconds() - start) / 500;
        if (each < best) best = each;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        const double woken = seconds();
        em_parallel(pool, em_pool_threads(pool), 1, add_one, &sum);
        if (seconds() - woken < asleep) asleep = seconds() - woken;
    }
    print_message("fork and join of %u threads: %.2f us while they spin, %.1f us when they sleep\n",
                  em_pool_threads(pool), best * 1e6, asleep * 1e6);
    em_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_exactly_once),
        cmocka_unit_test(very_many_pieces_work),
        cmocka_unit_test(a_call_from_a_task_runs_on_its_thread),
        cmocka_unit_test(phases_follow_each_other),
        cmocka_unit_test(short_phases_and_sleeping_workers_lose_nothing),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(impossible_pools_are_refused),
        cmocka_unit_test(fork_and_join_have_a_price),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
