// Selective scan, backward. This file is compiled once per instruction set.
//
// Chunks go from the last to the first. In each, h and the decays are computed again from the
// checkpoint, a few channels and states at a time, and kept for the way back (with g = dL/dh):
//   g[t] = C[t] dy[t] + a[t+1] g[t+1],  dC[t] = sum_e h[t] dy[t],  dB[t] = sum_e g[t] dt x[t]
//   dx = D dy + dt g.B,  ddt = x g.B + sum_n g A a h[t-1],  dA = sum_t g dt a h[t-1]
// dB and dC are sums over channels: lane by lane first, over the lanes when all of the call's
// channels are through.
#include "base/sizes.h"
#include "kernels/kernels_isa.h"
#include "kernels/scan.h"
#include "kernels/simd/f32.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { STEPS = EM_SCAN_CHUNK, VECTORS = 2, STATES = 4, WIDTH = VECTORS * VF32_LANES };

// One block of channels over one chunk.
struct block {
    size_t first, width, t, n;
    // Of each token and channel: delta + bias, dt, x, the gradient before the gate, y before the
    // gate, g.B and the sum of g A a h.
    float delta[STEPS][WIDTH], dt[STEPS][WIDTH], x[STEPS][WIDTH], dy[STEPS][WIDTH], y[STEPS][WIDTH],
        gb[STEPS][WIDTH], gah[STEPS][WIDTH];
    float h[STEPS + 1][STATES][WIDTH], a[STEPS][STATES][WIDTH]; // h[s] is before token s
};

size_t EM_K(scan_backward_scratch)(const struct em_scan *k)
{
    return sizeof(struct block) + 2 * STEPS * k->N * VF32_LANES * sizeof(float);
}

static void begin_chunk(const struct em_scan *k, const struct em_scan_gradient *d, struct block *u)
{
    for (size_t s = 0; s < u->n; s++)
        for (size_t v = 0; v < u->width; v += VF32_LANES) {
            const size_t m = em_min_size(u->width - v, VF32_LANES), at = u->first + v, t = u->t + s;
            const vf32 x = vf32_load_n(k->x + t * k->x_stride + at, m);
            vf32 delta = vf32_load_n(k->delta + t * k->delta_stride + at, m);
            if (k->delta_bias) delta = vf32_add(delta, vf32_load_n(k->delta_bias + at, m));
            vf32 dy = vf32_load_n(d->dy + t * d->dy_stride + at, m);
            if (k->z) dy = vf32_mul(dy, vf32_silu(vf32_load_n(k->z + t * k->z_stride + at, m)));
            vf32_store(u->x[s] + v, x);
            vf32_store(u->delta[s] + v, delta);
            vf32_store(u->dt[s] + v, vf32_softplus(delta));
            vf32_store(u->dy[s] + v, dy);
            vf32_store(u->y[s] + v,
                       k->skip ? vf32_mul(vf32_load_n(k->skip + at, m), x) : vf32_zero());
            vf32_store(u->gb[s] + v, vf32_zero());
            vf32_store(u->gah[s] + v, vf32_zero());
        }
}

// The same rows of the next block of channels: no hardware looks ahead from page to page.
ALWAYS void fetch(const struct em_scan *k, const struct em_scan_gradient *d, size_t t, size_t at)
{
    if (at >= k->E) return;
    __builtin_prefetch(k->x + t * k->x_stride + at);
    __builtin_prefetch(k->delta + t * k->delta_stride + at);
    __builtin_prefetch(d->dy + t * d->dy_stride + at);
    if (k->z) __builtin_prefetch(k->z + t * k->z_stride + at);
    if (d->dx) __builtin_prefetch(d->dx + t * d->dx_stride + at, 1);
    if (d->ddelta) __builtin_prefetch(d->ddelta + t * d->ddelta_stride + at, 1);
    if (d->dz) __builtin_prefetch(d->dz + t * d->dz_stride + at, 1);
}

// States [n, n + S) forward over the chunk, V vectors of channels from v on.
ALWAYS void again(const struct em_scan *k, const struct em_scan_gradient *d,
                  const float *checkpoint, struct block *u, size_t n, size_t S, size_t v, size_t V)
{
    const size_t column = u->first / k->per_group * k->N + n;
    const float *b = k->b + u->t * k->b_stride + column, *c = k->c + u->t * k->c_stride + column;
    vf32 h[STATES][VECTORS], rate[STATES][VECTORS];
    UNROLL
    for (size_t i = 0; i < S; i++)
        UNROLL
    for (size_t j = 0; j < V; j++) {
        const size_t at = v + j * VF32_LANES, m = em_min_size(u->width - at, VF32_LANES);
        h[i][j] = vf32_load_n(checkpoint + (n + i) * k->E + u->first + at, m);
        rate[i][j] = vf32_load_n(k->rate + (n + i) * k->E + u->first + at, m);
    }
    for (size_t s = 0; s < u->n; s++) {
        const float *bs = b + s * k->b_stride, *cs = c + s * k->c_stride;
        for (size_t j = 0; !n && j < V; j++)
            fetch(k, d, u->t + s, u->first + WIDTH + v + j * VF32_LANES);
        UNROLL
        for (size_t j = 0; j < V; j++) {
            const size_t at = v + j * VF32_LANES;
            const vf32 dt = vf32_load(u->dt[s] + at), dx = vf32_mul(dt, vf32_load(u->x[s] + at));
            vf32 y = vf32_load(u->y[s] + at);
            UNROLL
            for (size_t i = 0; i < S; i++) {
                const vf32 a = vf32_exp2_decay(vf32_mul(dt, rate[i][j]));
                vf32_store(u->h[s][i] + at, h[i][j]);
                vf32_store(u->a[s][i] + at, a);
                h[i][j] = vf32_fma(a, h[i][j], vf32_mul(dx, vf32_set1(bs[i])));
                y = vf32_fma(h[i][j], vf32_set1(cs[i]), y);
            }
            vf32_store(u->y[s] + at, y);
        }
    }
    UNROLL
    for (size_t i = 0; i < S; i++)
        UNROLL
    for (size_t j = 0; j < V; j++)
        vf32_store(u->h[u->n][i] + v + j * VF32_LANES, h[i][j]);
}

// The same way back.
ALWAYS void back(const struct em_scan *k, const struct em_scan_gradient *d, struct block *u,
                 float *db, float *dc, size_t n, size_t S, size_t v, size_t V)
{
    const size_t column = u->first / k->per_group * k->N + n;
    const float *b = k->b + u->t * k->b_stride + column, *c = k->c + u->t * k->c_stride + column;
    vf32 g[STATES][VECTORS], rate[STATES][VECTORS], dA[STATES][VECTORS];
    UNROLL
    for (size_t i = 0; i < S; i++)
        UNROLL
    for (size_t j = 0; j < V; j++) {
        const size_t at = v + j * VF32_LANES, m = em_min_size(u->width - at, VF32_LANES);
        const size_t place = (n + i) * k->E + u->first + at;
        g[i][j] = vf32_load_n(d->carry + place, m);
        rate[i][j] = vf32_load_n(k->rate + place, m);
        dA[i][j] = vf32_zero();
    }
    for (size_t s = u->n; s-- > 0;) {
        const float *bs = b + s * k->b_stride, *cs = c + s * k->c_stride;
        vf32 dt[VECTORS], dx[VECTORS], dy[VECTORS], gb[VECTORS], gah[VECTORS];
        UNROLL
        for (size_t j = 0; j < V; j++) {
            const size_t at = v + j * VF32_LANES;
            dt[j] = vf32_load(u->dt[s] + at);
            dx[j] = vf32_mul(dt[j], vf32_load(u->x[s] + at));
            dy[j] = vf32_load(u->dy[s] + at);
            gb[j] = vf32_load(u->gb[s] + at);
            gah[j] = vf32_load(u->gah[s] + at);
        }
        UNROLL
        for (size_t i = 0; i < S; i++) {
            float *db_lanes = db + (s * k->N + n + i) * VF32_LANES;
            float *dc_lanes = dc + (s * k->N + n + i) * VF32_LANES;
            const vf32 bi = vf32_set1(bs[i]), ci = vf32_set1(cs[i]);
            vf32 to_b = vf32_load(db_lanes), to_c = vf32_load(dc_lanes);
            UNROLL
            for (size_t j = 0; j < V; j++) {
                const size_t at = v + j * VF32_LANES;
                const vf32 a = vf32_load(u->a[s][i] + at);
                const vf32 decayed = vf32_mul(a, vf32_load(u->h[s][i] + at));
                g[i][j] = vf32_fma(ci, dy[j], g[i][j]);
                to_c = vf32_fma(vf32_load(u->h[s + 1][i] + at), dy[j], to_c);
                to_b = vf32_fma(g[i][j], dx[j], to_b);
                gb[j] = vf32_fma(g[i][j], bi, gb[j]);
                const vf32 slope = vf32_mul(g[i][j], decayed);
                gah[j] = vf32_fma(rate[i][j], slope, gah[j]);
                dA[i][j] = vf32_fma(slope, dt[j], dA[i][j]);
                g[i][j] = vf32_mul(g[i][j], a);
            }
            vf32_store(db_lanes, to_b);
            vf32_store(dc_lanes, to_c);
        }
        UNROLL
        for (size_t j = 0; j < V; j++) {
            vf32_store(u->gb[s] + v + j * VF32_LANES, gb[j]);
            vf32_store(u->gah[s] + v + j * VF32_LANES, gah[j]);
        }
    }
    UNROLL
    for (size_t i = 0; i < S; i++)
        UNROLL
    for (size_t j = 0; j < V; j++) {
        const size_t at = v + j * VF32_LANES, m = em_min_size(u->width - at, VF32_LANES);
        const size_t place = (n + i) * k->E + u->first + at;
        vf32_store_n(d->carry + place, g[i][j], m);
        vf32_store_n(d->dA + place, vf32_add(dA[i][j], vf32_load_n(d->dA + place, m)), m);
    }
}

ALWAYS void all_states(const struct em_scan *k, const struct em_scan_gradient *d,
                       const float *checkpoint, struct block *u, float *db, float *dc, size_t v,
                       size_t V)
{
    size_t n = 0;
    for (; n + STATES <= k->N; n += STATES) {
        again(k, d, checkpoint, u, n, STATES, v, V);
        back(k, d, u, db, dc, n, STATES, v, V);
    }
    for (; n < k->N; n++) {
        again(k, d, checkpoint, u, n, 1, v, V);
        back(k, d, u, db, dc, n, 1, v, V);
    }
}

// row[at..] += v, or = v
ALWAYS void put(float *row, vf32 v, size_t m, bool set)
{
    vf32_store_n(row, set ? v : vf32_add(v, vf32_load_n(row, m)), m);
}

static void end_chunk(const struct em_scan *k, const struct em_scan_gradient *d,
                      const struct block *u)
{
    const vf32 one = vf32_set1(1), ln2 = vf32_set1(0x1.62e43p-1f);
    for (size_t v = 0; v < u->width; v += VF32_LANES) {
        const size_t m = em_min_size(u->width - v, VF32_LANES), at = u->first + v;
        const vf32 skip = k->skip ? vf32_load_n(k->skip + at, m) : vf32_zero();
        vf32 dskip = vf32_zero(), dbias = vf32_zero();
        for (size_t s = 0; s < u->n; s++) {
            const size_t t = u->t + s;
            const vf32 x = vf32_load(u->x[s] + v), dt = vf32_load(u->dt[s] + v);
            const vf32 dy = vf32_load(u->dy[s] + v), gb = vf32_load(u->gb[s] + v);
            const vf32 ddt = vf32_fma(x, gb, vf32_mul(ln2, vf32_load(u->gah[s] + v)));
            const vf32 ddelta = vf32_mul(ddt, vf32_sigmoid(vf32_load(u->delta[s] + v)));
            dskip = vf32_fma(dy, x, dskip);
            dbias = vf32_add(dbias, ddelta);
            if (d->dx)
                put(d->dx + t * d->dx_stride + at, vf32_fma(dt, gb, vf32_mul(skip, dy)), m,
                    d->set_x);
            if (d->ddelta) put(d->ddelta + t * d->ddelta_stride + at, ddelta, m, d->set_delta);
            if (d->dz && k->z) { // silu'(z) = p (1 + z (1 - p))
                const vf32 z = vf32_load_n(k->z + t * k->z_stride + at, m), p = vf32_sigmoid(z);
                const vf32 slope = vf32_mul(p, vf32_fma(z, vf32_sub(one, p), one));
                const vf32 gy =
                    vf32_mul(vf32_load_n(d->dy + t * d->dy_stride + at, m), vf32_load(u->y[s] + v));
                put(d->dz + t * d->dz_stride + at, vf32_mul(gy, slope), m, d->set_z);
            }
        }
        if (d->dskip) put(d->dskip + at, dskip, m, false);
        if (d->ddelta_bias) put(d->ddelta_bias + at, dbias, m, false);
    }
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = 0;
}

// Channels [begin, end), which are of one group; all tokens of the sequence. `scratch`: 64-byte
// aligned, scan_backward_scratch() bytes. No gradient goes into the state before.
void EM_K(scan_backward_f32)(const struct em_scan *k, const struct em_scan_gradient *d,
                             size_t begin, size_t end, void *scratch)
{
    struct block *u = scratch;
    float *db = (float *)(void *)((char *)scratch + sizeof *u);
    float *dc = db + STEPS * k->N * VF32_LANES;
    for (size_t n = 0; n < k->N; n++)
        fill(d->carry + n * k->E + begin, end - begin);
    for (size_t chunk = (k->T + STEPS - 1) / STEPS; chunk-- > 0;) {
        const float *checkpoint = d->checkpoints + chunk * k->N * k->E;
        u->t = chunk * STEPS;
        u->n = em_min_size(k->T - u->t, STEPS);
        fill(db, u->n * k->N * VF32_LANES);
        fill(dc, u->n * k->N * VF32_LANES);
        for (u->first = begin; u->first < end; u->first += WIDTH) {
            u->width = em_min_size(end - u->first, WIDTH);
            begin_chunk(k, d, u);
            if (u->width > VF32_LANES)
                all_states(k, d, checkpoint, u, db, dc, 0, VECTORS);
            else
                all_states(k, d, checkpoint, u, db, dc, 0, 1);
            end_chunk(k, d, u);
        }
        for (size_t i = 0; i < u->n * k->N; i++) {
            d->db[u->t * k->N + i] = vf32_sum(vf32_load(db + i * VF32_LANES));
            d->dc[u->t * k->N + i] = vf32_sum(vf32_load(dc + i * VF32_LANES));
        }
    }
}
