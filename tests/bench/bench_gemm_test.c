// `bench gemm` gives times and shares that make sense, and refuses what it cannot measure.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "bench/bench_gemm.h"

static void summary_sorts_and_takes_the_middle(void **state)
{
    (void)state;
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2}, one[] = {7};
    struct em_bench_time t = em_bench_summary(odd, 3);
    assert_true(t.median == 2 && t.min == 1 && t.max == 3 && t.repeats == 3);
    t = em_bench_summary(even, 4);
    assert_true(t.median == 2.5 && t.min == 1 && t.max == 4 && t.repeats == 4);
    t = em_bench_summary(one, 1);
    assert_true(t.median == 7 && t.min == 7 && t.max == 7);
}

static void times_and_shares_are_consistent(void **state)
{
    (void)state;
    struct em_pool *pool;
    assert_int_equal(em_pool_create(2, &pool), EMBER_OK);
    for (int type = EM_GEMM_F32; type <= EM_GEMM_BF16; type++) {
        struct em_bench_product r;
        assert_int_equal(em_bench_product((enum em_gemm_type)type, 33, 70, 41, 0.02, pool, &r),
                         EMBER_OK);
        assert_true(r.time.min > 0 && r.time.min <= r.time.median && r.time.median <= r.time.max);
        assert_true(r.time.repeats >= 5);
        assert_true(fabs(r.flops * r.time.median / (2.0 * 33 * 70 * 41) - 1) < 1e-9);
        assert_true(!r.memory_bound && fabs(r.roof * r.peak / r.flops - 1) < 1e-9);
        assert_int_equal(r.threads, 2);
        assert_string_equal(r.isa, em_gemm_name((enum em_gemm_type)type));
        assert_true(r.pack_seconds > 0);
    }
    em_pool_destroy(pool);
}

static void sizes_without_elements_or_memory_are_refused(void **state)
{
    (void)state;
    struct em_bench_product r;
    memset(&r, 0, sizeof r);
    assert_int_equal(em_bench_product(EM_GEMM_F32, 0, 1, 1, 0.01, NULL, &r), EMBER_E_RANGE);
    assert_non_null(strstr(ember_last_error(), "M, N and K"));
    assert_int_equal(em_bench_product(EM_GEMM_F32, SIZE_MAX, 1, 2, 0.01, NULL, &r), EMBER_E_NOMEM);
    assert_int_equal(em_bench_product(EM_GEMM_F32, 1, SIZE_MAX / 4, 1, 0.01, NULL, &r),
                     EMBER_E_NOMEM);
    for (size_t n = 1; n <= 3; n++) {
        em_alloc_fail_at(n, 0); // the reading roof is known by now
        assert_int_equal(em_bench_product(EM_GEMM_F32, 2, 2, 2, 0.01, NULL, &r), EMBER_E_NOMEM);
        em_alloc_fail_at(0, 0);
    }
    assert_true(r.threads == 0); // never written
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summary_sorts_and_takes_the_middle),
        cmocka_unit_test(times_and_shares_are_consistent),
        cmocka_unit_test(sizes_without_elements_or_memory_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
