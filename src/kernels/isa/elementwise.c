// Element by element: sums, products, conversions. This file is compiled once per instruction set.
#include <float.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

void EM_K(fill_f32)(float *y, float value, size_t n)
{
    const vf32 v = vf32_set1(value);
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, v);
    if (i < n) vf32_store_n(y + i, v, n - i);
}

void EM_K(add_f32)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_add(vf32_load(a + i), vf32_load(b + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(y + i, vf32_add(vf32_load_n(a + i, m), vf32_load_n(b + i, m)), m);
    }
}

void EM_K(mul_f32)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_mul(vf32_load(a + i), vf32_load(b + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(y + i, vf32_mul(vf32_load_n(a + i, m), vf32_load_n(b + i, m)), m);
    }
}

// y += a b, for the backward of a product; y may be a or b.
void EM_K(muladd_f32)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_fma(vf32_load(a + i), vf32_load(b + i), vf32_load(y + i)));
    if (i < n) {
        const size_t m = n - i;
        const vf32 old = vf32_load_n(y + i, m);
        vf32_store_n(y + i, vf32_fma(vf32_load_n(a + i, m), vf32_load_n(b + i, m), old), m);
    }
}

void EM_K(scale_f32)(float *y, const float *x, float factor, size_t n)
{
    const vf32 f = vf32_set1(factor);
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_mul(vf32_load(x + i), f));
    if (i < n) vf32_store_n(y + i, vf32_mul(vf32_load_n(x + i, n - i), f), n - i);
}

// y += factor x
void EM_K(axpy_f32)(float *y, float factor, const float *x, size_t n)
{
    const vf32 f = vf32_set1(factor);
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_fma(f, vf32_load(x + i), vf32_load(y + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(y + i, vf32_fma(f, vf32_load_n(x + i, m), vf32_load_n(y + i, m)), m);
    }
}

// Four sums, so that one addition does not wait for the other.
float EM_K(dot_f32)(const float *a, const float *b, size_t n)
{
    enum { L = VF32_LANES };
    vf32 s0 = vf32_zero(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L) {
        s0 = vf32_fma(vf32_load(a + i), vf32_load(b + i), s0);
        s1 = vf32_fma(vf32_load(a + i + L), vf32_load(b + i + L), s1);
        s2 = vf32_fma(vf32_load(a + i + 2 * L), vf32_load(b + i + 2 * L), s2);
        s3 = vf32_fma(vf32_load(a + i + 3 * L), vf32_load(b + i + 3 * L), s3);
    }
    for (; i + L <= n; i += L)
        s0 = vf32_fma(vf32_load(a + i), vf32_load(b + i), s0);
    if (i < n) s1 = vf32_fma(vf32_load_n(a + i, n - i), vf32_load_n(b + i, n - i), s1);
    return vf32_sum(vf32_add(vf32_add(s0, s1), vf32_add(s2, s3)));
}

static double sum_squares_double(const float *x, size_t n)
{
    double sum[4] = {0};
    for (size_t i = 0; i < n; i++)
        sum[i % 4] += (double)x[i] * (double)x[i];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

static bool all_zero(const float *x, size_t n)
{
    vf32 most = vf32_zero();
    for (size_t i = 0; i < n; i += VF32_LANES)
        most =
            vf32_max(most, vf32_abs(vf32_load_n(x + i, n - i < VF32_LANES ? n - i : VF32_LANES)));
    return vf32_hmax(most) == 0;
}

// In double over blocks of 512, so that the norm of a large gradient keeps its digits. Squares of
// one block are summed in f32, which holds 1e-45 to 1e38: a block whose sum comes near either end
// is summed again in double, unless it is all zeros, as the gradients of words are that a batch
// does not have.
double EM_K(sum_squares_f32)(const float *x, size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i += 512) {
        const size_t m = n - i < 512 ? n - i : 512;
        const float sum = EM_K(dot_f32)(x + i, x + i, m);
        if (sum > 0x1p-90f && sum < FLT_MAX)
            total += (double)sum;
        else if (sum != 0 || !all_zero(x + i, m))
            total += sum_squares_double(x + i, m);
    }
    return total;
}

void EM_K(bf16_from_f32)(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store_bf16(y + i, vf32_load(x + i));
    if (i < n) vf32_store_bf16_n(y + i, vf32_load_n(x + i, n - i), n - i);
}

void EM_K(f32_from_bf16)(float *y, const uint16_t *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_load_bf16(x + i));
    if (i < n) vf32_store_n(y + i, vf32_load_bf16_n(x + i, n - i), n - i);
}

void EM_K(f16_from_f32)(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store_f16(y + i, vf32_load(x + i));
    if (i < n) vf32_store_f16_n(y + i, vf32_load_n(x + i, n - i), n - i);
}

void EM_K(f32_from_f16)(float *y, const uint16_t *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_load_f16(x + i));
    if (i < n) vf32_store_n(y + i, vf32_load_f16_n(x + i, n - i), n - i);
}

// y [columns, rows] = x [rows, columns]^T. Four rows at a time, so that writes come four together.
void EM_K(transpose_f32)(float *y, const float *x, size_t rows, size_t columns)
{
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *a = x + r * columns, *b = a + columns, *c = b + columns, *d = c + columns;
        for (size_t j = 0; j < columns; j++) {
            float *out = y + j * rows + r;
            out[0] = a[j];
            out[1] = b[j];
            out[2] = c[j];
            out[3] = d[j];
        }
    }
    for (; r < rows; r++)
        for (size_t j = 0; j < columns; j++)
            y[j * rows + r] = x[r * columns + j];
}
