// Attention, forward, in blocks of keys with a running maximum: Dao et al. 2022, arXiv:2205.14135,
// Milakov and Gimelshein 2018, arXiv:1805.02867. Included once per instruction set and number
// format, with the names FORWARD and SCRATCH, and PAIRS for products in bf16.
//
// Queries are the rows of the register tiles and keys their lanes for the scores, value columns the
// lanes for the output; so keys are packed transposed, and scores are in units of log 2.
#ifndef EM_KERNELS_ATTENTION_FORWARD_H
#define EM_KERNELS_ATTENTION_FORWARD_H

#include <float.h>
#include <math.h>

#include "kernels/kernels_isa.h"

#include "kernels/isa/attention_tile.h"

// Rows of a block and keys of a step. Their panels stay in the second-level cache.
enum { ROWS = EM_ATTENTION_ROWS, KEYS = 64 };
_Static_assert(KEYS % NR == 0, "whole panels");

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

struct forward {
    float *q;      // [ROWS, padded K], scaled
    cell *q_cells; // the same as an operand
    float *o;      // [ROWS, padded K], not yet divided by the sums
    cell *keys;    // [KEYS / NR][steps of K, NR]
    cell *values;  // [steps of KEYS, padded K]
    float *scores; // [MR, KEYS]
    cell *p_cells; // the same as an operand
    float *top;    // [ROWS]: maximum so far
    float *sum;    // [ROWS, L]: sums of exponentials below that, lane by lane
};

static size_t layout(struct forward *f, float *base, size_t K)
{
    const size_t wide = padded(K);
    size_t used = 0;
    f->q = take(base, &used, ROWS * wide);
    f->q_cells = take(base, &used, CONVERTED * ROWS * wide / STEP);
    f->o = take(base, &used, ROWS * wide);
    f->keys = take(base, &used, KEYS * steps(K));
    f->values = take(base, &used, steps(KEYS) * wide);
    f->scores = take(base, &used, MR * KEYS);
    f->p_cells = take(base, &used, CONVERTED * MR * KEYS / STEP);
    f->sum = take(base, &used, ROWS * L);
    f->top = take(base, &used, ROWS);
    return used;
}

static __attribute__((noinline)) void add_values(size_t rows, size_t columns, float *o,
                                                 size_t o_stride, const float *factor,
                                                 const cell *p, const cell *v, size_t v_stride,
                                                 size_t depth)
{
#define CALL(N)                                                                                    \
    strip_product(N, false, FROM_C_TIMES, columns, o, o_stride, factor, p, KEYS / STEP, v,         \
                  v_stride, depth)
    TILE_CASES(CALL)
#undef CALL
}

// Hides the scores s[begin, end) of one row outside [first, last), which is what it sees, and
// returns the largest.
static inline float hide(float *s, size_t begin, size_t end, size_t first, size_t last)
{
    const vf32 iota = vf32_iota(), hidden = vf32_set1(-INFINITY);
    vf32 m = hidden;
    for (size_t c = begin; c < end; c += L) {
        vf32 x = vf32_load(s + c);
        if (c < first || c + L > last) {
            const float from = (float)first - (float)c, to = (float)last - (float)c;
            x = vf32_select(vf32_lt(iota, vf32_set1(from)), hidden, x);
            x = vf32_select(vf32_lt(iota, vf32_set1(to)), x, hidden);
            vf32_store(s + c, x);
        }
        m = vf32_max(m, x);
    }
    return vf32_hmax(m);
}

// Scores of n rows become exp2(score - maximum); factor[] is what everything before has to be
// multiplied by, as the sums are here.
static inline void soften(const struct forward *f, size_t r, size_t n, size_t begin, size_t end,
                          const size_t *first, const size_t *last, float *factor)
{
    for (size_t i = 0; i < n; i++) {
        const float top = hide(f->scores + i * KEYS, begin, end, first[i], last[i]);
        const float before = f->top[r + i], now = top > before ? top : before;
        f->top[r + i] = now;
        factor[i] = before - now;
    }
    for (size_t i = 0; i < n; i += L)
        vf32_store_n(factor + i, vf32_exp2(vf32_load_n(factor + i, em_min_size(n - i, L))),
                     em_min_size(n - i, L));
    for (size_t i = 0; i < n; i++) {
        float *s = f->scores + i * KEYS, *sum = f->sum + (r + i) * L;
        const vf32 now = vf32_set1(f->top[r + i]);
        vf32 total = vf32_mul(vf32_load(sum), vf32_set1(factor[i]));
        for (size_t c = begin; c < end; c += L) {
            const vf32 p = vf32_exp2(vf32_sub(vf32_load(s + c), now));
            vf32_store(s + c, p);
            total = vf32_add(total, p);
        }
        vf32_store(sum, total);
    }
}

// Keys from `key` on, `count` of them, against all rows of a block.
static void step(const struct em_attention *a, const struct forward *f, const struct rows *rows,
                 size_t key, size_t count, const cell *q, const cell *values, size_t v_stride)
{
    const size_t K = a->K, wide = padded(K);
    for (size_t r = 0, n; r < rows->count; r += n) {
        n = tile_rows(rows->count - r);
        struct view view;
        look(a, rows, r, n, key, count, &view);
        if (view.from >= view.to) continue;
        const size_t from = view.from / L * L, to = padded(view.to);
        for (size_t panel = from / NR; panel * NR < to; panel++) {
            const size_t skip = panel * NR < from ? from - panel * NR : 0;
            const size_t columns = (em_min_size(to - panel * NR, NR) - skip) / L;
            product(n, columns, f->scores + panel * NR + skip, KEYS, q + r * (wide / STEP),
                    wide / STEP, f->keys + panel * NR * steps(K) + skip, NR, steps(K));
        }
        float factor[MR];
        soften(f, r, n, from, to, view.first, view.last, factor);
        const size_t depth = em_min_size(to, count) - from;
        const cell *p = along(f->p_cells, f->scores + from, KEYS, n, depth);
        add_values(n, wide / L, f->o + r * wide, wide, factor, p, values + from / STEP * v_stride,
                   v_stride, steps(depth));
    }
}

static void start_rows(const struct em_attention *a, const struct forward *f,
                       const struct rows *rows)
{
    const size_t K = a->K, wide = padded(K);
    for (size_t r = 0; r < rows->count; r++) {
        const float *q =
            a->q + (rows->t0 + r / rows->heads) * a->q_stride + (rows->h0 + r % rows->heads) * K;
        pack_rows(f->q + r * wide, wide, q, 0, 1, K, a->scale * log2_e);
        f->top[r] = -FLT_MAX; // finite, so that rows that see nothing yet stay clear of inf - inf
    }
    along(f->q_cells, f->q, wide, rows->count, K);
    EM_K(fill_f32)(f->o, 0.0f, rows->count * wide);
    EM_K(fill_f32)(f->sum, 0.0f, rows->count * L);
}

static void finish_rows(const struct em_attention *a, const struct forward *f,
                        const struct rows *rows)
{
    const size_t K = a->K, wide = padded(K);
    for (size_t r = 0; r < rows->count; r++) {
        const size_t t = rows->t0 + r / rows->heads, h = rows->h0 + r % rows->heads;
        const float sum = vf32_sum(vf32_load(f->sum + r * L));
        EM_K(scale_f32)(a->o + t * a->o_stride + h * K, f->o + r * wide, 1.0f / sum, K);
        if (a->lse) a->lse[t * a->H + h] = ln_2 * f->top[r] + logf(sum);
    }
}

size_t SCRATCH(const struct em_attention *a)
{
    struct forward f;
    return layout(&f, NULL, a->K) * sizeof(float);
}

// The part of key head i's rows, where key heads from the first on have `first->count` rows each.
static struct forward part(const struct forward *all, const struct rows *first, size_t i, size_t K)
{
    struct forward f = *all;
    f.q += i * first->count * padded(K);
    f.q_cells += i * first->count * (padded(K) / STEP);
    f.o += i * first->count * padded(K);
    f.sum += i * first->count * L;
    f.top += i * first->count;
    return f;
}

// The same block of queries for `heads` key heads from g on, which take turns on each block of
// keys: so a token's keys are read from end to end.
static void block(const struct em_attention *a, const struct forward *all, size_t g, size_t heads,
                  const struct rows *first)
{
    const size_t K = a->K, group = a->H / a->G, wide = padded(K);
    const size_t stop = end_key(a, first->t0 + first->count / first->heads - 1);
    // Few rows read each value once: from where it is, unless its last vector is cut.
    const bool in_place = !CONVERTED && first->count <= MR && K == wide;
    struct rows rows = *first;
    for (size_t i = 0; i < heads; i++, rows.h0 += group) {
        const struct forward f = part(all, first, i, K);
        start_rows(a, &f, &rows);
    }
    for (size_t key = first_key(a, first->t0); key < stop; key += KEYS) {
        const size_t count = em_min_size(stop - key, KEYS),
                     later = em_min_size(stop - key - count, KEYS);
        const float *k = a->k + key * a->k_stride + g * K, *v = a->v + key * a->v_stride + g * K;
        struct stream next_k = stream(k + count * a->k_stride, heads * K, a->k_stride, later);
        struct stream next_v = stream(v + count * a->v_stride, heads * K, a->v_stride, later);
        rows.h0 = first->h0;
        for (size_t i = 0; i < heads; i++, k += K, v += K, rows.h0 += group) {
            const struct forward f = part(all, first, i, K);
            for (size_t c = 0; c < count; c += NR)
                pack_panel(f.keys + c * steps(K), k + c * a->k_stride, a->k_stride,
                           em_min_size(count - c, NR), K, &next_k, &next_v);
            const cell *values = f.values;
            if (in_place)
                values = (const cell *)(const void *)v;
            else
                pack_across(f.values, wide, v, a->v_stride, count, K);
            step(a, &f, &rows, key, count, CONVERTED ? f.q_cells : (const cell *)(const void *)f.q,
                 values, in_place ? a->v_stride : wide);
        }
    }
    rows.h0 = first->h0;
    for (size_t i = 0; i < heads; i++, rows.h0 += group) {
        const struct forward f = part(all, first, i, K);
        finish_rows(a, &f, &rows);
    }
}

// o and lse of queries [begin, end) and all heads that read key heads [g, g_end). Calls with
// different queries or heads may run at the same time, each with scratch of its own. A few queries
// (decode) are best given many key heads, many queries one.
void FORWARD(const struct em_attention *a, size_t g, size_t g_end, size_t begin, size_t end,
             void *scratch)
{
    const size_t group = a->H / a->G;
    struct forward f;
    layout(&f, scratch, a->K);
    const bool together = (g_end - g) * group * (end - begin) <= ROWS;
    for (size_t n = together ? g_end - g : 1; g < g_end; g += n)
        for (size_t h = 0; h < group; h += ROWS) {
            const size_t heads = em_min_size(group - h, ROWS), most = ROWS / heads;
            for (size_t t = begin; t < end; t += most) {
                const size_t queries = em_min_size(end - t, most);
                const struct rows rows = {t, g * group + h, heads, queries * heads};
                block(a, &f, g, n, &rows);
            }
        }
}

#endif
