// Packing operand B: which piece goes where. The moving is done by the set's kernels.
#include <assert.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "kernels/gemm_set.h"

enum {
    WINDOW_BYTES = 8 << 20,
    WINDOW_LEAST = 1024, // rows; a multiple of STRIP
    // k values that are read side by side where k strides: 8 streams are what prefetchers follow
    // (32: half the speed, 2: two thirds, 25 MiB of f32 on Zen 4).
    STRIP = 8,
    STRIPS_AT_ONCE = 4, // of a task's piece
    SMALL_WORK = 32768, // elements that are not worth waking another thread
};

size_t em_gemm_packed_size(enum em_gemm_type type, size_t K, size_t N)
{
    const struct em_gemm_set *s = em_gemm_set(type);
    size_t bytes;
    if (N > SIZE_MAX - EM_GEMM_NR_MAX ||
        !em_mul_size(em_gemm_steps(s, K), em_gemm_row_cells(s, N), &bytes) ||
        !em_mul_size(bytes, s->cell_bytes, &bytes) || bytes > SIZE_MAX - 63)
        return SIZE_MAX;
    return (bytes + 63) & ~(size_t)63;
}

static size_t most_rows(const struct em_gemm_set *s, size_t n)
{
    const size_t most = WINDOW_BYTES / s->cell_bytes / em_gemm_row_cells(s, n) * s->k_per_step;
    return most < WINDOW_LEAST ? WINDOW_LEAST : most / STRIP * STRIP;
}

size_t em_gemm_window_rows(const struct em_gemm_set *s, size_t n, size_t rows)
{
    const size_t most = most_rows(s, n);
    if (rows <= most) return rows;
    const size_t windows = rows / most + (rows % most != 0);
    const size_t equal = rows / windows + (rows % windows != 0); // but for the rest of the last
    return (equal + STRIP - 1) / STRIP * STRIP;
}

size_t em_gemm_window_size(const struct em_gemm_set *s, size_t groups, size_t rows, size_t n)
{
    size_t steps, bytes;
    if (n == 0) return 0;
    if (n > SIZE_MAX - EM_GEMM_NR_MAX) return SIZE_MAX;
    steps = rows < most_rows(s, n) ? rows : most_rows(s, n); // no less for more rows
    if (s->k_per_step > 1 && !em_add_size(steps / s->k_per_step + 1, groups, &steps))
        return SIZE_MAX;
    if (!em_mul_size(steps, em_gemm_row_cells(s, n), &bytes) ||
        !em_mul_size(bytes, s->cell_bytes, &bytes) || bytes > SIZE_MAX - 63)
        return SIZE_MAX;
    return (bytes + 63) & ~(size_t)63;
}

struct pack {
    const struct em_gemm_set *set;
    size_t K, N;
    const float *src;
    size_t stride;
    const int32_t *rows; // gather, or NULL
    const int32_t *offsets;
    size_t groups; // 0: one operand
    const struct em_gemm_window *window;
    char *packed;
};

// A strip of k: every panel gets its part of each row.
static void pack_strip(const struct pack *p, const float *src, const int32_t *rows, char *packed,
                       size_t K, size_t strip)
{
    const struct em_gemm_set *s = p->set;
    const size_t k0 = strip * STRIP, k = K - k0 < STRIP ? K - k0 : STRIP;
    const size_t steps = em_gemm_steps(s, K);
    if (rows)
        rows += k0;
    else
        src += k0 * p->stride;
    for (size_t n = 0; n < p->N; n += s->nr) {
        const size_t cols = p->N - n < s->nr ? p->N - n : s->nr, width = em_gemm_width(s, cols);
        const size_t cell = n * steps + k0 / s->k_per_step * width;
        s->pack_b_rows(packed + cell * s->cell_bytes, width, src + n, p->stride, rows, k, cols);
    }
}

static void strips(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct pack *p = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        pack_strip(p, p->src, p->rows, p->packed, p->K, i);
}

static void group_strips(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct pack *p = arg;
    const struct em_gemm_set *s = p->set;
    (void)thread;
    size_t first = 0;
    for (size_t g = 0; g < p->groups && first < end; g++) {
        const struct em_gemm_part part = em_gemm_part(p->window, p->offsets, g);
        const size_t K = part.end - part.begin, count = (K + STRIP - 1) / STRIP;
        const size_t step = em_gemm_group_step(s, p->window, &part, g);
        char *packed = p->packed + step * em_gemm_row_cells(s, p->N) * s->cell_bytes;
        for (size_t i = begin > first ? begin - first : 0; i < count && first + i < end; i++)
            pack_strip(p, p->rows ? p->src : p->src + part.begin * p->stride,
                       p->rows ? p->rows + part.begin : NULL, packed, K, i);
        first += count;
    }
}

static void panels(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct pack *p = arg;
    const struct em_gemm_set *s = p->set;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const size_t n = i * s->nr, cols = p->N - n < s->nr ? p->N - n : s->nr;
        char *panel = p->packed + n * em_gemm_steps(s, p->K) * s->cell_bytes;
        s->pack_b_cols(panel, em_gemm_width(s, cols), p->src + n * p->stride, p->stride, p->K,
                       cols);
    }
}

static void run(struct em_pool *pool, size_t elements, size_t count, size_t grain, em_task *task,
                struct pack *p)
{
    if (elements <= SMALL_WORK || em_pool_threads(pool) == 1)
        task(p, 0, count, 0);
    else
        em_parallel(pool, count, grain, task, p);
}

void em_gemm_pack(enum em_gemm_type type, size_t K, size_t N, struct em_matrix b, void *packed,
                  struct em_pool *pool)
{
    assert(b.row_stride == 1 || b.col_stride == 1);
    assert((uintptr_t)packed % 64 == 0);
    struct pack p = {.set = em_gemm_set(type), .K = K, .N = N, .src = b.data, .packed = packed};
    if (b.col_stride == 1) {
        p.stride = b.row_stride;
        run(pool, K * N, (K + STRIP - 1) / STRIP, STRIPS_AT_ONCE, strips, &p);
    } else {
        p.stride = b.col_stride;
        run(pool, K * N, em_gemm_panels(p.set, N), 1, panels, &p);
    }
}

void em_gemm_pack_window(const struct em_gemm_set *s, size_t groups, const int32_t *offsets,
                         const struct em_gemm_window *w, size_t n, const float *x, size_t x_stride,
                         const int32_t *x_rows, void *packed, struct em_pool *pool)
{
    struct pack p = {.set = s,
                     .N = n,
                     .src = x,
                     .stride = x_stride,
                     .rows = x_rows,
                     .offsets = offsets,
                     .groups = groups,
                     .window = w,
                     .packed = packed};
    size_t count = 0;
    for (size_t g = 0; g < groups; g++) {
        const struct em_gemm_part part = em_gemm_part(w, offsets, g);
        count += (part.end - part.begin + STRIP - 1) / STRIP;
    }
    run(pool, (w->end - w->begin) * n, count, STRIPS_AT_ONCE, group_strips, &p);
}
