// For tests of kernels: random rows, comparisons that say where, and rows at odd addresses that
// show whether a kernel wrote past its end.
#ifndef TESTS_KERNELS_CHECK_H
#define TESTS_KERNELS_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

// |got - want| <= tolerance * max(1, |want|); a NaN matches nothing.
#define CHECK_NEAR(got, want, tolerance, ...)                                                      \
    do {                                                                                           \
        const double got_ = (double)(got), want_ = (double)(want);                                 \
        const double limit_ = (double)(tolerance)*fmax(1.0, fabs(want_));                          \
        if (!(fabs(got_ - want_) <= limit_)) {                                                     \
            print_error("%s is %.9g, not %.9g: ", #got, got_, want_);                              \
            print_error(__VA_ARGS__);                                                              \
            print_error("\n");                                                                     \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

// Uniform in [-1, 1), a stream of its own per seed.
static inline float random_signed(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

static inline void fill_random(float *x, size_t n, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 4; i++)
        random_signed(&state);
    for (size_t i = 0; i < n; i++)
        x[i] = random_signed(&state);
}

// n floats of the exact size on the heap (so that a sanitizer sees each step outside), one float
// off any alignment; free_row() frees them.
static inline float *new_row(size_t n, uint64_t seed)
{
    float *block = malloc((n + 1) * sizeof *block);
    assert_non_null(block);
    fill_random(block, n + 1, seed);
    return block + 1;
}

static inline void free_row(float *row)
{
    if (row) free(row - 1);
}

static inline float *copy_row(const float *x, size_t n)
{
    float *row = new_row(n, 0);
    if (n > PTRDIFF_MAX / sizeof *row) abort(); // lets the compiler bound the copy
    memcpy(row, x, n * sizeof *x);
    return row;
}

#endif
