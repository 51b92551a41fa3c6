// The expected values come from an independent implementation in Python's integers.
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "support/check.h"

static void the_generator_is_the_published_one(void **state)
{
    (void)state;
    struct em_rng rng = {{1, 2, 3, 4}};
    const uint64_t expected[] = {11520, 0, 1509978240, UINT64_C(1215971899390074240),
                                 UINT64_C(1216172134540287360)};
    for (size_t i = 0; i < 5; i++)
        assert_true(em_rng_u64(&rng) == expected[i]);
}

static void seeds_and_streams_never_change(void **state)
{
    (void)state;
    const struct {
        uint64_t seed, stream, expected[3];
    } cases[] = {
        {0, 0, {0x8a21cd34a214a917, 0x9c507e12243e64d0, 0xc3763b828e49dc84}},
        {1, 0, {0x3e7d890d2781d292, 0x726a7cde04ebbfc7, 0x42907a10ef1e02b5}},
        {1, 1, {0xb7f7fd4ce72aea1c, 0x683aedc2b32585bb, 0x688b9a750c823b36}},
        {UINT64_MAX, 7, {0xe0998eb12e88edb9, 0x972af42e14e260a9, 0xf517ff559221115a}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct em_rng rng;
        em_rng_seed(&rng, cases[c].seed, cases[c].stream);
        for (size_t i = 0; i < 3; i++)
            assert_true(em_rng_u64(&rng) == cases[c].expected[i]);
    }
    assert_true(em_hash64(0, 0, 0) == 0x238275bc38fcbe91);
    assert_true(em_hash64(1, 2, 3) == 0x6ae515c1c0ac7e37);
    assert_true(em_hash64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x40aa389ba7cc36a4);
}

static void below_is_fixed_unbiased_and_inside(void **state)
{
    (void)state;
    struct em_rng rng;
    em_rng_seed(&rng, 7, 3);
    const uint64_t expected[] = {6, 3, 9, 9, 9, 4, 9, 5, 9, 7, 8, 2};
    for (size_t i = 0; i < 12; i++)
        assert_true(em_rng_below(&rng, 10) == expected[i]);
    // Half of all draws are refused here.
    assert_true(em_rng_below(&rng, (UINT64_C(1) << 63) + 1) == UINT64_C(3532343582846775197));
    assert_true(em_rng_below(&rng, (UINT64_C(1) << 63) + 1) == UINT64_C(2217789276240416832));
    assert_true(em_rng_below(&rng, 1) == 0);
    unsigned count[6] = {0};
    for (int i = 0; i < 60000; i++)
        count[em_rng_below(&rng, 6)]++;
    for (int i = 0; i < 6; i++)
        CHECK_NEAR(count[i], 10000, 0.05, "face %d", i); // five standard deviations
}

static void normal_numbers_are_the_same_everywhere(void **state)
{
    (void)state;
    struct em_rng rng;
    em_rng_seed(&rng, 42, 0);
    // Python's libm, so to its last bits only; ours is checked to the bit below.
    const double expected[] = {0x1.16ed299348670p-4, 0x1.19c40b060ddd1p+0, 0x1.2b7c5a850e32cp-1,
                               -0x1.fe3eda5868224p-1};
    for (size_t i = 0; i < 4; i++)
        CHECK_NEAR(em_rng_normal(&rng), expected[i], 1e-15, "draw %zu", i);
    em_rng_seed(&rng, 2, 0);
    uint64_t sum = 0;
    for (size_t i = 0; i < 100000; i++) {
        const double x = em_rng_normal(&rng);
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        sum = em_hash64(sum, bits, i);
    }
    print_message("hash of 100000 normal numbers: 0x%llx\n", (unsigned long long)sum);
    assert_true(sum == 0x418b0a21ca26407f);
}

static void normal_numbers_have_their_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct em_rng rng;
    em_rng_seed(&rng, 5, 0);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, most = 0;
    for (int i = 0; i < N; i++) {
        const double x = em_rng_normal(&rng);
        m1 += x / N;
        m2 += x * x / N;
        m3 += x * x * x / N;
        m4 += x * x * x * x / N;
        most = fmax(most, fabs(x));
    }
    CHECK_NEAR(m1, 0, 0.012, "mean"); // five standard deviations each
    CHECK_NEAR(m2, 1, 0.016, "variance");
    CHECK_NEAR(m3, 0, 0.044, "skew");
    CHECK_NEAR(m4, 3, 0.037, "kurtosis");
    assert_true(most > 4 && most < 7);
}

static void the_logarithm_and_the_cosine_are_exact_enough(void **state)
{
    (void)state;
    // The same draws through the C library's functions, whose error is below one unit in the last
    // place.
    struct em_rng ours, theirs;
    em_rng_seed(&ours, 9, 0);
    theirs = ours;
    for (int i = 0; i < 100000; i++) {
        const double u = 1 - em_rng_uniform(&theirs), v = em_rng_uniform(&theirs);
        const double expected = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
        CHECK_NEAR(em_rng_normal(&ours), expected, 4e-15, "draw %d", i);
    }
}

static void a_permutation_hits_everything_once(void **state)
{
    (void)state;
    const uint64_t one[] = {6, 2, 1, 7, 3, 4, 8, 9, 5, 0}, two[] = {3, 0, 2, 1, 6, 9, 7, 8, 4, 5};
    for (uint64_t i = 0; i < 10; i++) {
        assert_true(em_permute(i, 10, 1) == one[i]);
        assert_true(em_permute(i, 10, 2) == two[i]);
    }
    assert_true(em_permute(12345678901, (UINT64_C(1) << 60) + 3, 9) ==
                UINT64_C(779036297009947369));
    assert_true(em_permute(0, UINT64_MAX, 1) == UINT64_C(1562798406320097179));
    static unsigned char seen[3000];
    for (uint64_t n = 1; n < 3000; n = n * 2 + 1) {
        memset(seen, 0, sizeof seen);
        for (uint64_t i = 0; i < n; i++) {
            const uint64_t to = em_permute(i, n, n);
            assert_true(to < n);
            assert_int_equal(seen[to]++, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_is_the_published_one),
        cmocka_unit_test(seeds_and_streams_never_change),
        cmocka_unit_test(below_is_fixed_unbiased_and_inside),
        cmocka_unit_test(normal_numbers_are_the_same_everywhere),
        cmocka_unit_test(normal_numbers_have_their_moments),
        cmocka_unit_test(the_logarithm_and_the_cosine_are_exact_enough),
        cmocka_unit_test(a_permutation_hits_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
