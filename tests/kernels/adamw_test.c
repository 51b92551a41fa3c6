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
                    k->adamw_f32(p, m, v, g, n, &o);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_match_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
