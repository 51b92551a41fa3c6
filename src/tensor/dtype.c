// Element types and half-precision conversion.
#include "tensor/tensor.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [EMBER_F32] = {"f32", 4}, [EMBER_BF16] = {"bf16", 2}, [EMBER_F16] = {"f16", 2},
    [EMBER_I32] = {"i32", 4}, [EMBER_I64] = {"i64", 8},   [EMBER_U8] = {"u8", 1},
};

size_t ember_dtype_size(ember_dtype dtype)
{
    return (size_t)dtype < sizeof dtypes / sizeof dtypes[0] ? dtypes[dtype].size : 0;
}

const char *ember_dtype_name(ember_dtype dtype)
{
    return (size_t)dtype < sizeof dtypes / sizeof dtypes[0] ? dtypes[dtype].name : "?";
}

union word {
    float f;
    uint32_t u;
};

float em_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u,
                   mantissa = h & 1023u;
    union word w;
    if (exponent == 31) // infinity and NaN
        w.u = sign | 0x7f800000u | (mantissa << 13);
    else if (exponent)
        w.u = sign | ((exponent + 112) << 23) | (mantissa << 13);
    else { // zero and subnormal: mantissa * 2^-24, exact in f32
        w.f = (float)mantissa * 0x1p-24f;
        w.u |= sign;
    }
    return w.f;
}

uint16_t em_f32_to_f16(float f)
{
    union word w = {.f = f};
    const uint16_t sign = (uint16_t)((w.u >> 16) & 0x8000u);
    w.u &= 0x7fffffffu;
    if (w.u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (w.u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // rounds past 65504
    if (w.u < 0x38800000u) { // below 2^-14: adding 2^-1 places the last bit of 2^-24 at the end,
                             // rounded to even
        w.f += 0.5f;
        return (uint16_t)(sign | (w.u - 0x3f000000u));
    }
    w.u += 0xfffu + ((w.u >> 13) & 1u);
    return (uint16_t)(sign | ((w.u - 0x38000000u) >> 13));
}
