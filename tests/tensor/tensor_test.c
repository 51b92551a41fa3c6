#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "support/check.h"

static ember_tensor tensor(ember_dtype dtype, const size_t *dim, unsigned ndim, void *data)
{
    ember_tensor t;
    CHECK_OK(em_tensor_init(&t, dtype, dim, ndim, data));
    return t;
}

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    static const struct {
        ember_dtype dtype;
        const char *name;
        size_t size;
    } expected[] = {{EMBER_F32, "f32", 4}, {EMBER_BF16, "bf16", 2}, {EMBER_F16, "f16", 2},
                    {EMBER_I32, "i32", 4}, {EMBER_I64, "i64", 8},   {EMBER_U8, "u8", 1}};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(expected[i].dtype, i); // files store the values
        assert_string_equal(ember_dtype_name(expected[i].dtype), expected[i].name);
        assert_int_equal(ember_dtype_size(expected[i].dtype), expected[i].size);
    }
    assert_string_equal(ember_dtype_name((ember_dtype)6), "?");
    assert_int_equal(ember_dtype_size((ember_dtype)6), 0);
    assert_int_equal(ember_dtype_size((ember_dtype)-1), 0);
}

static void new_tensors_are_contiguous(void **state)
{
    (void)state;
    float data[24];
    const ember_tensor t = tensor(EMBER_F32, (size_t[]){2, 3, 4}, 3, data);
    assert_int_equal(t.stride[0], 12);
    assert_int_equal(t.stride[1], 4);
    assert_int_equal(t.stride[2], 1);
    assert_true(em_is_contiguous(&t));
    assert_int_equal(ember_tensor_count(&t), 24);
    assert_int_equal(em_tensor_bytes(&t), 96);
    assert_int_equal(em_rows(&t), 6);
    assert_int_equal(em_last_dim(&t), 4);
    assert_int_equal(em_row_stride(&t), 4);
    assert_ptr_equal(em_row(&t, 5), data + 20);
    const ember_tensor scalar = tensor(EMBER_F32, NULL, 0, data);
    assert_int_equal(ember_tensor_count(&scalar), 1);
    assert_int_equal(em_rows(&scalar), 1);
    assert_int_equal(em_last_dim(&scalar), 1);
    const ember_tensor empty = tensor(EMBER_F32, (size_t[]){0, 3}, 2, data);
    assert_int_equal(ember_tensor_count(&empty), 0);
    assert_true(em_is_contiguous(&empty));
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    ember_tensor t = {.ndim = 7};
    CHECK_FAILS(em_tensor_init(&t, EMBER_F32, (size_t[]){1, 1, 1, 1, 1}, 5, NULL), EMBER_E_SHAPE,
                "at most 4 dimensions, not 5");
    CHECK_FAILS(em_tensor_init(&t, EMBER_F32, (size_t[]){SIZE_MAX / 4 + 1}, 1, NULL), EMBER_E_SHAPE,
                "does not fit into memory");
    // A zero does not hide the others: views of such a tensor would have them without it.
    CHECK_FAILS(
        em_tensor_init(&t, EMBER_I64, (size_t[]){(size_t)1 << 40, 0, (size_t)1 << 40}, 3, NULL),
        EMBER_E_SHAPE, "does not fit into memory");
    assert_int_equal(t.ndim, 7); // unchanged
}

static void shapes_compare_and_print(void **state)
{
    (void)state;
    const ember_tensor a = tensor(EMBER_F32, (size_t[]){3, 11}, 2, NULL);
    const ember_tensor b = tensor(EMBER_I32, (size_t[]){3, 11}, 2, NULL);
    const ember_tensor c = tensor(EMBER_F32, (size_t[]){3, 11, 1}, 3, NULL);
    const ember_tensor d = tensor(EMBER_F32, (size_t[]){3, 12}, 2, NULL);
    assert_true(em_same_shape(&a, &b));
    assert_false(em_same_shape(&a, &c));
    assert_false(em_same_shape(&a, &d));
    char text[32], narrow[6];
    assert_string_equal(em_shape_text(&c, text, sizeof text), "[3, 11, 1]");
    const ember_tensor scalar = tensor(EMBER_F32, NULL, 0, NULL);
    assert_string_equal(em_shape_text(&scalar, text, sizeof text), "[]");
    em_shape_text(&c, narrow, sizeof narrow);
    assert_memory_equal(narrow, "[3, 1", 6);
}

static void reshaped_views_share_data(void **state)
{
    (void)state;
    float data[24];
    ember_tensor v;
    const ember_tensor t = tensor(EMBER_F32, (size_t[]){2, 3, 4}, 3, data);
    CHECK_OK(em_view_reshape(&t, (size_t[]){6, 4}, 2, &v));
    assert_ptr_equal(v.data, data);
    assert_int_equal(v.dim[0], 6);
    assert_int_equal(v.stride[0], 4);
    v.ndim = 9;
    CHECK_FAILS(em_view_reshape(&t, (size_t[]){5, 4}, 2, &v), EMBER_E_SHAPE,
                "cannot view [2, 3, 4] as [5, 4]");
    assert_int_equal(v.ndim, 9);
    ember_tensor columns;
    CHECK_OK(em_view_slice(&t, 2, 1, 3, &columns));
    CHECK_FAILS(em_view_reshape(&columns, (size_t[]){12}, 1, &v), EMBER_E_SHAPE,
                "cannot view a strided [2, 3, 2] as [12]");
}

static void slices_and_transposes_keep_strides(void **state)
{
    (void)state;
    float data[24];
    for (size_t i = 0; i < 24; i++)
        data[i] = (float)i;
    ember_tensor s, v, grad = {0};
    ember_tensor t = tensor(EMBER_F32, (size_t[]){2, 3, 4}, 3, data);
    t.grad = &grad;
    CHECK_OK(em_view_slice(&t, 1, 1, 3, &s));
    assert_int_equal(s.dim[1], 2);
    assert_ptr_equal(s.data, data + 4);
    assert_int_equal(s.stride[0], 12);
    assert_false(em_is_contiguous(&s));
    assert_null(s.grad);
    CHECK_OK(em_view_transpose(&s, 0, 2, &v)); // v[a][b][c] = s[c][b][a]
    for (size_t a = 0; a < 4; a++)
        for (size_t b = 0; b < 2; b++)
            for (size_t c = 0; c < 2; c++)
                CHECK_NEAR(em_f32(&v)[a * v.stride[0] + b * v.stride[1] + c * v.stride[2]],
                           c * 12 + (b + 1) * 4 + a, 0, "%zu %zu %zu", a, b, c);
    CHECK_OK(em_view_slice(&t, 0, 1, 1, &s));
    assert_int_equal(ember_tensor_count(&s), 0);
    // One row of columns, and dimensions of 1, are contiguous whatever their strides.
    CHECK_OK(em_view_slice(&t, 0, 1, 2, &s));
    assert_true(em_is_contiguous(&s));
    CHECK_FAILS(em_view_slice(&t, 3, 0, 1, &s), EMBER_E_SHAPE,
                "cannot slice [0, 1) of axis 3 of [2, 3, 4]");
    CHECK_FAILS(em_view_slice(&t, 1, 2, 1, &s), EMBER_E_SHAPE, "cannot slice [2, 1) of axis 1");
    CHECK_FAILS(em_view_slice(&t, 1, 2, 4, &s), EMBER_E_SHAPE, "cannot slice [2, 4) of axis 1");
    CHECK_FAILS(em_view_transpose(&t, 0, 3, &v), EMBER_E_SHAPE,
                "cannot exchange axes 0 and 3 of [2, 3, 4]");
    // A tensor without data (a plan) has views without data.
    t.data = NULL;
    CHECK_OK(em_view_slice(&t, 1, 1, 3, &s));
    assert_null(s.data);
}

static void copies_gather_strides_and_convert(void **state)
{
    (void)state;
    float data[12], out[6];
    for (size_t i = 0; i < 12; i++)
        data[i] = (float)i - 3.5f;
    const ember_tensor t = tensor(EMBER_F32, (size_t[]){3, 4}, 2, data);
    ember_tensor columns, turned;
    CHECK_OK(em_view_slice(&t, 1, 1, 3, &columns));
    CHECK_OK(em_view_transpose(&columns, 0, 1, &turned)); // [2, 3]
    ember_tensor o = tensor(EMBER_F32, (size_t[]){2, 3}, 2, out);
    CHECK_OK(em_tensor_copy(&turned, &o));
    for (size_t i = 0; i < 6; i++)
        CHECK_NEAR(out[i], data[i % 3 * 4 + 1 + i / 3], 0, "element %zu", i);

    uint16_t half[6], brain[6];
    float back[6];
    ember_tensor h = tensor(EMBER_F16, (size_t[]){2, 3}, 2, half),
                 b = tensor(EMBER_BF16, (size_t[]){2, 3}, 2, brain),
                 f = tensor(EMBER_F32, (size_t[]){2, 3}, 2, back);
    CHECK_OK(em_tensor_copy(&turned, &h));
    CHECK_OK(em_tensor_copy(&h, &b)); // halves have few bits: exact in both
    CHECK_OK(em_tensor_copy(&b, &f));
    assert_memory_equal(back, out, sizeof back);

    const int64_t longs[] = {-1, 255, INT32_MAX};
    int32_t ints[3];
    uint8_t bytes[3];
    const ember_tensor l = tensor(EMBER_I64, (size_t[]){3}, 1, (void *)(uintptr_t)longs);
    ember_tensor i = tensor(EMBER_I32, (size_t[]){3}, 1, ints),
                 u = tensor(EMBER_U8, (size_t[]){3}, 1, bytes);
    CHECK_OK(em_tensor_copy(&l, &i));
    assert_int_equal(ints[0], -1);
    assert_int_equal(ints[2], INT32_MAX);
    CHECK_FAILS(em_tensor_copy(&i, &u), EMBER_E_RANGE, "element 0 does not fit into u8");
    ints[0] = 0;
    CHECK_FAILS(em_tensor_copy(&i, &u), EMBER_E_RANGE, "element 2 does not fit into u8");
    ints[2] = 7;
    CHECK_OK(em_tensor_copy(&i, &u));
    assert_int_equal(bytes[1], 255);
    const int64_t big[] = {0, (int64_t)INT32_MIN - 1, 0};
    const ember_tensor too_big = tensor(EMBER_I64, (size_t[]){3}, 1, (void *)(uintptr_t)big);
    CHECK_FAILS(em_tensor_copy(&too_big, &i), EMBER_E_RANGE, "element 1 does not fit into i32");

    CHECK_FAILS(em_tensor_copy(&i, &f), EMBER_E_SHAPE, "cannot copy [3] into [2, 3]");
    const ember_tensor integers = tensor(EMBER_I32, (size_t[]){2, 3}, 2, out);
    CHECK_FAILS(em_tensor_copy(&integers, &f), EMBER_E_SHAPE, "cannot copy i32 into f32");
    CHECK_FAILS(em_tensor_copy(&f, &turned), EMBER_E_SHAPE,
                "cannot copy [2, 3] into [2, 3]"); // strided
}

// The value of a half, from its definition.
static double half_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double magnitude =
        exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void every_half_goes_to_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= 0xffff; i++) {
        const uint16_t h = (uint16_t)i;
        const float f = em_f16_to_f32(h);
        if ((h & 0x7c00) != 0x7c00) {
            CHECK_NEAR(f, half_value(h), 0, "half %04x", h);
            assert_int_equal(signbit(f) != 0, h >> 15);
        } else if (h & 0x3ff) {
            assert_true(isnan(f));
            assert_true(isnan(em_f16_to_f32(em_f16_from_f32(f))));
            continue;
        } else {
            assert_true(isinf(f) && (signbit(f) != 0) == h >> 15);
        }
        assert_int_equal(em_f16_from_f32(f), h);
    }
}

// Between each two neighbours: just below the middle, the middle (to the even one), just above.
static void f32_rounds_to_the_nearest_half(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7c00; h++) {
        const uint16_t next =
            (uint16_t)(h + 1); // after the largest: infinity, which counts as 65536
        const double above = next == 0x7c00 ? 65536 : half_value(next);
        const float middle = (float)((half_value(h) + above) / 2);
        const uint16_t even = h & 1 ? next : h;
        assert_int_equal(em_f16_from_f32(middle), even);
        assert_int_equal(em_f16_from_f32(nextafterf(middle, 0)), h);
        assert_int_equal(em_f16_from_f32(nextafterf(middle, INFINITY)), next);
        assert_int_equal(em_f16_from_f32(-middle), even | 0x8000);
        assert_int_equal(em_f16_from_f32(-nextafterf(middle, 0)), h | 0x8000);
        assert_int_equal(em_f16_from_f32(-nextafterf(middle, INFINITY)), next | 0x8000);
    }
    assert_int_equal(em_f16_from_f32(3e38f), 0x7c00);
    assert_int_equal(em_f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(em_f16_from_f32(0x1p-149f), 0);
    assert_true(isnan(
        em_f16_to_f32(em_f16_from_f32(from_bits(0x7f800001))))); // a payload in the low bits only
    assert_true(isnan(em_f16_to_f32(em_f16_from_f32(from_bits(0xff800001)))));
}

static void every_bf16_goes_to_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= 0xffff; i++) {
        const uint16_t h = (uint16_t)i;
        const float f = em_bf16_to_f32(h);
        assert_int_equal(bits(f), i << 16);
        if (isnan(f))
            assert_true(isnan(em_bf16_to_f32(em_bf16_from_f32(f))));
        else
            assert_int_equal(em_bf16_from_f32(f), h);
    }
}

static void f32_rounds_to_the_nearest_bf16(void **state)
{
    (void)state;
    for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000)
        for (uint32_t h = sign; h < (sign | 0x7f80); h++) {
            const uint32_t middle = h << 16 | 0x8000;
            assert_int_equal(em_bf16_from_f32(from_bits(middle)), h & 1 ? h + 1 : h);
            assert_int_equal(em_bf16_from_f32(from_bits(middle - 1)), h);
            assert_int_equal(em_bf16_from_f32(from_bits(middle + 1)), h + 1);
        }
    assert_true(isnan(em_bf16_to_f32(em_bf16_from_f32(from_bits(0x7f800001)))));
    assert_true(isnan(em_bf16_to_f32(em_bf16_from_f32(from_bits(0xffffffff)))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(new_tensors_are_contiguous),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(shapes_compare_and_print),
        cmocka_unit_test(reshaped_views_share_data),
        cmocka_unit_test(slices_and_transposes_keep_strides),
        cmocka_unit_test(copies_gather_strides_and_convert),
        cmocka_unit_test(every_half_goes_to_f32_and_back),
        cmocka_unit_test(f32_rounds_to_the_nearest_half),
        cmocka_unit_test(every_bf16_goes_to_f32_and_back),
        cmocka_unit_test(f32_rounds_to_the_nearest_bf16),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
