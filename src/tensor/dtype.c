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
