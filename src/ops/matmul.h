// Matrix products inside of operations: the call's type, and its workspace from the scratch.
#ifndef EM_OPS_MATMUL_H
#define EM_OPS_MATMUL_H

#include "kernels/gemm.h"
#include "ops/rows.h"

// bf16 where the program computes in it; `f32`: never.
static inline enum em_gemm_type em_matmul_type(const struct em_call *c, bool f32)
{
    return c->exec->bf16 && !f32 ? EM_GEMM_BF16 : EM_GEMM_F32;
}

// One row-major operand: rows `stride` apart.
static inline struct em_matrix em_matmul_rows(const float *data, size_t stride)
{
    return (struct em_matrix){data, stride, 1};
}

// The same read as its transpose.
static inline struct em_matrix em_matmul_columns(const float *data, size_t stride)
{
    return (struct em_matrix){data, 1, stride};
}

static inline struct em_gemm_scratch em_matmul_scratch(const struct em_call *c, size_t bytes)
{
    return (struct em_gemm_scratch){em_scratch_take(em_scratch_of(c), bytes), bytes};
}

// Adds a workspace's size to *bytes; sizes that do not fit are refused.
static inline ember_status em_add_matmul_scratch(const struct em_call *c, size_t workspace,
                                                 size_t *bytes)
{
    size_t n;
    if (!em_add_size(workspace, EM_SCRATCH_ALIGNMENT - 1, &n) ||
        !em_add_size(*bytes, n / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT, bytes))
        return em_fail(EMBER_E_NOMEM,
                       "%s: the workspace of its matrix products does not fit into memory",
                       c->op->name);
    return EMBER_OK;
}

#endif
