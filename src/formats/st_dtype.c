// dtypes of safetensors files, and their values as float.
#include <string.h>

#include "base/alloc.h"
#include "formats/safetensors.h"
#include "kernels/half.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "file data are used in place: little endian only");

static const struct {
    const char *name;
    size_t bits;
} dtypes[EM_ST_DTYPE_COUNT] = {
    [EM_ST_BOOL] = {"BOOL", 8},       [EM_ST_F4] = {"F4", 4},
    [EM_ST_F6_E2M3] = {"F6_E2M3", 6}, [EM_ST_F6_E3M2] = {"F6_E3M2", 6},
    [EM_ST_U8] = {"U8", 8},           [EM_ST_I8] = {"I8", 8},
    [EM_ST_F8_E5M2] = {"F8_E5M2", 8}, [EM_ST_F8_E4M3] = {"F8_E4M3", 8},
    [EM_ST_F8_E8M0] = {"F8_E8M0", 8}, [EM_ST_I16] = {"I16", 16},
    [EM_ST_U16] = {"U16", 16},        [EM_ST_F16] = {"F16", 16},
    [EM_ST_BF16] = {"BF16", 16},      [EM_ST_I32] = {"I32", 32},
    [EM_ST_U32] = {"U32", 32},        [EM_ST_F32] = {"F32", 32},
    [EM_ST_C64] = {"C64", 64},        [EM_ST_F64] = {"F64", 64},
    [EM_ST_I64] = {"I64", 64},        [EM_ST_U64] = {"U64", 64},
};

const char *em_st_dtype_name(enum em_st_dtype dtype)
{
    return (unsigned)dtype < EM_ST_DTYPE_COUNT ? dtypes[dtype].name : "?";
}

size_t em_st_dtype_bits(enum em_st_dtype dtype)
{
    return dtypes[dtype].bits;
}

bool em_st_dtype_parse(const char *name, size_t length, enum em_st_dtype *out)
{
    for (int i = 0; i < EM_ST_DTYPE_COUNT; i++)
        if (strlen(dtypes[i].name) == length && memcmp(dtypes[i].name, name, length) == 0) {
            *out = (enum em_st_dtype)i;
            return true;
        }
    return false;
}

bool em_st_bytes(enum em_st_dtype dtype, size_t elements, size_t *bytes)
{
    size_t bits;
    if (dtypes[dtype].bits >= 8) return em_mul_size(elements, dtypes[dtype].bits / 8, bytes);
    if (!em_mul_size(elements, dtypes[dtype].bits, &bits) || bits % 8 != 0) return false;
    *bytes = bits / 8;
    return true;
}

ember_status em_st_to_f32(enum em_st_dtype dtype, const void *from, float *to, size_t n)
{
    const unsigned char *p = from;
    uint16_t half;
    double wide;
    switch (dtype) {
    case EM_ST_F32:
        if (n) memcpy(to, p, n * sizeof *to);
        return EMBER_OK;
    case EM_ST_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, sizeof half);
            to[i] = em_bf16_to_f32(half);
        }
        return EMBER_OK;
    case EM_ST_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, sizeof half);
            to[i] = em_f16_to_f32(half);
        }
        return EMBER_OK;
    case EM_ST_F64:
        for (size_t i = 0; i < n; i++) {
            memcpy(&wide, p + 8 * i, sizeof wide);
            to[i] = (float)wide;
        }
        return EMBER_OK;
    default:
        return em_fail(EMBER_E_UNSUPPORTED,
                       "dtype %s cannot be read as f32 (F32, BF16, F16, F64 can)",
                       em_st_dtype_name(dtype));
    }
}

int64_t em_st_integer(const struct em_st_tensor *t, size_t i)
{
    int32_t narrow;
    int64_t wide;
    if (t->dtype == EM_ST_I64) {
        memcpy(&wide, t->data + i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, t->data + i * sizeof narrow, sizeof narrow);
    return narrow;
}

ember_status em_st_tensor_f32(const struct em_st_tensor *tensor, float *to)
{
    const ember_status status = em_st_to_f32(tensor->dtype, tensor->data, to, tensor->elements);
    return status == EMBER_OK ? EMBER_OK : em_fail_in(status, "tensor %s", tensor->name);
}
