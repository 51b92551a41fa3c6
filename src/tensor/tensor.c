#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/half.h"

size_t ember_tensor_count(const ember_tensor *t)
{
    size_t n = 1;
    for (unsigned i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

size_t em_tensor_bytes(const ember_tensor *t)
{
    return ember_tensor_count(t) * ember_dtype_size(t->dtype);
}

static void set_contiguous_strides(ember_tensor *t)
{
    size_t n = 1;
    for (unsigned i = t->ndim; i-- > 0;) {
        t->stride[i] = n;
        n *= t->dim[i];
    }
}

ember_status em_tensor_init(ember_tensor *t, ember_dtype dtype, const size_t *dim, unsigned ndim,
                            void *data)
{
    if (ndim > EMBER_MAX_DIMS)
        return em_fail(EMBER_E_SHAPE, "a tensor has at most %d dimensions, not %u", EMBER_MAX_DIMS,
                       ndim);
    size_t bytes = ember_dtype_size(dtype);
    for (unsigned i = 0; i < ndim; i++)
        if (!em_mul_size(bytes, dim[i] ? dim[i] : 1, &bytes))
            return em_fail(EMBER_E_SHAPE,
                           "a tensor of this shape does not fit into memory (dimension %u is %zu)",
                           i, dim[i]);
    *t = (ember_tensor){.dtype = dtype, .ndim = ndim, .data = data};
    if (ndim) memcpy(t->dim, dim, ndim * sizeof *dim);
    set_contiguous_strides(t);
    return EMBER_OK;
}

bool em_is_contiguous(const ember_tensor *t)
{
    size_t n = 1;
    for (unsigned i = t->ndim; i-- > 0;) {
        if (t->dim[i] != 1 && t->stride[i] != n) return false;
        n *= t->dim[i];
    }
    return true;
}

bool em_same_shape(const ember_tensor *a, const ember_tensor *b)
{
    return a->ndim == b->ndim && memcmp(a->dim, b->dim, a->ndim * sizeof a->dim[0]) == 0;
}

const char *em_shape_text(const ember_tensor *t, char *buf, size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "[");
    for (unsigned i = 0; i < t->ndim && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, i ? ", %zu" : "%zu", t->dim[i]);
    if (used < size) snprintf(buf + used, size - used, "]");
    return buf;
}

ember_status em_view_reshape(const ember_tensor *t, const size_t *dim, unsigned ndim,
                             ember_tensor *view)
{
    char from[96], to[96];
    ember_tensor v;
    EM_TRY(em_tensor_init(&v, t->dtype, dim, ndim, t->data));
    if (!em_is_contiguous(t) || ember_tensor_count(t) != ember_tensor_count(&v))
        return em_fail(EMBER_E_SHAPE, "cannot view %s%s as %s",
                       em_is_contiguous(t) ? "" : "a strided ", em_shape_text(t, from, sizeof from),
                       em_shape_text(&v, to, sizeof to));
    *view = v;
    return EMBER_OK;
}

ember_status em_view_slice(const ember_tensor *t, unsigned axis, size_t begin, size_t end,
                           ember_tensor *view)
{
    char shape[96];
    if (axis >= t->ndim || begin > end || end > t->dim[axis])
        return em_fail(EMBER_E_SHAPE, "cannot slice [%zu, %zu) of axis %u of %s", begin, end, axis,
                       em_shape_text(t, shape, sizeof shape));
    ember_tensor v = *t;
    v.grad = NULL;
    v.info = NULL;
    v.dim[axis] = end - begin;
    if (v.data) v.data = (char *)v.data + begin * t->stride[axis] * ember_dtype_size(t->dtype);
    *view = v;
    return EMBER_OK;
}

ember_status em_view_transpose(const ember_tensor *t, unsigned a, unsigned b, ember_tensor *view)
{
    char shape[96];
    if (a >= t->ndim || b >= t->ndim)
        return em_fail(EMBER_E_SHAPE, "cannot exchange axes %u and %u of %s", a, b,
                       em_shape_text(t, shape, sizeof shape));
    ember_tensor v = *t;
    v.grad = NULL;
    v.info = NULL;
    v.dim[a] = t->dim[b], v.dim[b] = t->dim[a];
    v.stride[a] = t->stride[b], v.stride[b] = t->stride[a];
    *view = v;
    return EMBER_OK;
}

static bool is_float(ember_dtype dtype)
{
    return dtype == EMBER_F32 || dtype == EMBER_BF16 || dtype == EMBER_F16;
}

static float load_float(ember_dtype dtype, const char *p)
{
    uint16_t h;
    float f;
    if (dtype == EMBER_F32) return memcpy(&f, p, sizeof f), f;
    memcpy(&h, p, sizeof h);
    return dtype == EMBER_BF16 ? em_bf16_to_f32(h) : em_f16_to_f32(h);
}

static void store_float(ember_dtype dtype, char *p, float f)
{
    if (dtype == EMBER_F32) {
        memcpy(p, &f, sizeof f);
        return;
    }
    const uint16_t h = dtype == EMBER_BF16 ? em_bf16_from_f32(f) : em_f16_from_f32(f);
    memcpy(p, &h, sizeof h);
}

static int64_t load_integer(ember_dtype dtype, const char *p)
{
    int32_t i;
    int64_t l;
    if (dtype == EMBER_U8) return *(const unsigned char *)p;
    if (dtype == EMBER_I32) return memcpy(&i, p, sizeof i), i;
    return memcpy(&l, p, sizeof l), l;
}

static bool store_integer(ember_dtype dtype, char *p, int64_t v)
{
    if (dtype == EMBER_I64) {
        memcpy(p, &v, sizeof v);
        return true;
    }
    if (dtype == EMBER_U8) {
        *(unsigned char *)p = (unsigned char)v;
        return v >= 0 && v <= UINT8_MAX;
    }
    const int32_t i = (int32_t)v;
    memcpy(p, &i, sizeof i);
    return v >= INT32_MIN && v <= INT32_MAX;
}

ember_status em_tensor_copy(const ember_tensor *from, ember_tensor *out)
{
    char a[96], b[96];
    if (!em_same_shape(from, out) || !em_is_contiguous(out))
        return em_fail(EMBER_E_SHAPE, "cannot copy %s into %s", em_shape_text(from, a, sizeof a),
                       em_shape_text(out, b, sizeof b));
    if (is_float(from->dtype) != is_float(out->dtype))
        return em_fail(EMBER_E_SHAPE, "cannot copy %s into %s", ember_dtype_name(from->dtype),
                       ember_dtype_name(out->dtype));
    const size_t n = ember_tensor_count(from), from_size = ember_dtype_size(from->dtype),
                 out_size = ember_dtype_size(out->dtype);
    size_t index[EMBER_MAX_DIMS] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t offset = 0;
        for (unsigned d = 0; d < from->ndim; d++)
            offset += index[d] * from->stride[d];
        const char *p = (const char *)from->data + offset * from_size;
        char *q = (char *)out->data + i * out_size;
        if (is_float(from->dtype))
            store_float(out->dtype, q, load_float(from->dtype, p));
        else if (!store_integer(out->dtype, q, load_integer(from->dtype, p)))
            return em_fail(EMBER_E_RANGE, "element %zu does not fit into %s", i,
                           ember_dtype_name(out->dtype));
        for (unsigned d = from->ndim; d-- > 0;) {
            if (++index[d] < from->dim[d]) break;
            index[d] = 0;
        }
    }
    return EMBER_OK;
}
