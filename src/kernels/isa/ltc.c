// The fused solver of liquid time-constant cells, sixteen sequences at a time. This file is
// compiled once per instruction set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

enum { VECTORS = EM_LANES / VF32_LANES };

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS vf32 activity(const struct em_ltc_synapses *s, size_t k, const float *from)
{
    const vf32 x = vf32_sub(vf32_load(from), vf32_set1(s->mu[k]));
    const vf32 e = vf32_exp2(vf32_mul(x, vf32_set1(-1.44269504f * s->sigma[k])));
    const vf32 one = vf32_set1(1);
    return vf32_div(one, vf32_add(one, e));
}

// What reaches neuron i from `v`: numerator and denominator are added to; sigmoids are kept in
// `keep` unless it is NULL. One vector of lanes.
ALWAYS void receive(const struct em_ltc_synapses *s, size_t i, const float *v, float *keep,
                    vf32 *numerator, vf32 *denominator)
{
    const size_t end = (size_t)s->start[i + 1];
    for (size_t k = (size_t)s->start[i]; k < end; k++) {
        const vf32 g = activity(s, k, v + (size_t)s->source[k] * EM_LANES);
        const vf32 a = vf32_mul(g, vf32_set1(s->w[k]));
        if (keep) vf32_store(keep + k * EM_LANES, g);
        *numerator = vf32_fma(a, vf32_set1(s->erev[k]), *numerator);
        *denominator = vf32_add(a, *denominator);
    }
}

// x [I] and dt: one step of the cell from trace->v[0 .. U), whose following rows become the states
// after each unfold. `sensed` [U][2] is scratch.
void EM_K(ltc_f32)(const struct em_ltc *c, const struct em_ltc_trace *trace, const float *x,
                   const float *dt, float *sensed)
{
    const size_t U = c->U, row = U * EM_LANES;
    const vf32 one = vf32_set1(1), epsilon = vf32_set1(c->epsilon);
    for (size_t v = 0; v < EM_LANES; v += VF32_LANES) {
        const vf32 rate = vf32_div(vf32_set1((float)c->unfolds), vf32_load(dt + v));
        for (size_t i = 0; i < U; i++) {
            vf32 numerator = vf32_mul(vf32_set1(c->gleak[i]), vf32_set1(c->vleak[i])),
                 denominator = vf32_set1(c->gleak[i]);
            receive(&c->sensory, i, x + v, trace->sensory ? trace->sensory + v : NULL, &numerator,
                    &denominator);
            denominator = vf32_fma(vf32_set1(c->cm[i]), rate, denominator);
            vf32_store(sensed + 2 * i * EM_LANES + v, numerator);
            vf32_store(sensed + (2 * i + 1) * EM_LANES + v, denominator);
        }
        for (unsigned n = 0; n < c->unfolds; n++) {
            const float *old = trace->v + n * row + v;
            float *next = trace->v + (n + 1) * row + v;
            float *keep =
                trace->activity ? trace->activity + n * c->inner.count * EM_LANES + v : NULL;
            for (size_t i = 0; i < U; i++) {
                vf32 numerator = vf32_load(sensed + 2 * i * EM_LANES + v),
                     denominator = vf32_load(sensed + (2 * i + 1) * EM_LANES + v);
                receive(&c->inner, i, old, keep, &numerator, &denominator);
                numerator = vf32_fma(vf32_mul(vf32_set1(c->cm[i]), rate),
                                     vf32_load(old + i * EM_LANES), numerator);
                const vf32 inverse = vf32_div(one, vf32_add(denominator, epsilon));
                if (trace->inverse)
                    vf32_store(trace->inverse + n * row + i * EM_LANES + v, inverse);
                vf32_store(next + i * EM_LANES, vf32_mul(numerator, inverse));
            }
        }
    }
}

// The gradients of what reaches neuron i, given those of its numerator and denominator: sums, and
// what goes back to the senders.
ALWAYS void receive_backward(const struct em_ltc_synapses *s, size_t i, const float *v,
                             const float *kept, float *sums, float *dv, vf32 dnumerator,
                             vf32 ddenominator)
{
    const vf32 one = vf32_set1(1);
    const size_t end = (size_t)s->start[i + 1];
    for (size_t k = (size_t)s->start[i]; k < end; k++) {
        const size_t from = (size_t)s->source[k] * EM_LANES;
        const vf32 w = vf32_set1(s->w[k]), erev = vf32_set1(s->erev[k]),
                   g = kept ? vf32_load(kept + k * EM_LANES) : activity(s, k, v + from),
                   da = vf32_fma(dnumerator, erev, ddenominator),
                   dz = vf32_mul(vf32_mul(da, w), vf32_mul(g, vf32_sub(one, g)));
        float *sum = sums + 4 * k * EM_LANES;
        const vf32 off = vf32_sub(vf32_load(v + from), vf32_set1(s->mu[k]));
        vf32_store(sum, vf32_fma(dz, off, vf32_load(sum)));
        vf32_store(sum + EM_LANES, vf32_add(dz, vf32_load(sum + EM_LANES)));
        vf32_store(sum + 2 * EM_LANES, vf32_fma(da, g, vf32_load(sum + 2 * EM_LANES)));
        vf32_store(sum + 3 * EM_LANES, vf32_fma(dnumerator, g, vf32_load(sum + 3 * EM_LANES)));
        vf32_store(dv + from, vf32_fma(dz, vf32_set1(s->sigma[k]), vf32_load(dv + from)));
    }
}

// dv [U] holds the gradient of the new state, and then that of the old one. dx [I] and the sums are
// added to; the second of a synapse's four lacks the factor -sigma, the fourth w. `work` [U][3] is
// scratch.
void EM_K(ltc_backward_f32)(const struct em_ltc *c, const struct em_ltc_trace *trace,
                            const struct em_ltc_sums *sums, const float *x, const float *dt,
                            float *dx, float *dv, float *work)
{
    const size_t U = c->U, row = U * EM_LANES;
    const vf32 zero = vf32_zero();
    float *dsensed = work, *before = work + 2 * row;
    for (size_t v = 0; v < EM_LANES; v += VF32_LANES) {
        const vf32 rate = vf32_div(vf32_set1((float)c->unfolds), vf32_load(dt + v));
        for (size_t i = 0; i < 2 * U; i++)
            vf32_store(dsensed + i * EM_LANES + v, zero);
        for (unsigned n = c->unfolds; n-- > 0;) {
            const float *old = trace->v + n * row + v, *next = old + row;
            const float *kept =
                trace->activity ? trace->activity + n * c->inner.count * EM_LANES + v : NULL;
            for (size_t i = 0; i < U; i++)
                vf32_store(before + i * EM_LANES + v, zero);
            for (size_t i = 0; i < U; i++) {
                const size_t at = i * EM_LANES;
                float *sum = sums->neuron + 3 * at + v;
                const vf32 dn = vf32_mul(vf32_load(dv + at + v),
                                         vf32_load(trace->inverse + n * row + at + v)),
                           dd = vf32_neg(vf32_mul(dn, vf32_load(next + at)));
                const vf32 dc = vf32_fma(dn, vf32_load(old + at), dd);
                vf32_store(sum, vf32_fma(dc, rate, vf32_load(sum)));
                vf32_store(before + at + v, vf32_fma(dn, vf32_mul(vf32_set1(c->cm[i]), rate),
                                                     vf32_load(before + at + v)));
                float *ds = dsensed + 2 * at + v;
                vf32_store(ds, vf32_add(dn, vf32_load(ds)));
                vf32_store(ds + EM_LANES, vf32_add(dd, vf32_load(ds + EM_LANES)));
                receive_backward(&c->inner, i, old, kept, sums->inner + v, before + v, dn, dd);
            }
            for (size_t i = 0; i < U; i++)
                vf32_store(dv + i * EM_LANES + v, vf32_load(before + i * EM_LANES + v));
        }
        for (size_t i = 0; i < U; i++) {
            float *sum = sums->neuron + 3 * i * EM_LANES + v;
            const vf32 dn = vf32_load(dsensed + 2 * i * EM_LANES + v),
                       dd = vf32_load(dsensed + (2 * i + 1) * EM_LANES + v);
            vf32_store(sum + EM_LANES, vf32_add(vf32_fma(dn, vf32_set1(c->vleak[i]), dd),
                                                vf32_load(sum + EM_LANES)));
            vf32_store(sum + 2 * EM_LANES,
                       vf32_fma(dn, vf32_set1(c->gleak[i]), vf32_load(sum + 2 * EM_LANES)));
            receive_backward(&c->sensory, i, x + v, trace->sensory + v, sums->sensory + v, dx + v,
                             dn, dd);
        }
    }
}
