// Transforms of every table of this machine against sums in double: a convolution of 2 N values
// that comes round with the other sign, and the gradients of both its operands.
#include "kernels/check.h"

enum { LANES = EM_FFT_LANES };

struct rows {
    float *x; // [2 N][LANES]
    size_t N;
};

static float *workspace(size_t N)
{
    float *x = malloc(em_fft_floats(N) * sizeof *x);
    for (size_t i = 0; i < em_fft_floats(N); i++)
        x[i] = NAN; // what no row has is never read
    return x;
}

static float *read(const struct em_kernels *k, const struct rows *r)
{
    float *x = workspace(r->N);
    k->fft_read_f32(
        x, r->N, 0,
        &(struct em_fft_rows){.x = r->x, .stride = LANES, .count = 2 * r->N, .lanes = LANES});
    return x;
}

// sum over i of a[i] b[at - i], or, as gradients have it, of a[i] b[i - at]
static double expected(const struct rows *a, const struct rows *b, size_t at, size_t lane,
                       bool backwards)
{
    double sum = 0;
    const ptrdiff_t n = 2 * (ptrdiff_t)a->N;
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t j = backwards ? i - (ptrdiff_t)at : (ptrdiff_t)at - i;
        const double sign = j < 0 ? -1 : 1;
        if (j < 0) j += n;
        sum += sign * (double)a->x[i * LANES + (ptrdiff_t)lane] *
               (double)b->x[j * LANES + (ptrdiff_t)lane];
    }
    return sum;
}

static void check(const struct em_kernels *k, const float *x, size_t N, const struct rows *a,
                  const struct rows *b, bool backwards, const char *what)
{
    float *y = malloc(2 * N * LANES * sizeof *y);
    float *copy = malloc(em_fft_floats(N) * sizeof *copy);
    memcpy(copy, x, em_fft_floats(N) * sizeof *copy);
    k->fft_take_f32(y, copy, N, 0, 2 * N, false);
    for (size_t at = 0; at<2 * N; at += 2 * N> 256 ? 97 : 1)
        for (size_t lane = 0; lane<LANES; lane += 2 * N> 256 ? 5 : 1)
            CHECK_NEAR(y[at * LANES + lane] / (float)N / sqrtf((float)N),
                       expected(a, b, at, lane, backwards) / sqrt((double)N), 1e-6,
                       "%s %s N=%zu at=%zu lane=%zu", k->isa, what, N, at, lane);
    free(y);
    free(copy);
}

static void convolutions_and_their_gradients(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t N = 1; N <= 4096; N *= 2) {
            const struct rows a = {new_row(2 * N * LANES, N), N},
                              b = {new_row(2 * N * LANES, N + 1), N};
            float *x = read(k, &a), *spectrum = read(k, &b), *g = read(k, &a), *s = read(k, &b);
            float *dk = workspace(N);
            memset(dk, 0, em_fft_floats(N) * sizeof *dk);
            k->fft_forward_f32(spectrum, N);
            k->fft_convolve_f32(x, spectrum, N);
            check(k, x, N, &a, &b, false, "convolution");
            k->fft_correlate_f32(g, s, spectrum, dk, N);
            check(k, g, N, &a, &b, true, "gradient of the signal");
            k->fft_inverse_f32(dk, N);
            check(k, dk, N, &a, &b, true, "gradient of the kernel");
            free(x), free(spectrum), free(g), free(s), free(dk);
            free_row(a.x), free_row(b.x);
        }
}

// Past the depth of which the factors are kept: they are what a level would have.
static void factors_of_any_depth(void **state)
{
    (void)state;
    for (unsigned depth = 0; depth < 12; depth++) {
        const float *level = em_fft_level(depth);
        assert_non_null(level);
        for (size_t node = 0; node < (size_t)1 << depth; node++) {
            float f[8];
            em_fft_factors(depth, node, f);
            assert_memory_equal(f, level + node * 8, sizeof f);
        }
    }
    assert_null(em_fft_level(40));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions_and_their_gradients),
                                       cmocka_unit_test(factors_of_any_depth)};
    return cmocka_run_group_tests_name("kernels/fft", tests, NULL, NULL);
}
