// Products with 8-bit weights: every way of this machine against sums in double over the
// quantised numbers, at odd sizes; and the quantising by its definition.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/gemm_i8.h"
#include "kernels/kernels.h"
#include "support/op_check.h"

// Uniform in [-1, 1).
static float random_signed(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

static float *new_row(size_t n, uint64_t seed)
{
    float *row = malloc((n + 1) * sizeof *row);
    assert_non_null(row);
    for (size_t i = 0; i < n; i++)
        row[i] = random_signed(&seed);
    return row;
}

static float half(uint16_t bits) // normal numbers of f16
{
    return ldexpf(1 + (float)(bits & 0x3ff) / 1024, (bits >> 10 & 31) - 15) *
           (bits >> 15 ? -1.0f : 1.0f);
}

struct problem {
    size_t M, N, K, blocks;
    float *a;
    int8_t *values;
    uint16_t *scales;
};

static struct problem new_problem(size_t M, size_t N, size_t K)
{
    struct problem p = {M, N, K, em_i8_blocks(K), new_row(M * (K + 3), M + K), NULL, NULL};
    p.values = calloc(N * p.blocks * EM_I8_BLOCK + 1, 1);
    p.scales = calloc(N * p.blocks + 1, sizeof *p.scales);
    assert_non_null(p.values);
    assert_non_null(p.scales);
    uint64_t state = 7 * N + K;
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++) // all of -128 .. 127
            p.values[n * p.blocks * EM_I8_BLOCK + k] = (int8_t)(int)(128 * random_signed(&state));
    for (size_t i = 0; i < N * p.blocks; i++)
        p.scales[i] = (uint16_t)(0x1c00 + (uint32_t)(int32_t)(1000 * (1 + random_signed(&state))));
    return p;
}

static void free_problem(struct problem *p)
{
    free(p->a);
    free(p->values);
    free(p->scales);
}

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(128, (bytes + 127) / 128 * 128 + 128);
    assert_non_null(p);
    memset(p, 0xff, bytes);
    return p;
}

static void check_problem(struct problem *p, struct em_pool *pool)
{
    const size_t M = p->M, N = p->N, K = p->K, stride = N + 5;
    float *c = new_row(M * stride, 3),
          *before = memcpy(new_row(M * stride, 0), c, M * stride * sizeof *c);
    void *packed = aligned(em_gemm_i8_packed_size(K, N)),
         *scratch = aligned(em_gemm_i8_scratch_size(K, em_pool_threads(pool)));
    em_gemm_i8_pack(K, N, p->values, p->scales, packed, pool);
    em_gemm_i8(M, N, K, p->a, K + 3, packed, c, stride, scratch, pool);
    int8_t *q = aligned(p->blocks * EM_I8_BLOCK);
    float *scale = aligned(p->blocks * sizeof *scale);
    int32_t *sum = aligned(p->blocks * sizeof *sum);
    for (size_t m = 0; m < M; m++) {
        em_kernels()->quantise_i8(q, scale, sum, p->a + m * (K + 3), K);
        for (size_t n = 0; n < N; n++) {
            double want = 0, size = 0;
            for (size_t b = 0; b < p->blocks; b++) {
                int32_t dot = 0;
                for (size_t i = 0; i < EM_I8_BLOCK; i++)
                    dot +=
                        q[b * EM_I8_BLOCK + i] * p->values[(n * p->blocks + b) * EM_I8_BLOCK + i];
                const double part =
                    dot * (double)scale[b] * (double)half(p->scales[n * p->blocks + b]);
                want += part;
                size += fabs(part);
            }
            if (!(fabs((double)c[m * stride + n] - want) <= 2e-6 * size + 1e-12))
                fail_msg("%s M=%zu N=%zu K=%zu at %zu,%zu: %g, not %g", em_gemm_i8_name(), M, N, K,
                         m, n, (double)c[m * stride + n], want);
        }
        assert_memory_equal(c + m * stride + N, before + m * stride + N, 5 * sizeof *c);
    }
    free(q);
    free(scale);
    free(sum);
    free(packed);
    free(scratch);
    free(c);
    free(before);
}

static void odd_sizes(void **state)
{
    (void)state;
    struct em_pool *pool;
    assert_int_equal(em_pool_create(2, &pool), EMBER_OK);
    static const size_t sizes[][3] = {{1, 1, 1},     {1, 64, 32},   {2, 65, 33},   {3, 15, 31},
                                      {4, 130, 64},  {5, 17, 290},  {7, 200, 96},  {97, 70, 513},
                                      {100, 64, 40}, {481, 66, 65}, {33, 300, 257}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct problem p = new_problem(sizes[i][0], sizes[i][1], sizes[i][2]);
        for (size_t way = 0; em_gemm_i8_use_at(way); way++)
            check_problem(&p, i % 2 ? pool : NULL);
        free_problem(&p);
    }
    em_gemm_i8_use_default();
    em_pool_destroy(pool);
}

static void a_row_depends_on_itself_alone(void **state)
{
    (void)state;
    enum { M = 103, N = 37, K = 1100 };
    struct em_pool *pool[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(em_pool_create(i + 1, &pool[i]), EMBER_OK);
    struct problem p = new_problem(M, N, K);
    float *whole = new_row(M * N, 1), *again = new_row(M * N, 2), *alone = new_row(N, 3);
    void *scratch = aligned(em_gemm_i8_scratch_size(K, 3));
    for (size_t way = 0; em_gemm_i8_use_at(way); way++) {
        void *packed = aligned(em_gemm_i8_packed_size(K, N));
        em_gemm_i8_pack(K, N, p.values, p.scales, packed, pool[way % 3]);
        em_gemm_i8(M, N, K, p.a, K + 3, packed, whole, N, scratch, pool[0]);
        for (unsigned i = 1; i < 3; i++) {
            em_gemm_i8(M, N, K, p.a, K + 3, packed, again, N, scratch, pool[i]);
            assert_memory_equal(again, whole, M * N * sizeof *whole);
        }
        for (size_t m = 0; m < M; m += 17) {
            em_gemm_i8(1, N, K, p.a + m * (K + 3), K + 3, packed, alone, N, scratch, pool[0]);
            assert_memory_equal(alone, whole + m * N, N * sizeof *alone);
        }
        free(packed);
    }
    em_gemm_i8_use_default();
    free(whole);
    free(again);
    free(alone);
    free(scratch);
    free_problem(&p);
    for (unsigned i = 0; i < 3; i++)
        em_pool_destroy(pool[i]);
}

static void nothing_to_add_is_zero(void **state)
{
    (void)state;
    float c[6] = {1, 2, 3, 4, 5, 6};
    char scratch[4096] __attribute__((aligned(128)));
    em_gemm_i8(2, 2, 0, NULL, 0, NULL, c, 3, scratch, NULL);
    assert_true(c[0] == 0 && c[1] == 0 && c[2] == 3 && c[3] == 0 && c[4] == 0 && c[5] == 6);
}

static void rows_are_quantised_to_the_nearest(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        float *x = new_row(70, 9);
        x[40] = -3;
        int8_t q[96];
        float scale[3];
        int32_t sum[3];
        k->quantise_i8(q, scale, sum, x, 70);
        for (size_t b = 0; b < 3; b++) {
            float most = 0;
            int32_t total = 0;
            for (size_t i = 32 * b; i < 32 * b + 32 && i < 70; i++)
                most = fmaxf(most, fabsf(x[i]));
            assert_true(scale[b] == most / 127);
            for (size_t i = 32 * b; i < 32 * b + 32; i++) {
                total += q[i];
                CHECK_NEAR(q[i], i < 70 ? rint((double)x[i] / ((double)most / 127)) : 0, 1e-9,
                           "%s %zu", k->isa, i);
            }
            assert_int_equal(-128 * total, sum[b]);
        }
        memset(x, 0, 70 * sizeof *x);
        x[33] = NAN;
        x[65] = INFINITY;
        k->quantise_i8(q, scale, sum, x, 70);
        assert_true(scale[0] == 0 && isnan(scale[1]) && isnan(scale[2]));
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(a_row_depends_on_itself_alone),
        cmocka_unit_test(nothing_to_add_is_zero),
        cmocka_unit_test(rows_are_quantised_to_the_nearest),
    };
    return cmocka_run_group_tests_name("gemm_i8", tests, NULL, NULL);
}
