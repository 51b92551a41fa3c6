// Selective scan, forward. This file is compiled once per instruction set.
//
// Channels are the lanes. A block of channels goes through the tokens a few at a time: first what
// each (token, channel) needs once, softplus above all; then up to TILE states after another, each
// a vector that stays in its register over these tokens; then the gate. Sixteen states per vector
// with a sum over the lanes would take three times as long.
#include "kernels/scan.h"
#include "base/sizes.h"
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#if defined(EM_ISA_avx512) || defined(EM_ISA_neon)
#define TILE 16 // 32 registers
#else
#define TILE 8
#endif
enum { STEPS = 32, WIDTH = 4 * VF32_LANES };
_Static_assert(EM_SCAN_CHUNK % STEPS == 0, "a checkpoint lies between two blocks of tokens");

// One block of channels, `width` of them from `first` on, over `n` tokens from t on.
struct block {
    size_t first, width, t, n;
    float dt[STEPS][WIDTH], dx[STEPS][WIDTH], y[STEPS][WIDTH];
    float h[EM_SCAN_STATES][WIDTH];
};

static void begin_tokens(const struct em_scan *k, struct block *u)
{
    for (size_t s = 0; s < u->n; s++)
        for (size_t v = 0; v < u->width; v += VF32_LANES) {
            const size_t m = em_min_size(u->width - v, VF32_LANES), at = u->first + v;
            const vf32 x = vf32_load_n(k->x + (u->t + s) * k->x_stride + at, m);
            vf32 dt = vf32_load_n(k->delta + (u->t + s) * k->delta_stride + at, m);
            if (k->delta_bias) dt = vf32_add(dt, vf32_load_n(k->delta_bias + at, m));
            dt = vf32_softplus(dt);
            vf32_store(u->dt[s] + v, dt);
            vf32_store(u->dx[s] + v, vf32_mul(dt, x));
            vf32_store(u->y[s] + v,
                       k->skip ? vf32_mul(vf32_load_n(k->skip + at, m), x) : vf32_zero());
        }
}

// The rows that come next lie pages apart, where no hardware looks ahead: without this, half of the
// time is spent waiting for them.
ALWAYS void fetch(const struct em_scan *k, const struct em_scan_out *o, size_t t, size_t at)
{
    if (t >= k->T) return;
    __builtin_prefetch(k->x + t * k->x_stride + at);
    __builtin_prefetch(k->delta + t * k->delta_stride + at);
    __builtin_prefetch(o->y + t * o->y_stride + at, 1);
    if (k->z) __builtin_prefetch(k->z + t * k->z_stride + at);
}

// States [n, n + S) of the block over its tokens.
ALWAYS void scan_states(const struct em_scan *k, const struct em_scan_out *o, struct block *u,
                        size_t n, size_t S)
{
    const size_t column = u->first / k->per_group * k->N + n;
    const float *b = k->b + u->t * k->b_stride + column, *c = k->c + u->t * k->c_stride + column;
    for (size_t v = 0; v < u->width; v += VF32_LANES) {
        const size_t m = em_min_size(u->width - v, VF32_LANES);
        vf32 h[TILE], rate[TILE];
        UNROLL
        for (size_t i = 0; i < S; i++) {
            h[i] = vf32_load(u->h[n + i] + v);
            rate[i] = vf32_load_n(k->rate + (n + i) * k->E + u->first + v, m);
        }
        for (size_t s = 0; s < u->n; s++) {
            const float *bs = b + s * k->b_stride, *cs = c + s * k->c_stride;
            if (!n) fetch(k, o, u->t + STEPS + s, u->first + v);
            const vf32 dt = vf32_load(u->dt[s] + v), dx = vf32_load(u->dx[s] + v);
            vf32 y = vf32_load(u->y[s] + v);
            UNROLL
            for (size_t i = 0; i < S; i++) {
                const vf32 a = vf32_exp2_decay(vf32_mul(dt, rate[i]));
                h[i] = vf32_fma(a, h[i], vf32_mul(dx, vf32_set1(bs[i])));
                y = vf32_fma(h[i], vf32_set1(cs[i]), y);
            }
            vf32_store(u->y[s] + v, y);
        }
        UNROLL
        for (size_t i = 0; i < S; i++)
            vf32_store(u->h[n + i] + v, h[i]);
    }
}

static void scan_all_states(const struct em_scan *k, const struct em_scan_out *o, struct block *u)
{
    size_t n = 0;
    for (; n + TILE <= k->N; n += TILE)
        scan_states(k, o, u, n, TILE);
    for (; n + 4 <= k->N; n += 4)
        scan_states(k, o, u, n, 4);
    for (; n < k->N; n++)
        scan_states(k, o, u, n, 1);
}

static void end_tokens(const struct em_scan *k, const struct em_scan_out *o, const struct block *u)
{
    for (size_t s = 0; s < u->n; s++)
        for (size_t v = 0; v < u->width; v += VF32_LANES) {
            const size_t m = em_min_size(u->width - v, VF32_LANES), at = u->first + v;
            vf32 y = vf32_load(u->y[s] + v);
            if (k->z)
                y = vf32_mul(y, vf32_silu(vf32_load_n(k->z + (u->t + s) * k->z_stride + at, m)));
            vf32_store_n(o->y + (u->t + s) * o->y_stride + at, y, m);
        }
}

static void load_states(const struct em_scan *k, struct block *u)
{
    for (size_t n = 0; n < k->N; n++)
        for (size_t v = 0; v < u->width; v += VF32_LANES)
            vf32_store(u->h[n] + v, k->state ? vf32_load_n(k->state + n * k->E + u->first + v,
                                                           em_min_size(u->width - v, VF32_LANES))
                                             : vf32_zero());
}

static void store_states(const struct em_scan *k, const struct block *u, float *to)
{
    for (size_t n = 0; n < k->N; n++)
        for (size_t v = 0; v < u->width; v += VF32_LANES)
            vf32_store_n(to + n * k->E + u->first + v, vf32_load(u->h[n] + v),
                         em_min_size(u->width - v, VF32_LANES));
}

// In place: A log2(e) from log(-A).
void EM_K(scan_rates_f32)(float *rate, size_t n)
{
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = em_min_size(n - i, VF32_LANES);
        const vf32 a = vf32_exp(vf32_load_n(rate + i, m));
        vf32_store_n(rate + i, vf32_mul(vf32_set1(-0x1.715476p+0f), a), m);
    }
}

// Channels [begin, end), which are of one group; all tokens of the sequence.
void EM_K(scan_f32)(const struct em_scan *k, const struct em_scan_out *o, size_t begin, size_t end)
{
    struct block u;
    for (u.first = begin; u.first < end; u.first += WIDTH) {
        u.width = em_min_size(end - u.first, WIDTH);
        load_states(k, &u);
        for (u.t = 0; u.t < k->T; u.t += STEPS) {
            u.n = em_min_size(k->T - u.t, STEPS);
            if (o->checkpoints && u.t % EM_SCAN_CHUNK == 0)
                store_states(k, &u, o->checkpoints + u.t / EM_SCAN_CHUNK * k->N * k->E);
            begin_tokens(k, &u);
            scan_all_states(k, o, &u);
            end_tokens(k, o, &u);
        }
        if (o->state) store_states(k, &u, o->state);
    }
}
