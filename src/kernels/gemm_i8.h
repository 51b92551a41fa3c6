// Products with quantised weights: C[M,N] = A[M,K] W[N,K]^T.
//
// Weights are 8-bit integers with a scale for every 32 of a row (ggml's Q8_0). Rows of A are
// quantised the same way on the way in: to the nearest integer of 127ths of a block's largest
// magnitude. The sum of a block is an exact integer; blocks are added in f32, in order. So a row of
// C depends on its row of A alone, not on which others share the call.
#ifndef EM_KERNELS_GEMM_I8_H
#define EM_KERNELS_GEMM_I8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct em_pool;

enum { EM_I8_BLOCK = 32 };

// Blocks of a row of K values; the last one may be padded with zeros.
static inline size_t em_i8_blocks(size_t K)
{
    return K / EM_I8_BLOCK + (K % EM_I8_BLOCK != 0);
}

// Bytes; SIZE_MAX where they do not fit into size_t.
size_t em_gemm_i8_packed_size(size_t K, size_t N);
size_t em_gemm_i8_scratch_size(size_t K, unsigned threads);

// Values [N, blocks, 32] and scales [N, blocks] as f16 bits into `packed`, 128-byte aligned. The
// layout belongs to the instruction set in force.
void em_gemm_i8_pack(size_t K, size_t N, const int8_t *values, const uint16_t *scales, void *packed,
                     struct em_pool *pool);

// Rows of C are c_stride apart, those of A a_stride. `scratch`: em_gemm_i8_scratch_size() bytes,
// 128-byte aligned.
void em_gemm_i8(size_t M, size_t N, size_t K, const float *a, size_t a_stride, const void *packed,
                float *c, size_t c_stride, void *scratch, struct em_pool *pool);

// "avx512-vnni", "avx2", ..; static. And whether its 8-bit dot products are instructions.
const char *em_gemm_i8_name(void);
bool em_gemm_i8_native(void);

// For tests: the i-th way that this machine can run, from plain to wide, until em_gemm_i8_use_at
// returns false. em_gemm_i8_use_default goes back to the one in force.
bool em_gemm_i8_use_at(size_t i);
void em_gemm_i8_use_default(void);

// ---- between the driver and the kernels of isa/gemm_i8*.c ----

enum { EM_I8_MR_MAX = 6, EM_I8_NR_MAX = 64 };

// A tile of C: some rows of a panel's columns, over some blocks. A panel's block is the f16 scales
// of its columns, then [EM_I8_BLOCK / cell][columns] cells of weights.
struct em_i8_tile {
    size_t rows, blocks;
    const int8_t *a; // [rows][..] values, at the first block
    size_t a_stride;
    const float *a_scale;   // [rows][a_blocks] at the first block
    const int32_t *a_start; // likewise: -128 times the sum of the block's values, for weights that
                            // are 128 too large
    size_t a_blocks;
    const char *b; // the panel at the first block
    float *c;
    size_t c_stride;
    bool add; // to C; else C is set
};

// A way to multiply.
struct em_i8_set {
    const char *name, *isa;
    unsigned extra;       // what the CPU has to have beside the set, of em_isa_extra
    size_t rows, columns; // of a tile; ROWS of a task are a multiple of `rows`
    size_t cell;          // weights of a cell, all of a column: 4 or 8
    uint8_t offset;       // weights are unsigned, and so much larger than they are; 0: signed
    bool paired;          // cells of A's rows 2i and 2i + 1 take turns, from where row 2i begins
    void (*tile)(const struct em_i8_tile *t);
    int32_t (*roof)(size_t iterations); // dot products on registers alone
    size_t roof_operations;             // of an iteration
};
const struct em_i8_set *em_gemm_i8_set(void); // in force

extern const struct em_i8_set em_gemm_i8__scalar;
#if defined(__x86_64__)
extern const struct em_i8_set em_gemm_i8__avx2, em_gemm_i8__avx512, em_gemm_i8_dot__avx512;
#elif defined(__aarch64__)
extern const struct em_i8_set em_gemm_i8__neon, em_gemm_i8_dot__neon, em_gemm_i8_matrix__neon;
#endif

#endif
