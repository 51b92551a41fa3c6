// Every table of this machine against rotations in double; backward is the transposed map.
#include "kernels/check.h"

static void rotate(double *y, const float *x, size_t heads, size_t dim, size_t rotary,
                   const float *c, const float *s, bool interleaved, double sign)
{
    for (size_t h = 0; h < heads; h++, x += dim, y += dim) {
        for (size_t i = 0; i < dim; i++)
            y[i] = (double)x[i];
        for (size_t i = 0; i < rotary / 2; i++) {
            const size_t a = interleaved ? 2 * i : i, b = interleaved ? a + 1 : i + rotary / 2;
            const double co = (double)c[i], si = sign * (double)s[i];
            y[a] = (double)x[a] * co - (double)x[b] * si;
            y[b] = (double)x[b] * co + (double)x[a] * si;
        }
    }
}

static void forward_and_backward_match_rotations(void **state)
{
    (void)state;
    const struct em_kernels *k;
    enum { HEADS = 3, MOST = 70 };
    double want[HEADS * MOST];
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t dim = 2; dim <= MOST; dim += dim < 20 ? 1 : 7)
            for (size_t rotary = 0; rotary <= dim; rotary += rotary < 10 ? 2 : 6)
                for (int interleaved = 0; interleaved < 2; interleaved++) {
                    const size_t n = HEADS * dim, half = rotary / 2;
                    float *x = new_row(n, 1), *y = new_row(n, 2), *dx = new_row(n, 3);
                    float *dx0 = copy_row(dx, n);
                    float *c = new_row(half, 4), *s = new_row(half, 5);
                    k->rope_f32(y, x, HEADS, dim, rotary, c, s, interleaved);
                    rotate(want, x, HEADS, dim, rotary, c, s, interleaved, 1);
                    for (size_t i = 0; i < n; i++)
                        CHECK_NEAR(y[i], want[i], 1e-6, "%s dim=%zu rotary=%zu", k->isa, dim,
                                   rotary);
                    k->rope_backward_f32(dx, x, HEADS, dim, rotary, c, s, interleaved);
                    rotate(want, x, HEADS, dim, rotary, c, s, interleaved, -1);
                    for (size_t i = 0; i < n; i++)
                        CHECK_NEAR(dx[i], (double)dx0[i] + want[i], 1e-6, "%s dim=%zu rotary=%zu",
                                   k->isa, dim, rotary);
                    k->rope_f32(x, x, HEADS, dim, rotary, c, s, interleaved);
                    assert_memory_equal(x, y, n * sizeof *x);
                    float *rows[] = {x, y, dx, dx0, c, s};
                    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                        free_row(rows[i]);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_backward_match_rotations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
