// Every table of this machine against the update in double, over several steps; and what is not
// finite afterwards shows.
#include "kernels/check.h"

enum { N = 67, STEPS = 5 };

static void steps_match_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (int decayed = 0; decayed < 2; decayed++) {
                float *p = new_row(n, 1), *v = new_row(n, 0);
                double rp[N], rv[N] = {0};
                for (size_t i = 0; i < n; i++) {
                    rp[i] = (double)p[i];
                    v[i] = 0;
                }
                const struct em_rmsprop o = {.lr = 0.01f,
                                             .rho = 0.9f,
                                             .eps = 1e-7f,
                                             .decay = decayed ? 0.1f : 0.0f,
                                             .gradient_scale = 0.5f};
                for (int t = 1; t <= STEPS; t++) {
                    float *g = new_row(n, 10 + (uint64_t)t);
                    assert_true(k->rmsprop_f32(p, v, g, n, &o) == 0);
                    for (size_t i = 0; i < n; i++) {
                        const double d = 0.5 * (double)g[i], rho = (double)o.rho;
                        rv[i] = rho * rv[i] + (1 - rho) * d * d;
                        rp[i] -= (double)o.lr *
                                 (d / (sqrt(rv[i]) + (double)o.eps) + (double)o.decay * rp[i]);
                        CHECK_NEAR(v[i], rv[i], 1e-6, "%s n=%zu t=%d", k->isa, n, t);
                        CHECK_NEAR(p[i], rp[i], 2e-6, "%s n=%zu t=%d", k->isa, n, t);
                    }
                    free_row(g);
                }
                free_row(p);
                free_row(v);
            }
}

static void what_is_not_finite_shows(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const struct em_rmsprop o = {.lr = 0.01f, .rho = 0.9f, .eps = 1e-7f, .gradient_scale = 1};
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (size_t at = 0; at < n; at += 5)
                for (int which = 0; which < 3; which++) {
                    float *p = new_row(n, 1), *v = new_row(n, 0), *g = new_row(n, 2);
                    for (size_t i = 0; i < n; i++)
                        v[i] = 0;
                    (which == 0 ? p : which == 1 ? v : g)[at] = which == 2 ? INFINITY : NAN;
                    assert_true(isnan(k->rmsprop_f32(p, v, g, n, &o)));
                    free_row(p);
                    free_row(v);
                    free_row(g);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_match_reference),
        cmocka_unit_test(what_is_not_finite_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
