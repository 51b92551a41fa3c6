// Every table of this machine against the functions in double, over their whole range; slopes
// against central differences.
#include "kernels/check.h"

enum { N = 67 }; // past four vectors of 16 lanes

static const char *const names[EM_ACTIVATIONS] = {
    [EM_IDENTITY] = "identity", [EM_RELU] = "relu", [EM_RELU2] = "relu2",
    [EM_SILU] = "silu",         [EM_GELU] = "gelu", [EM_GELU_TANH] = "gelu_tanh",
    [EM_SIGMOID] = "sigmoid",   [EM_TANH] = "tanh",
};

static double reference(int kind, double x)
{
    switch (kind) {
    case EM_RELU: return x > 0 ? x : 0;
    case EM_RELU2: return x > 0 ? x * x : 0;
    case EM_SILU: return x / (1 + exp(-x));
    case EM_GELU: return x * erfc(-x / sqrt(2)) / 2;
    case EM_GELU_TANH: return x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x))) / 2;
    case EM_SIGMOID: return 1 / (1 + exp(-x));
    case EM_TANH: return tanh(x);
    default: return x;
    }
}

static double slope(int kind, double x)
{
    const double h = 1e-6;
    return (reference(kind, x + h) - reference(kind, x - h)) / (2 * h);
}

// From -100 to 100 by way of the small values, both signs of zero among them.
static void whole_range_matches_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    enum { COUNT = 4001 };
    float *x = new_row(COUNT, 0), *y = new_row(COUNT, 0), *dx = new_row(COUNT, 0);
    float *ones = new_row(COUNT, 0);
    for (size_t i = 0; i < COUNT; i++) {
        const float t = ((float)i - 2000.0f) / 2000.0f; // -1 .. 1
        x[i] = 100.0f * t * t * t;
        ones[i] = 1.0f;
    }
    x[1999] = -0.0f;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (int kind = 0; kind < EM_ACTIVATIONS; kind++) {
            memset(dx, 0, COUNT * sizeof *dx);
            k->activation_f32((enum em_activation)kind, y, x, COUNT);
            k->activation_backward_f32((enum em_activation)kind, dx, false, ones, x, COUNT);
            for (size_t i = 0; i < COUNT; i++) {
                const double at = (double)x[i];
                CHECK_NEAR(y[i], reference(kind, at), 4e-7, "%s %s(%g)", k->isa, names[kind], at);
                if (fabs(at) > 1e-5)
                    CHECK_NEAR(dx[i], slope(kind, at), 2e-6, "%s %s'(%g)", k->isa, names[kind], at);
            }
        }
    free_row(x);
    free_row(y);
    free_row(dx);
    free_row(ones);
}

// Small arguments lose no digits: the error is relative to the value. erf shows through gelu's cdf.
static void near_zero_the_error_is_relative(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float x[N], y[N];
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (float size = 1.0f; size > 1e-30f; size *= 0.1f) {
            fill_random(x, N, 8);
            k->scale_f32(x, x, size, N);
            for (int kind = 0; kind < EM_ACTIVATIONS; kind++) {
                k->activation_f32((enum em_activation)kind, y, x, N);
                for (size_t i = 0; i < N; i++) {
                    const double want = reference(kind, (double)x[i]);
                    // gelu near -1 has 1 + erf, which cancels a little; 1e-37: subnormal squares
                    assert_true(fabs((double)y[i] - want) <= 7e-7 * fabs(want) + 1e-37);
                }
            }
        }
}

static void infinities_and_nan_pass(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (int kind = 0; kind < EM_ACTIVATIONS; kind++) {
            const enum em_activation act = (enum em_activation)kind;
            float y[N], x[N];
            for (size_t i = 0; i < N; i++)
                x[i] = i % 2 ? NAN : INFINITY;
            k->activation_f32(act, y, x, N);
            for (size_t i = 0; i < N; i++) {
                const float top = kind == EM_SIGMOID || kind == EM_TANH ? 1.0f : INFINITY;
                assert_true(i % 2 ? isnan(y[i]) : y[i] == top);
            }
        }
}

static void rows_of_every_length(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (int kind = 0; kind < EM_ACTIVATIONS; kind++)
            for (size_t n = 1; n <= N; n++) {
                const enum em_activation act = (enum em_activation)kind;
                float *x = new_row(n, 1), *u = new_row(n, 2), *d = new_row(n, 3);
                float *y = new_row(n, 4), *h = new_row(n, 4), *dx = new_row(n, 5);
                float *dg = copy_row(dx, n), *du = new_row(n, 6);
                float *dx0 = copy_row(dx, n), *du0 = copy_row(du, n);
                k->activation_f32(act, y, x, n);
                k->activation_backward_f32(act, dx, false, d, x, n);
                k->gated_f32(act, h, x, u, n);
                k->gated_backward_f32(act, dg, false, du, false, d, x, u, n);
                for (size_t i = 0; i < n; i++) {
                    const double a = reference(kind, (double)x[i]), s = slope(kind, (double)x[i]);
                    const double dy = (double)d[i], gate = (double)u[i];
                    CHECK_NEAR(y[i], a, 1e-6, "%s %s n=%zu", k->isa, names[kind], n);
                    CHECK_NEAR(h[i], a * gate, 1e-6, "%s %s n=%zu", k->isa, names[kind], n);
                    CHECK_NEAR(dx[i], (double)dx0[i] + dy * s, 2e-6, "%s %s n=%zu", k->isa,
                               names[kind], n);
                    CHECK_NEAR(dg[i], (double)dx0[i] + dy * gate * s, 2e-6, "%s %s n=%zu", k->isa,
                               names[kind], n);
                    CHECK_NEAR(du[i], (double)du0[i] + dy * a, 2e-6, "%s %s n=%zu", k->isa,
                               names[kind], n);
                }
                // In place, and each gradient without the other.
                float *x2 = copy_row(x, n);
                k->activation_f32(act, x2, x2, n);
                assert_memory_equal(x2, y, n * sizeof *y);
                memcpy(x2, x, n * sizeof *x);
                k->gated_f32(act, x2, x2, u, n);
                assert_memory_equal(x2, h, n * sizeof *h);
                k->gated_backward_f32(act, dx0, false, NULL, false, d, x, u, n);
                assert_memory_equal(dx0, dg, n * sizeof *dg);
                k->gated_backward_f32(act, NULL, false, du0, false, d, x, u, n);
                assert_memory_equal(du0, du, n * sizeof *du);
                // What holds nothing is set to what zeros would have become.
                float *set[] = {copy_row(dx, n), copy_row(dx, n), copy_row(dx, n)};
                float *added[] = {copy_row(dx, n), copy_row(dx, n), copy_row(dx, n)};
                for (size_t i = 0; i < n; i++) {
                    set[0][i] = set[1][i] = set[2][i] = NAN;
                    added[0][i] = added[1][i] = added[2][i] = 0;
                }
                k->activation_backward_f32(act, set[0], true, d, x, n);
                k->gated_backward_f32(act, set[1], true, set[2], true, d, x, u, n);
                k->activation_backward_f32(act, added[0], false, d, x, n);
                k->gated_backward_f32(act, added[1], false, added[2], false, d, x, u, n);
                for (size_t i = 0; i < 3; i++) {
                    assert_memory_equal(set[i], added[i], n * sizeof *dx);
                    free_row(set[i]);
                    free_row(added[i]);
                }
                float *rows[] = {x, u, d, y, h, dx, dg, du, dx0, du0, x2};
                for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                    free_row(rows[i]);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_range_matches_reference),
        cmocka_unit_test(near_zero_the_error_is_relative),
        cmocka_unit_test(infinities_and_nan_pass),
        cmocka_unit_test(rows_of_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
