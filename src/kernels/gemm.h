// Matrix multiplication: C[M,N] = A[M,K] B[K,N], with B packed beforehand.
//
// Every element of C is one chain of fused multiply-adds over k = 0, 1, .. K-1 (in pairs for bf16),
// whatever the blocking (where B is packed on the way, one chain per window of k, added in order).
// So a result depends on its row of A, its column of B and the instruction set alone: not on the
// number of threads, and not on which other rows and columns share the call.
#ifndef EM_KERNELS_GEMM_H
#define EM_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct em_pool;

// EM_GEMM_BF16: both operands are rounded to bf16 (to nearest, even), products and sums are f32.
enum em_gemm_type { EM_GEMM_F32, EM_GEMM_BF16 };

// Element (i, j) is data[i * row_stride + j * col_stride]; one of the strides is 1, so a transposed
// view costs nothing to name.
struct em_matrix {
    const float *data;
    size_t row_stride, col_stride;
};

// What happens on the way to memory, in this order: v = sum * scale + bias[n]; v += residual[m][n];
// C = v, or C += v. Start from {0}.
struct em_gemm_epilogue {
    const float *bias;        // [N] or NULL
    size_t bias_group_stride; // grouped calls: group g's bias starts at bias + g * this
    const float *residual;    // [M, N] or NULL; may be C itself
    size_t residual_stride;
    float scale; // 0 means 1
    bool accumulate;
};

// Workspace of one call at a time, the caller's: nothing is allocated inside. 128-byte aligned.
// Inside a task, give each thread its own and no pool.
struct em_gemm_scratch {
    void *data;
    size_t bytes;
};

// Bytes of the functions below; SIZE_MAX where they do not fit into size_t (and no allocation will
// succeed). `threads` is em_pool_threads(pool). Scratch for more threads, rows or K serves fewer.
size_t em_gemm_packed_size(enum em_gemm_type type, size_t K, size_t N);
size_t em_gemm_scratch_size(unsigned threads); // em_gemm_packed, em_gemm_grouped
size_t em_gemm_unpacked_scratch_size(enum em_gemm_type type, size_t N, size_t K, unsigned threads);
size_t em_gemm_grouped_grad_scratch_size(enum em_gemm_type type, size_t groups, size_t rows,
                                         size_t N, unsigned threads);

// B[K,N] into `packed` (em_gemm_packed_size bytes, 128-byte aligned). The layout belongs to the
// instruction set in force: packed operands are not for files.
void em_gemm_pack(enum em_gemm_type type, size_t K, size_t N, struct em_matrix b, void *packed,
                  struct em_pool *pool);

// C[M,N] (rows c_stride apart) = A[M,K] B[K,N]. `e` may be NULL. A and B must not overlap C. M or N
// = 0 does nothing; K = 0 is a sum of nothing.
void em_gemm_packed(enum em_gemm_type type, size_t M, size_t N, size_t K, struct em_matrix a,
                    const void *packed_b, float *c, size_t c_stride,
                    const struct em_gemm_epilogue *e, struct em_gemm_scratch *scratch,
                    struct em_pool *pool);

// The same with B as it lies, packing it into the scratch (em_gemm_unpacked_scratch_size). A long K
// is taken in windows, each a product that is added to C, so that the packed rows stay in the
// cache; what is a window depends on the type, N and K alone. With more than one, a residual may
// not be C.
void em_gemm(enum em_gemm_type type, size_t M, size_t N, size_t K, struct em_matrix a,
             struct em_matrix b, float *c, size_t c_stride, const struct em_gemm_epilogue *e,
             struct em_gemm_scratch *scratch, struct em_pool *pool);

// Grouped: rows offsets[g] .. offsets[g+1] of C are the same rows of A times B_g, for g < groups;
// offsets[0] need not be 0, groups may be empty. B_g is at packed_b + g * packed_stride bytes (a
// multiple of 64; em_gemm_packed_size is one). With a_rows, row i of A is a.data[a_rows[i] *
// row_stride] and a.col_stride is 1: tokens need not be copied to be sorted. One parallel region
// for all groups.
void em_gemm_grouped(enum em_gemm_type type, size_t groups, const int32_t *offsets, size_t N,
                     size_t K, struct em_matrix a, const int32_t *a_rows, const void *packed_b,
                     size_t packed_stride, float *c, size_t c_stride,
                     const struct em_gemm_epilogue *e, struct em_gemm_scratch *scratch,
                     struct em_pool *pool);

// The weight gradients of a grouped product: for each g, C_g[M,N] (at c + g * c_group_stride) = the
// sum over rows i in offsets[g] .. offsets[g+1] of dy[i][0..M) x[i][0..N), outer products. dy is
// [rows, M] and x [rows, N], both row-major with their strides; with x_rows, row i of x is
// x_rows[i]. An empty group's sum is zero (which the epilogue stores or adds). A residual is not
// supported here.
void em_gemm_grouped_grad(enum em_gemm_type type, size_t groups, const int32_t *offsets, size_t M,
                          size_t N, const float *dy, size_t dy_stride, const float *x,
                          size_t x_stride, const int32_t *x_rows, float *c, size_t c_stride,
                          size_t c_group_stride, const struct em_gemm_epilogue *e,
                          struct em_gemm_scratch *scratch, struct em_pool *pool);

// How a type is computed here: "avx512", "avx512-bf16" (bf16 instructions), .. Static.
const char *em_gemm_name(enum em_gemm_type type);
// True where the type has instructions of its own; else bf16 costs what f32 does.
bool em_gemm_native(enum em_gemm_type type);

// For tests: the i-th way of computing `type` that this machine can run, from plain to wide, until
// em_gemm_use_at returns false. em_gemm_use_default goes back to the instruction set in force.
bool em_gemm_use_at(enum em_gemm_type type, size_t i);
void em_gemm_use_default(void);

#endif
