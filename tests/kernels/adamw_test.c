// Every table of this machine against the update in double, over several steps.
#include "kernels/check.h"

enum { N = 67, STEPS = 5 };

static void steps_match_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (int decayed = 0; decayed < 2; decayed++) {
                float *p = new_row(n, 1), *m = new_row(n, 0), *v = new_row(n, 0);
                double rp[N], rm[N] = {0}, rv[N] = {0};
                for (size_t i = 0; i < n; i++) {
                    rp[i] = (double)p[i];
                    m[i] = v[i] = 0;
                }
                struct em_adamw o = {.lr = 0.01f,
                                     .beta1 = 0.9f,
                                     .beta2 = 0.95f,
                                     .eps = 1e-8f,
                                     .decay = decayed ? 0.1f : 0.0f,
                                     .gradient_scale = 0.5f};
                for (int t = 1; t <= STEPS; t++) {
                    float *g = new_row(n, 10 + (uint64_t)t);
                    const double b1 = (double)o.beta1, b2 = (double)o.beta2;
                    o.correction1 = (float)(1 - pow(b1, t));
                    o.correction2 = (float)(1 - pow(b2, t));
                    assert_true(k->adamw_f32(p, m, v, g, n, &o) == 0);
                    for (size_t i = 0; i < n; i++) {
                        const double d = 0.5 * (double)g[i];
                        rm[i] = b1 * rm[i] + (1 - b1) * d;
                        rv[i] = b2 * rv[i] + (1 - b2) * d * d;
                        const double mean = rm[i] / (1 - pow(b1, t));
                        const double size = sqrt(rv[i] / (1 - pow(b2, t))) + (double)o.eps;
                        rp[i] -= (double)o.lr * (mean / size + (double)o.decay * rp[i]);
                        CHECK_NEAR(m[i], rm[i], 1e-6, "%s n=%zu t=%d", k->isa, n, t);
                        CHECK_NEAR(v[i], rv[i], 1e-6, "%s n=%zu t=%d", k->isa, n, t);
                        CHECK_NEAR(p[i], rp[i], 1e-6, "%s n=%zu t=%d", k->isa, n, t);
                    }
                    free_row(g);
                }
                free_row(p);
                free_row(m);
                free_row(v);
            }
}

// One value that is not finite afterwards shows, wherever it is and whichever of the three it is.
static void what_is_not_finite_shows(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const struct em_adamw o = {.lr = 0.01f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .gradient_scale = 1,
                               .correction1 = 0.1f,
                               .correction2 = 0.05f};
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (size_t at = 0; at < n; at += 1 + n / 5)
                for (int which = 0; which < 6; which++) {
                    float p[N], m[N], v[N], g[N];
                    float *all[] = {p, m, v, g};
                    for (size_t i = 0; i < 4; i++)
                        fill_random(all[i], n, i);
                    for (size_t i = 0; i < n; i++)
                        v[i] *= v[i];
                    if (which < 4) all[which][at] = which % 2 ? -INFINITY : INFINITY;
                    if (which == 4) g[at] = 1e30f; // its square overflows
                    if (which == 5) p[at] = 3e38f; // is large, and stays
                    const float sum = k->adamw_f32(p, m, v, g, n, &o);
                    assert_true(which == 5 ? sum == 0 : isnan(sum));
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
