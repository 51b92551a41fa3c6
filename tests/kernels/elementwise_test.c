// Every table of this machine against plain loops, at every remainder.
#include "kernels/check.h"
#include "kernels/half.h"

enum { N = 67 }; // past four vectors of 16 lanes
static const float guard = 42.0f;

static void fill_add_mul_scale_axpy(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float a[N + 1], b[N + 1], y[N + 2], old[N + 1];
    fill_random(a, N + 1, 1);
    fill_random(b, N + 1, 2);
    fill_random(old, N + 1, 3);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (int op = 0; op < 6; op++) {
                float *out = y + 1; // not aligned to any vector
                memcpy(out, old, n * sizeof *out);
                out[n] = guard;
                if (op == 0) k->fill_f32(out, 0.25f, n);
                if (op == 1) k->add_f32(out, a, b, n);
                if (op == 2) k->mul_f32(out, a, b, n);
                if (op == 3) k->muladd_f32(out, a, b, n);
                if (op == 4) k->scale_f32(out, a, 0.3f, n);
                if (op == 5) k->axpy_f32(out, 0.3f, a, n);
                for (size_t i = 0; i < n; i++) {
                    const double x = (double)a[i], z = (double)b[i], o = (double)old[i];
                    const double f = (double)0.3f;
                    const double want[] = {0.25, x + z, x * z, o + x * z, x * f, o + f * x};
                    CHECK_NEAR(out[i], want[op], 2e-7, "%s op=%d n=%zu i=%zu", k->isa, op, n, i);
                }
                assert_true(out[n] == guard);
            }
}

static void outputs_may_be_inputs(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float a[N], y[N];
    fill_random(a, N, 1);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        memcpy(y, a, sizeof y);
        k->add_f32(y, y, y, N);
        k->scale_f32(y, y, 0.5f, N);
        assert_memory_equal(y, a, sizeof y);
        k->mul_f32(y, y, a, N);
        for (size_t i = 0; i < N; i++)
            assert_true(y[i] == a[i] * a[i]);
    }
}

static void sums_equal_sums_in_double(void **state)
{
    (void)state;
    const struct em_kernels *k;
    enum { LONG = 1300 };
    float a[LONG], b[LONG];
    fill_random(a, LONG, 5);
    fill_random(b, LONG, 6);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= LONG; n += n < 150 ? 1 : 131) {
            double dot = 0, squares = 0;
            for (size_t i = 0; i < n; i++) {
                dot += (double)a[i] * (double)b[i];
                squares += (double)a[i] * (double)a[i];
            }
            CHECK_NEAR(k->dot_f32(a, b, n), dot, 2e-6, "%s n=%zu", k->isa, n);
            CHECK_NEAR(k->sum_squares_f32(a, n), squares, 1e-6, "%s n=%zu", k->isa, n);
        }
}

// Norms of gradients that have run away, or nearly vanished.
static void squares_keep_their_range(void **state)
{
    (void)state;
    const struct em_kernels *k;
    enum { LONG = 1300 };
    static const double sizes[] = {1e-44, 1e-30, 1e-19, 1e18, 1e25, 3e38};
    float a[LONG];
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (size_t n = 1; n <= LONG; n += 433) {
                double squares = 0;
                for (size_t i = 0; i < n; i++) {
                    a[i] = (float)(i % 3 ? sizes[s] : -sizes[s]);
                    squares += (double)a[i] * (double)a[i];
                }
                CHECK_NEAR(k->sum_squares_f32(a, n) / squares, 1, 1e-6, "%s %g n=%zu", k->isa,
                           sizes[s], n);
                a[n / 2] = NAN;
                assert_true(isnan(k->sum_squares_f32(a, n)));
                a[n / 2] = INFINITY;
                assert_true(isinf(k->sum_squares_f32(a, n)));
            }
}

static void transpose_swaps_rows_and_columns(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t rows = 1; rows <= 18; rows++)
            for (size_t columns = 1; columns <= 18; columns++) {
                float *x = new_row(rows * columns, 1), *y = new_row(rows * columns, 2);
                k->transpose_f32(y, x, rows, columns);
                for (size_t i = 0; i < rows * columns; i++)
                    assert_true(y[i % columns * rows + i / columns] == x[i]);
                free_row(x);
                free_row(y);
            }
}

// All 65,536 patterns there and back; a NaN stays a NaN.
static void every_half_survives_the_round_trip(void **state)
{
    (void)state;
    const struct em_kernels *k;
    enum { ALL = 65536 };
    uint16_t *h = malloc(ALL * sizeof *h), *back = malloc(ALL * sizeof *back);
    float *x = malloc(ALL * sizeof *x);
    assert_true(h && back && x);
    for (size_t i = 0; i < ALL; i++)
        h[i] = (uint16_t)i;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        k->f32_from_bf16(x, h, ALL);
        k->bf16_from_f32(back, x, ALL);
        for (size_t i = 0; i < ALL; i++) {
            const uint32_t bits = (uint32_t)i << 16;
            assert_int_equal(em_f32_bits(x[i]), bits);
            if (x[i] == x[i])
                assert_int_equal(back[i], h[i]);
            else
                assert_int_equal(back[i], h[i] | 0x40);
        }
        k->f32_from_f16(x, h, ALL);
        k->f16_from_f32(back, x, ALL);
        for (size_t i = 0; i < ALL; i++) {
            const int exponent = (int)(i >> 10 & 31), fraction = (int)(i & 1023);
            const double sign = i & 0x8000 ? -1 : 1;
            if (exponent == 31) {
                assert_true(fraction ? isnan(x[i]) : isinf(x[i]) && (x[i] < 0) == (sign < 0));
            } else {
                const double want =
                    exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
                assert_true((double)x[i] == sign * want);
            }
            assert_int_equal(back[i], exponent == 31 && fraction ? h[i] | 0x200 : h[i]);
        }
    }
    free(h);
    free(back);
    free(x);
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    const struct em_kernels *k;
    // Around each half value: just below, at and just above the middle to the next, and random
    // bits.
    enum { COUNT = 4096 };
    float *x = malloc(COUNT * sizeof *x);
    uint16_t *b = malloc(COUNT * sizeof *b), *h = malloc(COUNT * sizeof *h);
    assert_true(x && b && h);
    uint64_t seed = 9;
    for (size_t i = 0; i < COUNT; i++) {
        random_signed(&seed);
        uint32_t bits = (uint32_t)(seed >> 32);
        if (i % 4 == 0) bits = (bits & 0xffff0000u) | 0x8000u;
        if (i % 4 == 1) bits = (bits & 0xffff0000u) | (i & 8 ? 0x7fffu : 0x8001u);
        if (i % 4 == 2)
            bits = (bits & 0x8fffe000u) + 0x33000000u + ((uint32_t)(i & 3) - 1u) + 0x1000u;
        x[i] = em_f32_from_bits(bits);
        if (isnan(x[i])) x[i] = (float)i;
    }
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        k->bf16_from_f32(b, x, COUNT);
        k->f16_from_f32(h, x, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            // The candidate must be at least as near as both neighbours, and even at a tie.
            for (int step = -1; step <= 1; step += 2) {
                const double there = (double)em_bf16_to_f32(b[i]), at = (double)x[i];
                const double next = (double)em_bf16_to_f32((uint16_t)(b[i] + step));
                if (!isfinite(there) || !isfinite(next)) continue;
                const double mine = fabs(there - at), other = fabs(next - at);
                assert_true(mine < other || (mine == other && b[i] % 2 == 0));
            }
            const double at = (double)x[i], there = (double)em_f16_to_f32(h[i]);
            if (!isfinite(there)) {
                assert_true(fabs(at) >= 65520.0);
                continue;
            }
            for (int step = -1; step <= 1; step += 2) {
                if ((h[i] & 0x7fff) == 0 && step < 0) continue;
                const double next = (double)em_f16_to_f32((uint16_t)(h[i] + step));
                if (!isfinite(next)) continue;
                const double mine = fabs(there - at), other = fabs(next - at);
                assert_true(mine < other || (mine == other && h[i] % 2 == 0));
            }
        }
    }
    free(x);
    free(b);
    free(h);
}

static void conversions_write_n_values(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float x[N + 1], y[N + 1];
    uint16_t h[N + 1];
    fill_random(x, N, 4);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (int f16 = 0; f16 < 2; f16++) {
                h[n] = 0x5a5a;
                y[n] = guard;
                (f16 ? k->f16_from_f32 : k->bf16_from_f32)(h, x, n);
                (f16 ? k->f32_from_f16 : k->f32_from_bf16)(y, h, n);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(h[i], f16 ? em_f16_from_f32(x[i]) : em_bf16_from_f32(x[i]));
                for (size_t i = 0; i < n; i++)
                    CHECK_NEAR(y[i], x[i], f16 ? 5e-4 : 4e-3, "%s n=%zu i=%zu", k->isa, n, i);
                assert_int_equal(h[n], 0x5a5a);
                assert_true(y[n] == guard);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fill_add_mul_scale_axpy),
        cmocka_unit_test(outputs_may_be_inputs),
        cmocka_unit_test(sums_equal_sums_in_double),
        cmocka_unit_test(squares_keep_their_range),
        cmocka_unit_test(transpose_swaps_rows_and_columns),
        cmocka_unit_test(every_half_survives_the_round_trip),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(conversions_write_n_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
