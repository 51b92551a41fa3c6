// Sines and windows: every table of this machine against double, at every remainder and far out.
#include "kernels/check.h"

enum { N = 67 }; // past four vectors of 16 lanes

static void fill(float *x, float *w, float reach, uint64_t seed)
{
    fill_random(x, N, seed);
    fill_random(w, N, seed + 1);
    for (size_t i = 0; i < N; i++)
        w[i] *= reach;
}

static void sines_match_double(void **state)
{
    (void)state;
    static const float reach[] = {1, 10, 300, 10000};
    const struct em_kernels *k;
    float x[N], w[N], dy[N], y[N + 1], dx[N + 1], dw[N + 1];
    fill_random(dy, N, 9);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t round = 0; round < 4; round++) {
            const bool fused = strcmp(k->isa, "scalar") != 0; // keeps the product's rounding
            fill(x, w, reach[round], 11 + round);
            for (size_t n = 1; n <= N; n++) {
                y[n] = dx[n] = dw[n] = 42;
                k->sine_f32(y, w, x, n);
                k->sine_backward_f32(dx, dw, dy, w, x, n);
                for (size_t i = 0; i < n; i++) {
                    const double exact = (double)w[i] * (double)x[i];
                    const float a = w[i] * x[i]; // what a f32 argument can hold
                    const double c = cos((double)a) * (double)dy[i];
                    CHECK_NEAR(y[i], sin(fused ? exact : (double)a), 2e-7, "%s at %g", k->isa,
                               exact);
                    CHECK_NEAR(dx[i], c * (double)w[i], 4e-7 * fmax(1, fabs((double)w[i])),
                               "%s at %g", k->isa, (double)a);
                    CHECK_NEAR(dw[i], c * (double)x[i], 4e-7, "%s at %g", k->isa, (double)a);
                }
                assert_true(y[n] == 42 && dx[n] == 42 && dw[n] == 42);
            }
        }
}

static void sines_of_nothing_and_of_no_number(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const float one[3] = {1, 1, 1}, x[3] = {0, INFINITY, NAN};
    float y[3];
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        k->sine_f32(y, one, x, 3);
        assert_true(y[0] == 0 && isnan(y[1]) && isnan(y[2]));
    }
}

static void windows_match_double(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float x[N], delta[N], y[N + 1];
    fill(x, delta, 20, 5);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++) {
            const float t = (float)n / N, shift = n % 2 ? 0.05f : 0;
            y[n] = 42;
            k->decay_f32(y, x, delta, t, shift, n);
            for (size_t i = 0; i < n; i++)
                CHECK_NEAR(
                    y[i], (double)x[i] * (exp(-(double)t * fabs((double)delta[i])) + (double)shift),
                    1e-6, "%s n=%zu", k->isa, n);
            assert_true(y[n] == 42);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sines_match_double),
                                       cmocka_unit_test(sines_of_nothing_and_of_no_number),
                                       cmocka_unit_test(windows_match_double)};
    return cmocka_run_group_tests_name("kernels/implicit_filter", tests, NULL, NULL);
}
