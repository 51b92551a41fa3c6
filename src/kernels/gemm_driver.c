// The driver of matrix multiplication: C is cut into blocks of rows and columns, each a task of one
// parallel region over all groups.
//
// A task walks K in blocks (sums of a block go through the thread's scratch, exactly, so blocking
// does not show in results), packs its rows of A where the kernel wants that, and lets tiles run
// down the rows for one panel of B after the other: the panel stays in L2 while the rows pass.
#include "kernels/gemm.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/sizes.h"
#include "base/threads.h"
#include "kernels/gemm_set.h"

enum {
    LINE = 64,
    A_BYTES = EM_GEMM_MC * (2048 + 2 * LINE), // a line more per row: rows 2 KiB apart share L1 sets
    PANEL_BYTES = 256 * 1024,                 // of B, to stay in L2 beside A and the next one
    LEAST_TILES = 4, // of a block, however long its rows: each panel is read so often
    PREFETCH_TILES = 4,
    SMALL_WORK = 1 << 17, // multiply-adds that are not worth waking another thread
    TASKS_PER_THREAD = 4, // so that a thread that loses its core leaves little behind
};

struct workspace {
    _Alignas(LINE) char a[A_BYTES];
    float sums[EM_GEMM_MC * EM_GEMM_NC];
    size_t block; // whose rows `a` holds, to pack them once for neighbouring column blocks; 0: none
};

struct job {
    const struct em_gemm_set *set;
    size_t M, N, K;
    size_t groups;          // 0: one product, M x N x K
    const int32_t *offsets; // of the groups in M, or with a window in K
    const struct em_gemm_window *window;
    struct em_matrix a;
    const int32_t *a_rows;
    const char *b;
    size_t b_stride; // bytes to the next group's operand
    float *c;
    size_t c_stride, c_group_stride;
    struct em_gemm_epilogue e;
    size_t block_rows, column_blocks; // of a task
    struct workspace *workspace;
};

// One group's product.
struct part {
    size_t M, K;
    const float *a; // first element
    const int32_t *a_rows;
    const char *b;
    float *c;
    const float *bias, *residual;
    bool accumulate;
};

static size_t row_blocks(const struct job *j, size_t M)
{
    return em_ceil_div(M, j->block_rows);
}

// Rows of C that group g has in this call.
static size_t group_rows(const struct job *j, size_t g)
{
    if (j->groups == 0) return j->M;
    if (!j->window) return (size_t)(j->offsets[g + 1] - j->offsets[g]);
    const struct em_gemm_part p = em_gemm_part(j->window, j->offsets, g);
    if (p.end > p.begin) return j->M;
    return p.first && !(j->e.accumulate && !j->e.bias) ? j->M : 0; // zeros to store, none to add
}

static struct part part_of(const struct job *j, size_t g)
{
    struct part p = {.M = j->M,
                     .K = j->K,
                     .a = j->a.data,
                     .a_rows = j->a_rows,
                     .b = j->b,
                     .c = j->c,
                     .bias = j->e.bias,
                     .residual = j->e.residual,
                     .accumulate = j->e.accumulate};
    if (j->groups == 0) return p;
    if (p.bias) p.bias += g * j->e.bias_group_stride;
    if (j->window) {
        const struct em_gemm_part rows = em_gemm_part(j->window, j->offsets, g);
        p.K = rows.end - rows.begin;
        p.a += rows.begin * j->a.col_stride;
        p.b += em_gemm_group_step(j->set, j->window, &rows, g) * em_gemm_row_cells(j->set, j->N) *
               j->set->cell_bytes;
        p.c += g * j->c_group_stride;
        if (!rows.first) {
            p.bias = NULL;
            p.accumulate = true;
        }
        return p;
    }
    const size_t at = (size_t)j->offsets[g];
    p.M = (size_t)j->offsets[g + 1] - at;
    if (p.a_rows)
        p.a_rows += at;
    else
        p.a += at * j->a.row_stride;
    p.b += g * j->b_stride;
    p.c += at * j->c_stride;
    if (p.residual) p.residual += at * j->e.residual_stride;
    return p;
}

static size_t panel_steps(const struct em_gemm_set *s)
{
    return PANEL_BYTES / (s->nr * s->cell_bytes);
}

// Most rows of a block: as many as leave room for all of K (or of a panel) in packed A, within
// reason.
static size_t rows_of_block(const struct em_gemm_set *s, size_t steps)
{
    if (steps > panel_steps(s)) steps = panel_steps(s);
    size_t rows = A_BYTES / (steps * s->a_step_bytes + 2 * LINE) / s->mr * s->mr;
    if (rows < LEAST_TILES * s->mr) rows = LEAST_TILES * s->mr;
    return rows < EM_GEMM_MC ? rows : EM_GEMM_MC;
}

// Steps of K that a block of `rows` rows takes at once: while packed rows fit into the workspace
// and, when more than one tile of rows reads it, the panel into L2.
static size_t k_steps(const struct em_gemm_set *s, size_t rows, size_t steps)
{
    rows = em_ceil_div(rows, s->row_unit) * s->row_unit;
    size_t most = (A_BYTES / rows - 2 * LINE) / s->a_step_bytes;
    if (rows > s->mr && most > panel_steps(s)) most = panel_steps(s);
    return steps <= most ? steps : em_ceil_div(steps, em_ceil_div(steps, most));
}

// Some rows of a group's C, panels first .. last of them, and steps done .. done + now of their
// sums.
struct block {
    size_t m, rows, tiles, first, last;
    size_t name; // of the rows, for workspace.block; not 0
    size_t steps, done, now;
    const void *row[EM_GEMM_MC]; // where the kernels find A at step `done`
};

static bool last_steps(const struct block *b)
{
    return b->done + b->now == b->steps;
}

// Points the block's rows at A, or at their packed copy, which stays for the next columns if it
// holds all of K.
static void find_rows(const struct job *j, const struct part *p, struct block *b,
                      struct workspace *w)
{
    const struct em_gemm_set *s = j->set;
    const size_t k = b->done * s->k_per_step;
    const float *a[EM_GEMM_MC];
    for (size_t i = 0; i < b->rows; i++) {
        const size_t at = p->a_rows ? (size_t)p->a_rows[b->m + i] : b->m + i;
        b->row[i] = a[i] = p->a + at * j->a.row_stride + k * j->a.col_stride;
    }
    if (s->a_in_place && j->a.col_stride == 1) return;
    const size_t stride = (b->now * s->a_step_bytes + LINE - 1) / LINE * LINE + LINE;
    assert(em_ceil_div(b->rows, s->row_unit) * s->row_unit * stride <= sizeof w->a);
    if (w->block != b->name) {
        const size_t count = last_steps(b) ? p->K - k : b->now * s->k_per_step;
        if (j->a.col_stride == 1)
            s->pack_a_rows(w->a, stride, a, b->rows, count);
        else
            s->pack_a_cols(w->a, stride, a[0], j->a.col_stride, b->rows, count);
    }
    w->block = b->now == b->steps ? b->name : 0;
    for (size_t i = 0; i < b->rows; i++)
        b->row[i] = w->a + i * stride;
}

// What the tiles of a panel fetch into L2 while they compute, each a line per step: tile i has line
// i % lines of every k (or step) from (i / lines) times its steps on.
struct ahead {
    const char *at;
    size_t lines, line_step; // bytes from one of these lines to the next
    size_t step, steps;      // bytes from one k (or step) to the next, and their number
};

static void fetch(const struct ahead *a, size_t i, struct em_gemm_tile *t)
{
    if (a->lines == 0 || i / a->lines * t->steps >= a->steps) return;
    t->next = a->at + i / a->lines * t->steps * a->step + i % a->lines * a->line_step;
    t->next_step = a->step;
}

// The panel of B that comes next, where enough tiles compute on one: 2-5 % where B comes from
// memory. Fewer are waiting for memory anyway, and lose by it.
static struct ahead next_panel(const struct job *j, const struct part *p, const struct block *b,
                               size_t panel)
{
    const struct em_gemm_set *s = j->set;
    const size_t n = (panel + 1) * s->nr;
    if (b->tiles < PREFETCH_TILES || panel + 1 == b->last) return (struct ahead){0};
    const size_t width = em_gemm_width(s, j->N - n < s->nr ? j->N - n : s->nr);
    return (struct ahead){.at = p->b + (n * b->steps + b->done * width) * s->cell_bytes,
                          .lines = width * s->cell_bytes / LINE,
                          .line_step = b->now * LINE,
                          .step = LINE,
                          .steps = b->now};
}

// The rows of A that this thread packs next, where they lie across: pieces of lines, far apart,
// that no prefetcher follows. Fetched during the last panel before, they cost such a product 10 %
// less time.
static struct ahead next_rows(const struct job *j, const struct part *p, const struct block *b)
{
    const bool all = last_steps(b), more_columns = b->last < em_gemm_panels(j->set, j->N);
    if (b->now == b->steps && more_columns) return (struct ahead){0};
    if (j->a.col_stride == 1) {
        const size_t m = b->m + b->rows, rows = p->M - m < b->rows ? p->M - m : b->rows;
        if (!all || j->a.row_stride != p->K || p->a_rows) return (struct ahead){0};
        return (struct ahead){.at = (const char *)(p->a + m * p->K),
                              .lines = 1,
                              .line_step = LINE,
                              .step = LINE,
                              .steps = rows * p->K * sizeof(float) / LINE};
    }
    const size_t m = all && !more_columns ? b->m + b->rows : b->m;
    const size_t k = all ? 0 : (b->done + b->now) * j->set->k_per_step;
    const size_t rows = p->M - m < b->rows ? p->M - m : b->rows;
    return (struct ahead){.at = (const char *)(p->a + m + k * j->a.col_stride),
                          .lines = em_ceil_div(rows * sizeof(float), LINE),
                          .line_step = LINE,
                          .step = j->a.col_stride * sizeof(float),
                          .steps = p->K - k};
}

// The first row of tile i: tiles of nearly equal height, so that all of them keep enough sums in
// flight, of whole units of rows.
static size_t tile_row(const struct block *b, const struct em_gemm_set *s, size_t i)
{
    if (s->row_unit == 1) return i * b->rows / b->tiles;
    const size_t row = i * em_ceil_div(b->rows, s->row_unit) / b->tiles * s->row_unit;
    return row < b->rows ? row : b->rows;
}

static void panel_of_tiles(const struct job *j, const struct part *p, const struct block *b,
                           size_t panel, const struct ahead *ahead, struct workspace *w)
{
    const struct em_gemm_set *s = j->set;
    const size_t n = panel * s->nr, cols = j->N - n < s->nr ? j->N - n : s->nr;
    const size_t width = em_gemm_width(s, cols), index = em_gemm_width_index(s, cols);
    const char *data = p->b + (n * b->steps + b->done * width) * s->cell_bytes;
    for (size_t i = 0; i < b->tiles; i++) {
        const size_t r = tile_row(b, s, i), r_end = tile_row(b, s, i + 1), m = b->m + r;
        struct em_gemm_tile t = {.a = b->row + r,
                                 .b = data,
                                 .steps = b->now,
                                 .next = data,
                                 .next_step = LINE,
                                 .sums = w->sums + r * EM_GEMM_NC + (panel - b->first) * s->nr,
                                 .sums_stride = EM_GEMM_NC,
                                 .scale = j->e.scale,
                                 .accumulate = p->accumulate};
        fetch(ahead, i, &t);
        if (b->done) t.start = t.sums;
        const bool whole = cols == width; // else columns are cut off after the sums
        float *const c = p->c + m * j->c_stride + n;
        if (last_steps(b)) {
            t.c = whole ? c : NULL;
            t.c_stride = j->c_stride;
            t.bias = p->bias ? p->bias + n : NULL;
            t.residual = p->residual ? p->residual + m * j->e.residual_stride + n : NULL;
            t.residual_stride = j->e.residual_stride;
        }
        s->tile[r_end - r - 1][index](&t);
        if (last_steps(b) && !whole) {
            t.c = c;
            s->finish(&t, r_end - r, cols);
        }
    }
}

static void compute(const struct job *j, const struct part *p, struct block *b, struct workspace *w)
{
    b->steps = em_gemm_steps(j->set, p->K);
    b->tiles = em_ceil_div(b->rows, j->set->mr);
    const size_t at_once = k_steps(j->set, b->rows, b->steps);
    do {
        b->now = b->steps - b->done < at_once ? b->steps - b->done : at_once;
        find_rows(j, p, b, w);
        for (size_t panel = b->first; panel < b->last; panel++) {
            const struct ahead ahead =
                panel + 1 < b->last ? next_panel(j, p, b, panel) : next_rows(j, p, b);
            panel_of_tiles(j, p, b, panel, &ahead, w);
        }
        b->done += b->now;
    } while (b->done < b->steps);
}

static void tasks(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct job *j = arg;
    const struct em_gemm_set *s = j->set;
    struct workspace *w = j->workspace + thread;
    const size_t groups = j->groups ? j->groups : 1, panels = em_gemm_panels(s, j->N);
    size_t before = 0; // tasks of the groups before g
    for (size_t g = 0; g < groups && before < end; g++) {
        const size_t blocks = row_blocks(j, group_rows(j, g)), count = blocks * j->column_blocks;
        size_t i = begin > before ? begin - before : 0;
        if (i < count) {
            const struct part p = part_of(j, g);
            const size_t units = em_ceil_div(p.M, s->mr);
            for (; i < count && before + i < end; i++) {
                const size_t r = i / j->column_blocks, c = i % j->column_blocks;
                const size_t m = r * units / blocks * s->mr;
                const size_t m_end = (r + 1) * units / blocks * s->mr;
                struct block b = {.m = m,
                                  .rows = (m_end < p.M ? m_end : p.M) - m,
                                  .first = c * panels / j->column_blocks,
                                  .last = (c + 1) * panels / j->column_blocks,
                                  .name = before + i - c + 1};
                compute(j, &p, &b, w);
            }
        }
        before += count;
    }
}

// Cuts the work into tasks and runs them.
static void run(struct job *j, const struct em_gemm_epilogue *e, size_t total_rows, size_t total_k,
                struct em_gemm_scratch *scratch, struct em_pool *pool)
{
    assert(j->a.row_stride == 1 || j->a.col_stride == 1);
    assert((uintptr_t)j->b % 64 == 0 && (uintptr_t)scratch->data % 64 == 0);
    if (total_rows == 0 || j->N == 0) return;
    if (e) j->e = *e;
    if (j->e.scale == 0) j->e.scale = 1;
    const struct em_gemm_set *s = j->set;
    const size_t work = total_rows * j->N * (total_k ? total_k : 1);
    const unsigned threads = work <= SMALL_WORK ? 1 : em_pool_threads(pool);
    assert(scratch->bytes >= em_gemm_scratch_size(threads));
    j->workspace = scratch->data;
    for (unsigned i = 0; i < threads; i++)
        j->workspace[i].block = 0;

    const size_t panels = em_gemm_panels(s, j->N), groups = j->groups ? j->groups : 1;
    const size_t wanted = threads == 1 ? 1 : (size_t)threads * TASKS_PER_THREAD;
    const size_t most = rows_of_block(s, em_gemm_steps(s, total_k));
    size_t blocks = em_ceil_div(total_rows, most);
    j->block_rows = most;
    if (blocks * panels < wanted) { // narrow: cut rows shorter, but not below two tiles
        const size_t tiles =
            em_ceil_div(em_ceil_div(total_rows, em_ceil_div(wanted, panels)), s->mr);
        j->block_rows = (tiles > 2 ? tiles : 2) * s->mr;
        if (j->block_rows > most) j->block_rows = most;
        blocks = em_ceil_div(total_rows, j->block_rows);
    }
    const size_t least = em_ceil_div(panels, EM_GEMM_NC / s->nr);
    j->column_blocks = em_ceil_div(wanted, blocks);
    if (j->column_blocks > panels) j->column_blocks = panels;
    if (j->column_blocks < least) j->column_blocks = least;

    size_t count = 0;
    for (size_t g = 0; g < groups; g++)
        count += row_blocks(j, group_rows(j, g)) * j->column_blocks;
    if (threads == 1)
        tasks(j, 0, count, 0);
    else
        em_parallel(pool, count, 1, tasks, j);
}

size_t em_gemm_scratch_size(unsigned threads)
{
    return (threads ? threads : 1) * sizeof(struct workspace);
}

// The workspaces, and packed operands behind them.
static size_t with_packed(unsigned threads, size_t packed)
{
    size_t bytes;
    return em_add_size(em_gemm_scratch_size(threads), packed, &bytes) ? bytes : SIZE_MAX;
}

size_t em_gemm_unpacked_scratch_size(enum em_gemm_type type, size_t N, size_t K, unsigned threads)
{
    return with_packed(threads, em_gemm_window_size(em_gemm_set(type), 1, K, N));
}

size_t em_gemm_grouped_grad_scratch_size(enum em_gemm_type type, size_t groups, size_t rows,
                                         size_t N, unsigned threads)
{
    return with_packed(threads, em_gemm_window_size(em_gemm_set(type), groups, rows, N));
}

void em_gemm_packed(enum em_gemm_type type, size_t M, size_t N, size_t K, struct em_matrix a,
                    const void *packed_b, float *c, size_t c_stride,
                    const struct em_gemm_epilogue *e, struct em_gemm_scratch *scratch,
                    struct em_pool *pool)
{
    struct job j = {.set = em_gemm_set(type),
                    .M = M,
                    .N = N,
                    .K = K,
                    .a = a,
                    .b = packed_b,
                    .c = c,
                    .c_stride = c_stride};
    run(&j, e, M, K, scratch, pool);
}

void em_gemm(enum em_gemm_type type, size_t M, size_t N, size_t K, struct em_matrix a,
             struct em_matrix b, float *c, size_t c_stride, const struct em_gemm_epilogue *e,
             struct em_gemm_scratch *scratch, struct em_pool *pool)
{
    assert(scratch->bytes >= em_gemm_unpacked_scratch_size(type, N, K, em_pool_threads(pool)));
    if (M == 0 || N == 0) return;
    void *packed = (char *)scratch->data + em_gemm_scratch_size(em_pool_threads(pool));
    struct em_gemm_epilogue epilogue = {0};
    if (e) epilogue = *e;
    const size_t window = em_gemm_window_rows(em_gemm_set(type), N, K);
    size_t k = 0;
    do {
        const size_t count = K - k < window ? K - k : window;
        em_gemm_pack(type, count, N, b, packed, pool);
        em_gemm_packed(type, M, N, count, a, packed, c, c_stride, &epilogue, scratch, pool);
        epilogue.bias = epilogue.residual = NULL;
        epilogue.accumulate = true;
        a.data += count * a.col_stride;
        b.data += count * b.row_stride;
        k += count;
    } while (k < K);
}

void em_gemm_grouped(enum em_gemm_type type, size_t groups, const int32_t *offsets, size_t N,
                     size_t K, struct em_matrix a, const int32_t *a_rows, const void *packed_b,
                     size_t packed_stride, float *c, size_t c_stride,
                     const struct em_gemm_epilogue *e, struct em_gemm_scratch *scratch,
                     struct em_pool *pool)
{
    assert(!a_rows || a.col_stride == 1);
    assert(packed_stride % 64 == 0);
    if (groups == 0) return;
    struct job j = {.set = em_gemm_set(type),
                    .N = N,
                    .K = K,
                    .groups = groups,
                    .offsets = offsets,
                    .a = a,
                    .a_rows = a_rows,
                    .b = packed_b,
                    .b_stride = packed_stride,
                    .c = c,
                    .c_stride = c_stride};
    run(&j, e, (size_t)(offsets[groups] - offsets[0]), K, scratch, pool);
}

void em_gemm_grouped_grad(enum em_gemm_type type, size_t groups, const int32_t *offsets, size_t M,
                          size_t N, const float *dy, size_t dy_stride, const float *x,
                          size_t x_stride, const int32_t *x_rows, float *c, size_t c_stride,
                          size_t c_group_stride, const struct em_gemm_epilogue *e,
                          struct em_gemm_scratch *scratch, struct em_pool *pool)
{
    assert(!e || !e->residual);
    if (groups == 0 || M == 0 || N == 0) return;
    const struct em_gemm_set *set = em_gemm_set(type);
    const size_t begin = (size_t)offsets[0], end = (size_t)offsets[groups];
    assert(scratch->bytes >=
           em_gemm_grouped_grad_scratch_size(type, groups, end - begin, N, em_pool_threads(pool)));
    char *packed = (char *)scratch->data + em_gemm_scratch_size(em_pool_threads(pool));
    const size_t size = em_gemm_window_rows(set, N, end - begin);
    struct em_gemm_window w = {begin, begin, false};
    do {
        w.begin = w.end;
        w.end += end - w.end < size ? end - w.end : size;
        w.last = w.end == end;
        em_gemm_pack_window(set, groups, offsets, &w, N, x, x_stride, x_rows, packed, pool);
        struct job j = {.set = set,
                        .M = M,
                        .N = N,
                        .groups = groups,
                        .offsets = offsets,
                        .window = &w,
                        .a = {dy, 1, dy_stride},
                        .b = packed,
                        .c = c,
                        .c_stride = c_stride,
                        .c_group_stride = c_group_stride};
        if (e) j.e = *e;
        size_t active = 0;
        for (size_t g = 0; g < groups; g++)
            active += group_rows(&j, g) > 0;
        run(&j, e, active * M, active ? (w.end - w.begin) / active : 0, scratch, pool);
    } while (!w.last);
}
