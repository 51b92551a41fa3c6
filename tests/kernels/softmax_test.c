// Every table of this machine against loops in double, at every remainder.
#include "kernels/check.h"

enum { N = 67, LONG = 1000 };

static double reference_logsumexp(const float *x, size_t n)
{
    double m = -INFINITY, s = 0;
    for (size_t i = 0; i < n; i++)
        m = fmax(m, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        s += exp((double)x[i] - m);
    return m + log(s);
}

// 1, 2, .. N and one long row; logits of size up to `scale`.
static float *logits(size_t n, float scale)
{
    float *x = new_row(n, n);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
    return x;
}

static void softmax_matches_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= LONG; n += n < N ? 1 : LONG - N)
            for (float scale = 1.0f; scale <= 1000.0f; scale *= 30.0f) {
                float *x = logits(n, scale), *y = new_row(n, 0), *dy = new_row(n, 2);
                float *dx = new_row(n, 3), *dx0 = copy_row(dx, n);
                const double lse = reference_logsumexp(x, n);
                CHECK_NEAR(k->logsumexp_f32(x, n), lse, 1e-6, "%s n=%zu", k->isa, n);
                CHECK_NEAR(k->softmax_f32(y, x, n), lse, 1e-6, "%s n=%zu", k->isa, n);
                double dot = 0;
                for (size_t i = 0; i < n; i++) {
                    const double p = exp((double)x[i] - lse);
                    CHECK_NEAR(y[i], p, 2e-6, "%s n=%zu i=%zu", k->isa, n, i);
                    dot += p * (double)dy[i];
                }
                k->softmax_backward_f32(dx, dy, y, n);
                for (size_t i = 0; i < n; i++)
                    CHECK_NEAR(dx[i],
                               (double)dx0[i] + exp((double)x[i] - lse) * ((double)dy[i] - dot),
                               2e-6, "%s n=%zu i=%zu", k->isa, n, i);
                k->softmax_f32(x, x, n);
                assert_memory_equal(x, y, n * sizeof *x);
                float *rows[] = {x, y, dy, dx, dx0};
                for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                    free_row(rows[i]);
            }
}

static void cross_entropy_leaves_its_gradient(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= LONG; n += n < N ? 1 : LONG - N)
            for (size_t target = 0; target < n; target += 1 + n / 3) {
                float *x = logits(n, 5.0f), *z = copy_row(x, n);
                const double lse = reference_logsumexp(x, n);
                const float nll = k->cross_entropy_f32(z, n, target, 0.25f);
                CHECK_NEAR(nll, lse - (double)x[target], 1e-6, "%s n=%zu", k->isa, n);
                for (size_t i = 0; i < n; i++)
                    CHECK_NEAR(z[i], 0.25 * (exp((double)x[i] - lse) - (i == target)), 5e-7,
                               "%s n=%zu i=%zu", k->isa, n, i);
                free_row(x);
                free_row(z);
            }
}

// Rows of several blocks, whose largest values rise, fall, or begin with nothing.
static void long_rows_are_as_short_ones(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const size_t length[] = {1024, 1025, 3000, 300001}; // the last one has longer blocks
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t j = 0; j < sizeof length / sizeof *length; j++)
            for (int shape = 0; shape < 4; shape++) {
                const size_t n = length[j], target = n - n / 3;
                if (n > 100000 && shape != 1) continue;
                float *x = logits(n, 3.0f), *y = new_row(n, 0);
                for (size_t i = 0; i < n; i++) {
                    const float along = (float)i / (float)n;
                    if (shape == 1) x[i] += 200 * along;
                    if (shape == 2) x[i] -= 200 * along;
                    if (shape == 3 && i < n / 2) x[i] = -INFINITY;
                }
                float *z = copy_row(x, n);
                const double lse = reference_logsumexp(x, n);
                CHECK_NEAR(k->logsumexp_f32(x, n), lse, 1e-6, "%s n=%zu", k->isa, n);
                CHECK_NEAR(k->softmax_f32(y, x, n), lse, 1e-6, "%s n=%zu", k->isa, n);
                const float nll = k->cross_entropy_f32(z, n, target, 0.25f);
                CHECK_NEAR(nll, lse - (double)x[target], 1e-6, "%s n=%zu", k->isa, n);
                double sum = 0;
                for (size_t i = 0; i < n; i++) {
                    const double p = exp((double)x[i] - lse);
                    CHECK_NEAR(y[i], p, 2e-6, "%s n=%zu i=%zu", k->isa, n, i);
                    CHECK_NEAR(z[i], 0.25 * (p - (i == target)), 5e-7, "%s n=%zu i=%zu", k->isa, n,
                               i);
                    sum += (double)y[i];
                }
                CHECK_NEAR(sum, 1, 2e-6, "%s n=%zu", k->isa, n);
                x[n - 1] = INFINITY; // in a block after finite ones
                assert_true(k->logsumexp_f32(x, n) == INFINITY);
                x[n - 1] = NAN;
                assert_true(isnan(k->logsumexp_f32(x, n)));
                free_row(x);
                free_row(y);
                free_row(z);
            }
}

static void rows_with_infinities_and_nan(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (size_t at = 0; at < n; at += 5) {
                float *x = new_row(n, 0);
                for (size_t i = 0; i < n; i++)
                    x[i] = -INFINITY;
                assert_true(k->logsumexp_f32(x, n) == -INFINITY);
                x[at] = NAN;
                assert_true(isnan(k->logsumexp_f32(x, n)));
                x[at] = INFINITY;
                assert_true(k->logsumexp_f32(x, n) == INFINITY);
                x[at] = 2.0f; // all weight on the one finite logit
                k->softmax_f32(x, x, n);
                for (size_t i = 0; i < n; i++)
                    assert_true(x[i] == (i == at ? 1.0f : 0.0f));
                free_row(x);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_matches_reference),
        cmocka_unit_test(cross_entropy_leaves_its_gradient),
        cmocka_unit_test(long_rows_are_as_short_ones),
        cmocka_unit_test(rows_with_infinities_and_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
