// Attention, backward: scores are computed again in blocks, Dao et al. 2022, arXiv:2205.14135.
// Included once per instruction set and number format, with the names BACKWARD and SCRATCH, and
// PAIRS for products in bf16.
//
// With P = exp(S - lse), dP = dO V^T and D = rowsum(dO O):  dS = P (dP - D),
// dV = P^T dO,  dK = scale dS^T Q,  dQ = scale dS K.
#ifndef EM_KERNELS_ATTENTION_BACKWARD_H
#define EM_KERNELS_ATTENTION_BACKWARD_H

#include "kernels/kernels_isa.h"

#include "kernels/isa/attention_tile.h"

enum { ROWS = 96, KEYS = 128 };
_Static_assert(KEYS % NR == 0, "whole panels");

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

struct backward {
    const struct em_attention *a;
    const struct em_attention_gradient *d;
    float *q, *d_o;             // [ROWS, padded K]: scaled queries, output gradients
    cell *q_along, *do_along;   // the same as operands whose k is the head dimension,
    cell *q_across, *do_across; // and whose k is the row
    cell *k_panel, *v_panel;    // [KEYS / NR][steps of K, NR]
    cell *keys;                 // [steps of KEYS, padded K]
    float *dk, *dv;             // [KEYS, padded K]
    float *p, *ds;              // [ROWS, KEYS]
    cell *p_across, *ds_across; // the same as operands whose k is the row,
    cell *ds_along;             // [MR, KEYS], and whose k is the key
    float *dq;                  // [MR, padded K]
    float *delta, *lse;         // [T heads of the group]: D, and lse in units of log 2
};

static size_t layout(struct backward *b, float *base, const struct em_attention *a)
{
    const size_t wide = padded(a->K), pairs = a->T * (a->H / a->G);
    size_t used = 0;
    b->q = take(base, &used, ROWS * wide);
    b->d_o = take(base, &used, ROWS * wide);
    b->q_along = take(base, &used, CONVERTED * ROWS * wide / STEP);
    b->do_along = take(base, &used, CONVERTED * ROWS * wide / STEP);
    b->q_across = take(base, &used, CONVERTED * steps(ROWS) * wide);
    b->do_across = take(base, &used, CONVERTED * steps(ROWS) * wide);
    b->k_panel = take(base, &used, KEYS * steps(a->K));
    b->v_panel = take(base, &used, KEYS * steps(a->K));
    b->keys = take(base, &used, steps(KEYS) * wide);
    b->dk = take(base, &used, KEYS * wide);
    b->dv = take(base, &used, KEYS * wide);
    b->p = take(base, &used, ROWS * KEYS);
    b->ds = take(base, &used, ROWS * KEYS);
    b->p_across = take(base, &used, CONVERTED * steps(ROWS) * KEYS);
    b->ds_across = take(base, &used, CONVERTED * steps(ROWS) * KEYS);
    b->ds_along = take(base, &used, CONVERTED * MR * KEYS / STEP);
    b->dq = take(base, &used, MR * wide);
    b->delta = take(base, &used, pairs);
    b->lse = take(base, &used, pairs);
    return used;
}

size_t SCRATCH(const struct em_attention *a)
{
    struct backward b;
    return layout(&b, NULL, a) * sizeof(float);
}

// C [keys, columns] += A^T B over `depth` cells, A [depth, KEYS].
static __attribute__((noinline)) void add_turned(size_t keys, size_t columns, float *c,
                                                 size_t c_stride, const cell *a, const cell *b,
                                                 size_t b_stride, size_t depth)
{
    for (size_t r = 0, rows; r < keys; r += rows) {
        rows = tile_rows(keys - r);
#define CALL(N)                                                                                    \
    strip_product(N, true, FROM_C, columns, c + r * c_stride, c_stride, NULL, a + r, KEYS, b,      \
                  b_stride, depth)
        TILE_CASES(CALL)
#undef CALL
    }
}

// p holds scores and becomes probabilities, ds holds dP and becomes dS, in columns [0, end) of a
// row that sees [first, last); columns beyond, up to KEYS, become 0.
static inline void differentiate(float *p, float *ds, size_t end, size_t first, size_t last,
                                 float lse, float delta)
{
    const vf32 iota = vf32_iota(), zero = vf32_zero();
    const vf32 shift = vf32_set1(lse), mean = vf32_set1(delta);
    size_t c = 0;
    for (; c < end; c += L) {
        vf32 x = vf32_exp2(vf32_sub(vf32_load(p + c), shift));
        if (c < first || c + L > last) {
            const float from = (float)first - (float)c, to = (float)last - (float)c;
            x = vf32_select(vf32_lt(iota, vf32_set1(from)), zero, x);
            x = vf32_select(vf32_lt(iota, vf32_set1(to)), x, zero);
        }
        vf32_store(p + c, x);
        vf32_store(ds + c, vf32_mul(x, vf32_sub(vf32_load(ds + c), mean)));
    }
    for (; c < KEYS; c += L) {
        vf32_store(p + c, zero);
        vf32_store(ds + c, zero);
    }
}

// Rows of a block against `count` keys from `key` on. Keys of the past have no gradient.
static void block(const struct backward *b, const struct rows *rows, size_t group_head, size_t key,
                  size_t count, bool past)
{
    size_t low = count, high = 0; // keys that any row sees
    const struct em_attention *a = b->a;
    const size_t K = a->K, wide = padded(K), group = a->H / a->G;
    for (size_t r = 0; r < rows->count; r++) {
        const size_t t = rows->t0 + r / rows->heads, h = rows->h0 + r % rows->heads;
        pack_rows(b->q + r * wide, wide, a->q + t * a->q_stride + h * K, 0, 1, K,
                  a->scale * log2_e);
        pack_rows(b->d_o + r * wide, wide, b->d->d_o + t * b->d->do_stride + h * K, 0, 1, K, 1.0f);
    }
    const cell *q_rows = along(b->q_along, b->q, wide, rows->count, K),
               *do_rows = along(b->do_along, b->d_o, wide, rows->count, K);
    for (size_t r = 0, n; r < rows->count; r += n) {
        n = tile_rows(rows->count - r);
        struct view view;
        look(a, rows, r, n, key, count, &view);
        low = em_min_size(low, view.from);
        high = em_max_size(high, view.to);
        float *p = b->p + r * KEYS, *ds = b->ds + r * KEYS;
        const size_t columns = vectors(view.to);
        for (size_t c = 0; c < columns; c += NV) {
            const size_t here = em_min_size(columns - c, NV);
            product(n, here, p + c * L, KEYS, q_rows + r * (wide / STEP), wide / STEP,
                    b->k_panel + c * L * steps(K), NR, steps(K));
            product(n, here, ds + c * L, KEYS, do_rows + r * (wide / STEP), wide / STEP,
                    b->v_panel + c * L * steps(K), NR, steps(K));
        }
        for (size_t i = 0; i < n; i++) {
            const size_t t = rows->t0 + (r + i) / rows->heads;
            const size_t pair = t * group + rows->h0 - group_head + (r + i) % rows->heads;
            differentiate(p + i * KEYS, ds + i * KEYS, columns * L, view.first[i], view.last[i],
                          b->lse[pair], b->delta[pair]);
            // A query with one key has a probability of 1 whatever the score: exactly no gradient.
            if (end_key(a, t) == first_key(a, t) + 1) EM_K(fill_f32)(ds + i * KEYS, 0.0f, KEYS);
        }
        if (!b->d->dq || view.to == 0) continue;
        const size_t depth = em_min_size(view.to, count);
        product(n, wide / L, b->dq, wide, along(b->ds_along, ds, KEYS, n, depth), KEYS / STEP,
                b->keys, wide, steps(depth));
        for (size_t i = 0; i < n; i++) {
            const size_t t = rows->t0 + (r + i) / rows->heads;
            const size_t h = rows->h0 + (r + i) % rows->heads;
            EM_K(axpy_f32)(b->d->dq + t * b->d->dq_stride + h * K, a->scale, b->dq + i * wide, K);
        }
    }
    if (past || low >= high) return;
    if (b->d->dv)
        add_turned(high - low, wide / L, b->dv + low * wide, wide,
                   across(b->p_across, b->p, KEYS, rows->count, KEYS) + low,
                   across(b->do_across, b->d_o, wide, rows->count, wide), wide, steps(rows->count));
    if (b->d->dk)
        add_turned(high - low, wide / L, b->dk + low * wide, wide,
                   across(b->ds_across, b->ds, KEYS, rows->count, KEYS) + low,
                   across(b->q_across, b->q, wide, rows->count, wide), wide, steps(rows->count));
}

// All queries that see any of `count` keys from `key` on.
static void keys(const struct backward *b, size_t g, size_t key, size_t count)
{
    const struct em_attention *a = b->a;
    const size_t K = a->K, wide = padded(K), group = a->H / a->G;
    const bool past = key < a->past;
    const float *k = a->k + key * a->k_stride + g * K, *v = a->v + key * a->v_stride + g * K;
    struct stream values = stream(v, K, a->v_stride, count), nothing = {0};
    for (size_t c = 0; c < count; c += NR) {
        const size_t n = em_min_size(count - c, NR);
        pack_panel(b->k_panel + c * steps(K), k + c * a->k_stride, a->k_stride, n, K, &values,
                   &nothing);
    }
    for (size_t c = 0; c < count; c += NR) {
        const size_t n = em_min_size(count - c, NR);
        pack_panel(b->v_panel + c * steps(K), v + c * a->v_stride, a->v_stride, n, K, &nothing,
                   &nothing);
    }
    pack_across(b->keys, wide, k, a->k_stride, count, K);
    EM_K(fill_f32)(b->dk, 0.0f, KEYS * wide);
    EM_K(fill_f32)(b->dv, 0.0f, KEYS * wide);
    for (size_t h = 0; h < group; h += ROWS) {
        const size_t heads = em_min_size(group - h, ROWS), most = ROWS / heads;
        for (size_t t = 0; t < a->T; t += most) {
            const size_t queries = em_min_size(a->T - t, most);
            if (end_key(a, t + queries - 1) <= key || first_key(a, t) >= key + count) continue;
            const struct rows rows = {t, g * group + h, heads, queries * heads};
            block(b, &rows, g * group, key, count, past);
        }
    }
    if (past) return;
    for (size_t i = 0; i < count; i++) {
        const size_t t = key + i - a->past;
        // The packed queries carry scale / ln 2.
        if (b->d->dk)
            EM_K(axpy_f32)(b->d->dk + t * b->d->dk_stride + g * K, ln_2, b->dk + i * wide, K);
        if (b->d->dv) {
            float *dv = b->d->dv + t * b->d->dv_stride + g * K;
            EM_K(add_f32)(dv, dv, b->dv + i * wide, K);
        }
    }
}

// dq of all heads that read key head g, dk and dv of key head g; any of them may be NULL. Calls
// with different g may run at the same time, each with scratch of its own.
void BACKWARD(const struct em_attention *a, const struct em_attention_gradient *d, size_t g,
              void *scratch)
{
    const size_t group = a->H / a->G, all = a->past + a->T;
    struct backward b = {.a = a, .d = d};
    layout(&b, scratch, a);
    for (size_t t = 0; t < a->T; t++)
        for (size_t i = 0; i < group; i++) {
            const size_t h = g * group + i;
            b.delta[t * group + i] = EM_K(dot_f32)(d->d_o + t * d->do_stride + h * a->K,
                                                   a->o + t * a->o_stride + h * a->K, a->K);
            b.lse[t * group + i] = a->lse[t * a->H + h] * log2_e;
        }
    // Blocks do not straddle the border to the past.
    size_t key = first_key(a, 0);
    for (size_t count; key < all; key += count) {
        count = em_min_size((key < a->past ? a->past : all) - key, KEYS);
        keys(&b, g, key, count);
    }
}

#endif
