// Top-k routing in double, by the definitions: scores, choices, weights, and the chain rule back.
#include <math.h>

#include "ops/route_topk.h"

// The scores of one token, in double, and the log of the sum of exponentials.
static double read_scores(const struct em_call *c, size_t t, double *score)
{
    const float *h = em_row(c->in[EM_ROUTE_LOGITS], t);
    const size_t E = c->in[EM_ROUTE_LOGITS]->dim[1];
    double max = -INFINITY, sum = 0;
    for (size_t e = 0; e < E; e++)
        max = fmax(max, (double)h[e]);
    for (size_t e = 0; e < E; e++)
        sum += exp((double)h[e] - max);
    for (size_t e = 0; e < E; e++)
        score[e] = em_route_options(c)->score == EMBER_SCORE_SIGMOID
                       ? 1 / (1 + exp(-(double)h[e]))
                       : exp((double)h[e] - max) / sum;
    return max + log(sum);
}

static double sum_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

// k times the best of those that are left.
static void choose(const struct em_call *c, size_t t, const double *score, int32_t *chosen)
{
    const size_t E = c->in[EM_ROUTE_LOGITS]->dim[1], k = em_route_options(c)->k;
    const float *h = em_row(c->in[EM_ROUTE_LOGITS], t);
    for (size_t n = 0; n < k; n++) {
        double best = -INFINITY;
        chosen[n] = -1;
        for (size_t e = 0; e < E; e++) {
            bool taken = false;
            for (size_t m = 0; m < n; m++)
                taken = taken || (size_t)chosen[m] == e;
            const double value = c->in[EM_ROUTE_BIAS]
                                     ? (double)((float)score[e] + em_f32(c->in[EM_ROUTE_BIAS])[e])
                                     : (double)h[e];
            if (taken || (chosen[n] >= 0 && !(value > best))) continue;
            best = value;
            chosen[n] = (int32_t)e;
        }
    }
}

static double chosen_sum(const struct em_call *c, const double *score, const int32_t *chosen)
{
    double sum = 0;
    for (size_t n = 0; n < em_route_options(c)->k; n++)
        sum += score[chosen[n]];
    return em_route_divisor(em_route_options(c), sum);
}

void em_route_reference_forward(const struct em_call *c)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t T = c->in[EM_ROUTE_LOGITS]->dim[0], E = c->in[EM_ROUTE_LOGITS]->dim[1];
    double *score = em_scratch_take(em_scratch_of(c), 3 * E * sizeof *score), *P = score + E,
           *f = P + E, z = 0, entropy = 0;
    memset(P, 0, 2 * E * sizeof *P);
    for (size_t t = 0; t < T; t++) {
        int32_t *chosen = em_i32(c->out[EM_ROUTE_INDICES]) + t * o->k;
        const double lse = read_scores(c, t, score);
        choose(c, t, score, chosen);
        const double divisor = em_route_renormalises(o) ? chosen_sum(c, score, chosen) : 1;
        for (size_t n = 0; n < o->k; n++) {
            em_row(c->out[EM_ROUTE_WEIGHTS], t)[n] =
                (float)(score[chosen[n]] / divisor * em_route_scale(c));
            f[chosen[n]]++;
        }
        const double all = sum_of(score, E);
        for (size_t e = 0; e < E; e++) {
            const double p = all > 0 ? score[e] / all : 0;
            P[e] += p;
            if (p > 0) entropy -= p * log(p);
        }
        z += lse * lse;
    }
    em_route_finish(c, P, f, z, entropy);
}

// ds += the derivative of the weights by the scores, times the weights' gradient a:
//   g_n = scale s_n / Z, Z = sum_S s + eps, or 1:  ds_m += scale (a_m / Z - sum_n a_n s_n / Z^2).
static void through_weights(const struct em_call *c, size_t t, const double *score, double *ds)
{
    const ember_topk_options *o = em_route_options(c);
    const int32_t *chosen = em_i32(c->out[EM_ROUTE_INDICES]) + t * o->k;
    const float *a = em_row(c->out[EM_ROUTE_WEIGHTS]->grad, t);
    const double Z = em_route_renormalises(o) ? chosen_sum(c, score, chosen) : 1;
    double through_sum = 0;
    for (size_t n = 0; em_route_renormalises(o) && n < o->k; n++)
        through_sum += (double)a[n] * score[chosen[n]] / Z / Z;
    for (size_t n = 0; n < o->k; n++)
        ds[chosen[n]] += em_route_scale(c) * ((double)a[n] / Z - through_sum);
}

// The balance loss by the scores, f constant: p_e = s_e / sum s, dL/dp_e = c E f_e / T.
static void through_balance(const struct em_call *c, const double *score, double *ds)
{
    const size_t T = c->in[EM_ROUTE_LOGITS]->dim[0], E = c->in[EM_ROUTE_LOGITS]->dim[1];
    const float *f = em_f32(c->saved[0]) + E;
    const double all = sum_of(score, E), each = (double)em_route_options(c)->aux_coefficient *
                                                c->exec->aux_scale * (double)E / (double)T;
    double through_sum = 0;
    for (size_t e = 0; e < E; e++)
        through_sum += each * (double)f[e] * score[e] / all / all;
    for (size_t e = 0; e < E; e++)
        ds[e] += each * (double)f[e] / all - through_sum;
}

void em_route_reference_backward(const struct em_call *c)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t T = c->in[EM_ROUTE_LOGITS]->dim[0], E = c->in[EM_ROUTE_LOGITS]->dim[1];
    if (!em_wants(c, EM_ROUTE_LOGITS)) return;
    double *score = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *score), *ds = score + E;
    for (size_t t = 0; t < T; t++) {
        const float *h = em_row(c->in[EM_ROUTE_LOGITS], t);
        float *dh = em_row(c->in[EM_ROUTE_LOGITS]->grad, t);
        const double lse = read_scores(c, t, score);
        double inner = 0;
        memset(ds, 0, E * sizeof *ds);
        through_weights(c, t, score, ds);
        if (o->aux_coefficient != 0) through_balance(c, score, ds);
        for (size_t e = 0; e < E; e++)
            inner += ds[e] * score[e];
        for (size_t e = 0; e < E; e++) {
            const double slope = o->score == EMBER_SCORE_SIGMOID ? ds[e] * score[e] * (1 - score[e])
                                                                 : score[e] * (ds[e] - inner);
            const double z = (double)o->z_coefficient * c->exec->aux_scale * 2 * lse / (double)T *
                             exp((double)h[e] - lse);
            dh[e] += (float)(slope + z);
        }
    }
}
