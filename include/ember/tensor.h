/** @file tensor.h  Tensors: a shape, strides, a dtype and a pointer. */
#ifndef EMBER_TENSOR_H
#define EMBER_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Element types. Values are pinned: files store them. */
typedef enum ember_dtype {
    EMBER_F32 = 0,
    EMBER_BF16 = 1,
    EMBER_F16 = 2,
    EMBER_I32 = 3,
    EMBER_I64 = 4,
    EMBER_U8 = 5
} ember_dtype;

#define EMBER_MAX_DIMS 4

typedef struct ember_tensor ember_tensor; /**< threads: many may read one, or one write it */

/**
 * A tensor, or a view of one. Row-major: the last dimension is contiguous (stride 1) in everything
 * that operations make. A scalar has ndim 0 and one element.
 */
struct ember_tensor {
    ember_dtype dtype;
    unsigned ndim;
    size_t dim[EMBER_MAX_DIMS];
    size_t stride[EMBER_MAX_DIMS]; /**< in elements */
    void *data;                    /**< borrowed; NULL while a recorded program is not placed yet */
    ember_tensor *grad;            /**< f32, same shape; NULL where no gradient is wanted */
    const char *name;              /**< parameters: their path in the model; NULL for activations */
    struct em_tensor_info *info;   /**< Ember's own bookkeeping */
};

EMBER_API size_t
ember_dtype_size(ember_dtype dtype); /**< bytes of one element; 0 for an unknown dtype */
EMBER_API const char *
ember_dtype_name(ember_dtype dtype); /**< "f32", "bf16", ...; "?" for an unknown one */

/** Elements of `t`: the product of its dimensions, 1 for a scalar. */
EMBER_API size_t ember_tensor_count(const ember_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
