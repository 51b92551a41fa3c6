// Shapes, strides and views. Tensors do not own their data.
#ifndef EM_TENSOR_TENSOR_H
#define EM_TENSOR_TENSOR_H

#include <assert.h>

#include <ember/tensor.h>

#include "base/fail.h"

// Fills a contiguous row-major tensor over `data`. Fails with EMBER_E_SHAPE when the element count
// wraps.
ember_status em_tensor_init(ember_tensor *t, ember_dtype dtype, const size_t *dim, unsigned ndim,
                            void *data) EMBER_CHECKED;

bool em_is_contiguous(const ember_tensor *t);
size_t em_tensor_bytes(const ember_tensor *t); // of the elements, packed
bool em_same_shape(const ember_tensor *a, const ember_tensor *b);

static inline size_t em_last_dim(const ember_tensor *t)
{
    return t->ndim ? t->dim[t->ndim - 1] : 1;
}

// Rows of a tensor seen as [rows, last dimension].
static inline size_t em_rows(const ember_tensor *t)
{
    size_t n = 1;
    for (unsigned i = 0; i + 1 < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

// Elements from one row to the next, for tensors whose leading dimensions collapse into rows.
static inline size_t em_row_stride(const ember_tensor *t)
{
    return t->ndim >= 2 ? t->stride[t->ndim - 2] : em_last_dim(t);
}

static inline float *em_f32(const ember_tensor *t)
{
    assert(t->dtype == EMBER_F32);
    return t->data;
}

static inline int32_t *em_i32(const ember_tensor *t)
{
    assert(t->dtype == EMBER_I32);
    return t->data;
}

static inline float *em_row(const ember_tensor *t, size_t r)
{
    return em_f32(t) + r * em_row_stride(t);
}

// Views share the data of `t`; each fails with EMBER_E_SHAPE and says both shapes.
ember_status em_view_reshape(const ember_tensor *t, const size_t *dim, unsigned ndim,
                             ember_tensor *view) EMBER_CHECKED; // contiguous t
ember_status em_view_slice(const ember_tensor *t, unsigned axis, size_t begin, size_t end,
                           ember_tensor *view) EMBER_CHECKED;
ember_status em_view_transpose(const ember_tensor *t, unsigned a, unsigned b,
                               ember_tensor *view) EMBER_CHECKED;

// Copies any strided view into contiguous `out` of the same shape, converting the dtype (floats
// among themselves, integers among themselves; round to nearest even).
ember_status em_tensor_copy(const ember_tensor *from, ember_tensor *out) EMBER_CHECKED;

// "[3, 11]" into buf; returns buf.
const char *em_shape_text(const ember_tensor *t, char *buf, size_t size);

#endif
