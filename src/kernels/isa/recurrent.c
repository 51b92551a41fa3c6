// Recurrent cells, sixteen sequences at a time. This file is compiled once per instruction set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

enum { VECTORS = EM_LANES / VF32_LANES };

// The first n values of sixteen rows become lanes; a row that is NULL is zeros.
void EM_K(lanes_load_f32)(float *y, const float *const *rows, size_t n)
{
    for (size_t at = 0; at < n; at += VF32_LANES) {
        const size_t part = n - at < VF32_LANES ? n - at : VF32_LANES;
        for (size_t v = 0; v < VECTORS; v++) {
            vf32 r[VF32_LANES];
            for (size_t i = 0; i < VF32_LANES; i++) {
                const float *row = rows[v * VF32_LANES + i];
                r[i] = row ? vf32_load_n(row + at, part) : vf32_zero();
            }
            vf32_transpose(r);
            for (size_t i = 0; i < part; i++)
                vf32_store(y + (at + i) * EM_LANES + v * VF32_LANES, r[i]);
        }
    }
}

// Lanes go to (or are added to) the first n values of sixteen rows; a row that is NULL is left out.
void EM_K(lanes_store_f32)(float *const *rows, const float *x, size_t n, bool add)
{
    for (size_t at = 0; at < n; at += VF32_LANES) {
        const size_t part = n - at < VF32_LANES ? n - at : VF32_LANES;
        for (size_t v = 0; v < VECTORS; v++) {
            vf32 r[VF32_LANES];
            for (size_t i = 0; i < VF32_LANES; i++)
                r[i] = i < part ? vf32_load(x + (at + i) * EM_LANES + v * VF32_LANES) : vf32_zero();
            vf32_transpose(r);
            for (size_t i = 0; i < VF32_LANES; i++) {
                float *row = rows[v * VF32_LANES + i];
                if (!row) continue;
                if (add) r[i] = vf32_add(r[i], vf32_load_n(row + at, part));
                vf32_store_n(row + at, r[i], part);
            }
        }
    }
}

// Rows that are computed together: as many sums as registers hold, so that additions do not wait
// for each other.
enum { BLOCK = VECTORS == 1 ? 8 : VECTORS == 2 ? 6 : 4 };

static inline __attribute__((always_inline)) void
product_rows(float *y, const struct em_lanes_product *p, const float *x, size_t row, size_t rows)
{
    vf32 sum[BLOCK][VECTORS];
    for (size_t i = 0; i < rows; i++)
        for (size_t v = 0; v < VECTORS; v++)
            sum[i][v] = vf32_zero();
    const float *w = p->w + row * p->row_stride;
    for (size_t k = 0; k < p->columns; k++) {
        vf32 xk[VECTORS];
        for (size_t v = 0; v < VECTORS; v++)
            xk[v] = vf32_load(x + k * EM_LANES + v * VF32_LANES);
        for (size_t i = 0; i < rows; i++) {
            const vf32 wk = vf32_set1(w[i * p->row_stride + k * p->col_stride]);
            for (size_t v = 0; v < VECTORS; v++)
                sum[i][v] = vf32_fma(wk, xk[v], sum[i][v]);
        }
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t v = 0; v < VECTORS; v++) {
            float *to = y + (row + i) * EM_LANES + v * VF32_LANES;
            vf32 s = sum[i][v];
            if (p->bias) s = vf32_add(s, vf32_set1(p->bias[row + i]));
            if (p->add) s = vf32_add(s, vf32_load(to));
            vf32_store(to, s);
        }
}

// y may not be x.
void EM_K(lanes_product_f32)(float *y, const struct em_lanes_product *p, const float *x)
{
    size_t row = 0;
    for (; row + BLOCK <= p->rows; row += BLOCK)
        product_rows(y, p, x, row, BLOCK);
    for (; BLOCK > 4 && row + 4 <= p->rows; row += 4)
        product_rows(y, p, x, row, 4);
    for (; row + 2 <= p->rows; row += 2)
        product_rows(y, p, x, row, 2);
    if (row < p->rows) product_rows(y, p, x, row, 1);
}

// h, c [H] from z [4 H] and the old c, which may be the new one.
void EM_K(lstm_gates_f32)(const struct em_lstm_gates *g, float *h, float *c, const float *z,
                          const float *c_before)
{
    const size_t n = g->H * EM_LANES;
    const float *zi = z + g->place[0] * n, *zf = z + g->place[1] * n, *zg = z + g->place[2] * n,
                *zo = z + g->place[3] * n;
    const vf32 bias = vf32_set1(g->forget_bias);
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 i = vf32_sigmoid(vf32_load(zi + j)),
                   f = vf32_sigmoid(vf32_add(vf32_load(zf + j), bias)),
                   t = vf32_tanh(vf32_load(zg + j)), o = vf32_sigmoid(vf32_load(zo + j)),
                   next = vf32_fma(vf32_load(c_before + j), f, vf32_mul(i, t));
        vf32_store(c + j, next);
        vf32_store(h + j, vf32_mul(o, vf32_tanh(next)));
    }
}

// dz [4 H] is written; dc holds the gradient of the new c and then that of the old one.
void EM_K(lstm_gates_backward_f32)(const struct em_lstm_gates *g, float *dz, float *dc,
                                   const float *dh, const float *z, const float *c_before)
{
    const size_t n = g->H * EM_LANES;
    const size_t ai = g->place[0] * n, af = g->place[1] * n, ag = g->place[2] * n,
                 ao = g->place[3] * n;
    const vf32 bias = vf32_set1(g->forget_bias), one = vf32_set1(1);
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 i = vf32_sigmoid(vf32_load(z + ai + j)),
                   f = vf32_sigmoid(vf32_add(vf32_load(z + af + j), bias)),
                   t = vf32_tanh(vf32_load(z + ag + j)), o = vf32_sigmoid(vf32_load(z + ao + j)),
                   before = vf32_load(c_before + j),
                   th = vf32_tanh(vf32_fma(before, f, vf32_mul(i, t))), d = vf32_load(dh + j);
        const vf32 dnext = vf32_fma(vf32_mul(d, o), vf32_fnma(th, th, one), vf32_load(dc + j));
        vf32_store(dz + ao + j, vf32_mul(vf32_mul(d, th), vf32_mul(o, vf32_sub(one, o))));
        vf32_store(dz + ai + j, vf32_mul(vf32_mul(dnext, t), vf32_mul(i, vf32_sub(one, i))));
        vf32_store(dz + ag + j, vf32_mul(vf32_mul(dnext, i), vf32_fnma(t, t, one)));
        vf32_store(dz + af + j, vf32_mul(vf32_mul(dnext, before), vf32_mul(f, vf32_sub(one, f))));
        vf32_store(dc + j, vf32_mul(dnext, f));
    }
}

// A gated recurrent unit: r = sigmoid(x0 + h0), u = sigmoid(x1 + h1), m = tanh(x2 + r h2),
// h' = (1 - u) m + u h, with x = zx [3 H] of the input and h = zh [3 H] of the old state.
void EM_K(gru_gates_f32)(float *h, const float *zx, const float *zh, const float *before, size_t H)
{
    const size_t n = H * EM_LANES;
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 r = vf32_sigmoid(vf32_add(vf32_load(zx + j), vf32_load(zh + j))),
                   u = vf32_sigmoid(vf32_add(vf32_load(zx + n + j), vf32_load(zh + n + j))),
                   m = vf32_tanh(vf32_fma(r, vf32_load(zh + 2 * n + j), vf32_load(zx + 2 * n + j)));
        vf32_store(h + j, vf32_fma(u, vf32_sub(vf32_load(before + j), m), m));
    }
}

// dzx, dzh [3 H] and dbefore [H] are written; dbefore may be dh.
void EM_K(gru_gates_backward_f32)(float *dzx, float *dzh, float *dbefore, const float *dh,
                                  const float *zx, const float *zh, const float *before, size_t H)
{
    const size_t n = H * EM_LANES;
    const vf32 one = vf32_set1(1);
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 zm = vf32_load(zh + 2 * n + j),
                   r = vf32_sigmoid(vf32_add(vf32_load(zx + j), vf32_load(zh + j))),
                   u = vf32_sigmoid(vf32_add(vf32_load(zx + n + j), vf32_load(zh + n + j))),
                   m = vf32_tanh(vf32_fma(r, zm, vf32_load(zx + 2 * n + j))), d = vf32_load(dh + j);
        const vf32 du = vf32_mul(vf32_mul(d, vf32_sub(vf32_load(before + j), m)),
                                 vf32_mul(u, vf32_sub(one, u))),
                   dm = vf32_mul(vf32_mul(d, vf32_sub(one, u)), vf32_fnma(m, m, one)),
                   dr = vf32_mul(vf32_mul(dm, zm), vf32_mul(r, vf32_sub(one, r)));
        vf32_store(dzx + j, dr);
        vf32_store(dzh + j, dr);
        vf32_store(dzx + n + j, du);
        vf32_store(dzh + n + j, du);
        vf32_store(dzx + 2 * n + j, dm);
        vf32_store(dzh + 2 * n + j, vf32_mul(dm, r));
        vf32_store(dbefore + j, vf32_mul(d, u));
    }
}

static void cfc_pure(const struct em_cfc_heads *c, float *h)
{
    for (size_t i = 0; i < c->H; i++) {
        const vf32 tau = vf32_set1(c->w_tau[i] < 0 ? -c->w_tau[i] : c->w_tau[i]),
                   a = vf32_set1(c->a[i]);
        for (size_t v = 0; v < EM_LANES; v += VF32_LANES) {
            const vf32 f = vf32_load(c->p + i * EM_LANES + v), dt = vf32_load(c->dt + v),
                       e = vf32_exp(vf32_neg(vf32_mul(dt, vf32_add(tau, vf32_abs(f)))));
            vf32_store(h + i * EM_LANES + v, vf32_fnma(vf32_mul(a, e), f, a));
        }
    }
}

void EM_K(cfc_heads_f32)(const struct em_cfc_heads *c, float *h)
{
    const size_t n = c->H * EM_LANES;
    if (c->mode == EM_CFC_PURE) {
        cfc_pure(c, h);
        return;
    }
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 f1 = vf32_tanh(vf32_load(c->p + j)), f2 = vf32_tanh(vf32_load(c->p + n + j)),
                   s = vf32_sigmoid(vf32_fma(vf32_load(c->p + 2 * n + j),
                                             vf32_load(c->dt + j % EM_LANES),
                                             vf32_load(c->p + 3 * n + j)));
        vf32_store(h + j, c->mode == EM_CFC_NO_GATE ? vf32_fma(s, f2, f1)
                                                    : vf32_fma(s, vf32_sub(f2, f1), f1));
    }
}

// h = A - A e f, e = exp(-dt (|tau| + |f|)): dh/df = -A e (1 - dt |f|), dh/d|tau| = A e f dt.
static void cfc_pure_backward(const struct em_cfc_heads *c, float *dp, float *sums, const float *dh)
{
    const vf32 one = vf32_set1(1);
    for (size_t i = 0; i < c->H; i++) {
        const float w_tau = c->w_tau[i];
        const vf32 tau = vf32_set1(w_tau < 0 ? -w_tau : w_tau), a = vf32_set1(c->a[i]),
                   sign = vf32_set1(w_tau > 0   ? 1
                                    : w_tau < 0 ? -1
                                                : 0);
        for (size_t v = 0; v < EM_LANES; v += VF32_LANES) {
            const size_t j = i * EM_LANES + v;
            float *dtau = sums + (2 * i) * EM_LANES + v, *da = dtau + EM_LANES;
            const vf32 f = vf32_load(c->p + j), dt = vf32_load(c->dt + v), size = vf32_abs(f),
                       e = vf32_exp(vf32_neg(vf32_mul(dt, vf32_add(tau, size)))),
                       d = vf32_load(dh + j), dae = vf32_mul(vf32_mul(d, a), e);
            vf32_store(dp + j, vf32_mul(dae, vf32_sub(vf32_mul(dt, size), one)));
            vf32_store(dtau, vf32_fma(vf32_mul(dae, f), vf32_mul(dt, sign), vf32_load(dtau)));
            vf32_store(da, vf32_fma(d, vf32_fnma(e, f, one), vf32_load(da)));
        }
    }
}

// dp is written; sums [H][2] (w_tau, A) per lane, for the pure mode, are added to.
void EM_K(cfc_heads_backward_f32)(const struct em_cfc_heads *c, float *dp, float *sums,
                                  const float *dh)
{
    const size_t n = c->H * EM_LANES;
    const vf32 one = vf32_set1(1);
    if (c->mode == EM_CFC_PURE) {
        cfc_pure_backward(c, dp, sums, dh);
        return;
    }
    for (size_t j = 0; j < n; j += VF32_LANES) {
        const vf32 dt = vf32_load(c->dt + j % EM_LANES), f1 = vf32_tanh(vf32_load(c->p + j)),
                   f2 = vf32_tanh(vf32_load(c->p + n + j)),
                   s = vf32_sigmoid(
                       vf32_fma(vf32_load(c->p + 2 * n + j), dt, vf32_load(c->p + 3 * n + j))),
                   d = vf32_load(dh + j);
        const bool gated = c->mode == EM_CFC_DEFAULT;
        const vf32 d1 = gated ? vf32_mul(d, vf32_sub(one, s)) : d,
                   ds = vf32_mul(vf32_mul(d, gated ? vf32_sub(f2, f1) : f2),
                                 vf32_mul(s, vf32_sub(one, s)));
        vf32_store(dp + j, vf32_mul(d1, vf32_fnma(f1, f1, one)));
        vf32_store(dp + n + j, vf32_mul(vf32_mul(d, s), vf32_fnma(f2, f2, one)));
        vf32_store(dp + 2 * n + j, vf32_mul(ds, dt));
        vf32_store(dp + 3 * n + j, ds);
    }
}
