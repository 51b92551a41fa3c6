// The machine's peaks: positive, in the order that the instructions have, and measured once.
#include "base/alloc.h"
#include "base/threads.h"
#include "kernels/check.h"
#include "kernels/roof.h"

static void read_sums_every_float_once(void **state)
{
    (void)state;
    enum { N = 300 };
    float x[N];
    for (size_t i = 0; i < N; i++)
        x[i] = (float)i;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            assert_true(k->read_f32(x, n) == (float)(n * (n - 1) / 2));
}

static void a_plain_pass_adds_the_sum_or_keeps(void **state)
{
    (void)state;
    enum { N = 150, STREAMS = 4 };
    float x[STREAMS][N], y[STREAMS][N + 1];
    const float *in[STREAMS];
    float *out[STREAMS];
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n += n < 70 ? 1 : 9)
            for (size_t reads = 0; reads <= STREAMS; reads++)
                for (size_t writes = 0; writes <= STREAMS; writes++) {
                    for (size_t s = 0; s < STREAMS; s++) {
                        for (size_t i = 0; i < n; i++)
                            x[s][i] = (float)(i + 7 * s);
                        in[s] = x[s];
                        out[s] = y[s];
                        y[s][n] = 42;
                    }
                    k->plain_f32(out, writes, in, reads, 0.5f, n);
                    for (size_t w = 0; w < writes; w++) {
                        for (size_t i = 0; i < n; i++) {
                            float sum = 0;
                            for (size_t r = 0; r < reads; r++)
                                sum += x[r][i];
                            assert_true(y[w][i] == 0.5f * sum + (w < reads ? x[w][i] : 0));
                        }
                        assert_true(y[w][n] == 42);
                    }
                    if (!reads) continue;
                    out[0] = x[0]; // in place
                    k->plain_f32(out, writes, in, reads, 0.0f, n);
                    for (size_t i = 0; i < n; i++)
                        assert_true(x[0][i] == (float)i);
                }
}

static void peaks_are_measured_once(void **state)
{
    (void)state;
    struct em_pool *pool;
    assert_int_equal(em_pool_create(2, &pool), EMBER_OK);
    for (int type = EM_GEMM_F32; type <= EM_GEMM_BF16; type++) {
        const double flops = em_roof_flops((enum em_gemm_type)type, pool);
        assert_true(flops > 1e6 && flops < 1e16);
        assert_true(em_roof_flops((enum em_gemm_type)type, pool) == flops);
        assert_true(em_roof_flops_now((enum em_gemm_type)type, NULL) > 1e6);
    }
    double read = 0, again = 0;
    assert_int_equal(em_roof_read(pool, &read), EMBER_OK);
    assert_int_equal(em_roof_read(pool, &again), EMBER_OK);
    assert_true(read > 1e6 && read < 1e14 && again == read);
    em_pool_destroy(pool);
}

static void reading_needs_memory(void **state)
{
    (void)state;
    double read = -1;
    em_alloc_fail_at(1, 0);
    assert_int_equal(em_roof_read_now(NULL, &read), EMBER_E_NOMEM);
    em_alloc_fail_at(0, 0);
    assert_true(read == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_sums_every_float_once),
        cmocka_unit_test(a_plain_pass_adds_the_sum_or_keeps),
        cmocka_unit_test(peaks_are_measured_once),
        cmocka_unit_test(reading_needs_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
