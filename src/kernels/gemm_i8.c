#include "kernels/gemm_i8.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/threads.h"
#include "kernels/kernels.h"

// Rows of A that are quantised at a time, rows of a task, and blocks of a panel that stay in the
// second-level cache while a task's rows pass by. Quantised rows lie window by window of that many
// blocks, so that they are read from end to end.
enum { CHUNK = 480, ROWS = 96, DEPTH = 32 };

// Plain to wide.
static const struct em_i8_set *const sets[] = {
    &em_gemm_i8__scalar,
#if defined(__x86_64__)
    &em_gemm_i8__avx2,
    &em_gemm_i8__avx512,
    &em_gemm_i8_dot__avx512,
#elif defined(__aarch64__)
    &em_gemm_i8__neon,
    &em_gemm_i8_dot__neon,
    &em_gemm_i8_matrix__neon,
#endif
};
enum { SETS = sizeof sets / sizeof *sets };

// What a test asked for; NULL: the set in force.
static const struct em_i8_set *forced;

bool em_gemm_i8_use_at(size_t i)
{
    for (size_t n = 0; n < SETS; n++)
        if (em_isa_runs_with(sets[n]->isa, sets[n]->extra) && i-- == 0) {
            forced = sets[n];
            return true;
        }
    return false;
}

void em_gemm_i8_use_default(void)
{
    forced = NULL;
}

const struct em_i8_set *em_gemm_i8_set(void)
{
    if (forced) return forced;
    const struct em_i8_set *best = sets[0];
    for (size_t n = 0; n < SETS; n++)
        if (strcmp(sets[n]->isa, em_kernels()->isa) == 0 &&
            !(sets[n]->extra & ~em_kernels_extras()))
            best = sets[n];
    return best;
}

const char *em_gemm_i8_name(void)
{
    return em_gemm_i8_set()->name;
}

bool em_gemm_i8_native(void)
{
    return em_gemm_i8_set()->extra != 0;
}

static size_t block_bytes(size_t columns)
{
    return columns * (sizeof(uint16_t) + EM_I8_BLOCK);
}

static size_t panels(size_t N, size_t columns)
{
    return N / columns + (N % columns != 0);
}

size_t em_gemm_i8_packed_size(size_t K, size_t N)
{
    const size_t columns = em_gemm_i8_set()->columns;
    size_t bytes;
    if (!em_mul_size(panels(N, columns), em_i8_blocks(K), &bytes) ||
        !em_mul_size(bytes, block_bytes(columns), &bytes))
        return SIZE_MAX;
    return bytes;
}

// ---- packing ----

struct packing {
    const struct em_i8_set *set;
    size_t N, blocks;
    const int8_t *values;
    const uint16_t *scales;
    char *to;
};

static void pack_panels(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct packing *p = arg;
    const size_t columns = p->set->columns, cell = p->set->cell;
    for (size_t i = begin; i < end; i++)
        for (size_t k = 0; k < p->blocks; k++) {
            char *to = p->to + (i * p->blocks + k) * block_bytes(columns);
            char *cells = to + columns * sizeof(uint16_t);
            for (size_t j = 0; j < columns; j++) {
                const size_t n = i * columns + j;
                uint16_t scale = 0;
                int8_t value[EM_I8_BLOCK] = {0};
                if (n < p->N) {
                    scale = p->scales[n * p->blocks + k];
                    memcpy(value, p->values + (n * p->blocks + k) * EM_I8_BLOCK, sizeof value);
                }
                memcpy(to + j * sizeof scale, &scale, sizeof scale);
                for (size_t s = 0; s < EM_I8_BLOCK; s += cell)
                    for (size_t b = 0; b < cell; b++)
                        cells[s * columns + j * cell + b] =
                            (char)(uint8_t)(value[s + b] + p->set->offset);
            }
        }
}

void em_gemm_i8_pack(size_t K, size_t N, const int8_t *values, const uint16_t *scales, void *packed,
                     struct em_pool *pool)
{
    struct packing p = {em_gemm_i8_set(), N, em_i8_blocks(K), values, scales, packed};
    em_parallel(pool, panels(N, p.set->columns), 1, pack_panels, &p);
}

// ---- the product ----

struct work {
    const struct em_i8_set *set;
    size_t rows, lines;    // of A; in memory, where pairs are whole
    size_t N, K, blocks;   // of a row
    size_t depth, windows; // blocks of a window, windows of a row
    size_t row_blocks;     // of ROWS rows
    const float *a;
    size_t a_stride;
    const char *packed;
    float *c;
    size_t c_stride;
    int8_t *values; // [windows][lines][depth * 32]
    float *scales;  // [windows][lines][depth]
    int32_t *starts;
    float *part; // [threads][ROWS, columns]: sums on their way
};

static size_t line(size_t bytes)
{
    return (bytes + 127) / 128 * 128;
}

// Blocks of a window, and windows of a row.
static size_t depth_of(size_t blocks)
{
    return blocks < DEPTH ? blocks : DEPTH;
}

static size_t windows_of(size_t blocks)
{
    return blocks / DEPTH + (blocks % DEPTH != 0);
}

size_t em_gemm_i8_scratch_size(size_t K, unsigned threads)
{
    const size_t blocks = em_i8_blocks(K);
    size_t bytes;
    if (!em_mul_size(windows_of(blocks), depth_of(blocks), &bytes) ||
        !em_mul_size(bytes, CHUNK * (EM_I8_BLOCK + sizeof(float) + sizeof(int32_t)), &bytes) ||
        !em_add_size(bytes, (size_t)threads * ROWS * EM_I8_NR_MAX * sizeof(float) + 3 * 128,
                     &bytes))
        return SIZE_MAX;
    return bytes;
}

static void quantise_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const size_t window = w->depth * EM_I8_BLOCK;
    for (size_t r = begin; r < end; r++)
        for (size_t i = 0; i < w->windows; i++) {
            const size_t at = i * w->lines + r, k = i * window;
            int8_t row[DEPTH * EM_I8_BLOCK];
            em_kernels()->quantise_i8(w->set->paired ? row : w->values + at * window,
                                      w->scales + at * w->depth, w->starts + at * w->depth,
                                      w->a + r * w->a_stride + k,
                                      w->K - k < window ? w->K - k : window);
            if (!w->set->paired) continue;
            const size_t cell = w->set->cell;
            int8_t *to = w->values + (at - r % 2) * window + r % 2 * cell;
            for (size_t b = 0; b < window; b += cell)
                memcpy(to + 2 * b, row + b, cell);
        }
}

// Rows [first, first + rows) of a panel.
static void panel_rows(const struct work *w, size_t panel, size_t first, size_t rows, float *c,
                       size_t c_stride)
{
    const size_t bytes = block_bytes(w->set->columns), window = w->depth * EM_I8_BLOCK;
    for (size_t i = 0; i < w->windows; i++) {
        const size_t k = i * w->depth, blocks = w->blocks - k < w->depth ? w->blocks - k : w->depth;
        for (size_t r = 0; r < rows; r += w->set->rows) {
            const size_t at = i * w->lines + first + r;
            w->set->tile(
                &(struct em_i8_tile){.rows = rows - r < w->set->rows ? rows - r : w->set->rows,
                                     .blocks = blocks,
                                     .a = w->values + at * window,
                                     .a_stride = window,
                                     .a_scale = w->scales + at * w->depth,
                                     .a_start = w->starts + at * w->depth,
                                     .a_blocks = w->depth,
                                     .b = w->packed + (panel * w->blocks + k) * bytes,
                                     .c = c + r * c_stride,
                                     .c_stride = c_stride,
                                     .add = i > 0});
        }
    }
}

static void multiply(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const size_t columns = w->set->columns;
    float *part = w->part + (size_t)thread * ROWS * EM_I8_NR_MAX;
    for (size_t i = begin; i < end; i++) {
        const size_t panel = i / w->row_blocks, first = i % w->row_blocks * ROWS,
                     n = panel * columns;
        const size_t rows = w->rows - first < ROWS ? w->rows - first : ROWS,
                     width = w->N - n < columns ? w->N - n : columns;
        float *c = w->c + first * w->c_stride + n;
        // Rows of C may lie at multiples of 4 KiB, where they push each other out of the cache.
        panel_rows(w, panel, first, rows, part, columns);
        for (size_t r = 0; r < rows; r++)
            memcpy(c + r * w->c_stride, part + r * columns, width * sizeof *c);
    }
}

void em_gemm_i8(size_t M, size_t N, size_t K, const float *a, size_t a_stride, const void *packed,
                float *c, size_t c_stride, void *scratch, struct em_pool *pool)
{
    struct work w = {.set = em_gemm_i8_set(),
                     .N = N,
                     .K = K,
                     .blocks = em_i8_blocks(K),
                     .a_stride = a_stride,
                     .packed = packed,
                     .c_stride = c_stride};
    if (!M || !N) return;
    if (!K) {
        for (size_t r = 0; r < M; r++)
            memset(c + r * c_stride, 0, N * sizeof *c);
        return;
    }
    w.depth = depth_of(w.blocks);
    w.windows = windows_of(w.blocks);
    const size_t blocks = CHUNK * w.windows * w.depth;
    char *at = scratch;
    w.values = (int8_t *)at;
    at += line(blocks * EM_I8_BLOCK);
    w.scales = (float *)(void *)at;
    at += line(blocks * sizeof *w.scales);
    w.starts = (int32_t *)(void *)at;
    at += line(blocks * sizeof *w.starts);
    w.part = (float *)(void *)at;
    const size_t chunks = (M + CHUNK - 1) / CHUNK, chunk = (M + chunks - 1) / chunks;
    for (size_t first = 0; first < M; first += chunk) {
        w.rows = M - first < chunk ? M - first : chunk;
        w.lines = w.rows + w.rows % 2;
        w.row_blocks = (w.rows + ROWS - 1) / ROWS;
        w.a = a + first * a_stride;
        w.c = c + first * c_stride;
        em_parallel(pool, w.rows, 1 + 8192 / K, quantise_rows, &w);
        em_parallel(pool, panels(N, w.set->columns) * w.row_blocks, 1, multiply, &w);
    }
}
