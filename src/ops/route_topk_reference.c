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
        switch (em_route_options(c)->score) {
        case EMBER_SCORE_SIGMOID: score[e] = 1 / (1 + exp(-(double)h[e])); break;
        case EMBER_SCORE_SQRT_SOFTPLUS: score[e] = sqrt(log1p(exp((double)h[e]))); break;
        case EMBER_SCORE_SOFTMAX_SELECTED:
        case EMBER_SCORE_SOFTMAX_ALL: score[e] = exp((double)h[e] - max) / sum; break;
        }
    return max + log(sum);
}

static double sum_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

// What expert e's choice goes by.
static double value_of(const struct em_call *c, size_t t, const double *score, size_t e)
{
    if (c->in[EM_ROUTE_CHOICE]) return (double)em_row(c->in[EM_ROUTE_CHOICE], t)[e];
    if (c->in[EM_ROUTE_BIAS]) return (double)((float)score[e] + em_f32(c->in[EM_ROUTE_BIAS])[e]);
    return em_route_options(c)->groups ? score[e] : (double)em_row(c->in[EM_ROUTE_LOGITS], t)[e];
}

// The sum of the group's best values: each time the best of those that are below the last one, or
// equal to it and later.
static double worth(const struct em_call *c, size_t t, const double *score, size_t group)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t each = c->in[EM_ROUTE_LOGITS]->dim[1] / o->groups;
    double sum = 0, last = INFINITY;
    size_t last_at = 0;
    for (size_t n = 0; n < o->group_top && n < each; n++) {
        double best = -INFINITY;
        size_t at = each;
        for (size_t i = 0; i < each; i++) {
            const double v = value_of(c, t, score, group * each + i);
            const bool left = n == 0 || v < last || (v == last && i > last_at);
            if (left && (at == each || v > best)) {
                best = v;
                at = i;
            }
        }
        sum += best;
        last = best;
        last_at = at;
    }
    return sum;
}

// Whether expert e's group is one of the best: fewer than keep_groups are better than it.
static bool may_choose(const struct em_call *c, size_t t, const double *score, size_t e)
{
    const ember_topk_options *o = em_route_options(c);
    if (!o->groups) return true;
    const size_t mine = e / (c->in[EM_ROUTE_LOGITS]->dim[1] / o->groups);
    const double own = worth(c, t, score, mine);
    size_t better = 0;
    for (size_t g = 0; g < o->groups; g++) {
        const double other = worth(c, t, score, g);
        better += other > own || (other == own && g < mine);
    }
    return better < o->keep_groups;
}

// k times the best of those that are left.
static void choose(const struct em_call *c, size_t t, const double *score, int32_t *chosen)
{
    const size_t E = c->in[EM_ROUTE_LOGITS]->dim[1], k = em_route_k(c);
    double all = 0, sum = 0;
    for (size_t e = 0; e < E; e++)
        all += score[e];
    for (size_t n = 0; n < em_route_width(c); n++) {
        double best = -INFINITY;
        chosen[n] = -1;
        if (n >= k || (n && em_route_options(c)->top_p > 0 &&
                       sum >= (double)em_route_options(c)->top_p * all))
            continue;
        for (size_t e = 0; e < E; e++) {
            bool taken = !may_choose(c, t, score, e);
            for (size_t m = 0; m < n; m++)
                taken = taken || (size_t)chosen[m] == e;
            const double value = value_of(c, t, score, e);
            if (taken || (chosen[n] >= 0 && !(value > best))) continue;
            best = value;
            chosen[n] = (int32_t)e;
        }
        sum += score[chosen[n]];
    }
}

static double chosen_sum(const struct em_call *c, const double *score, const int32_t *chosen)
{
    double sum = 0;
    for (size_t n = 0; n < em_route_width(c) && chosen[n] >= 0; n++)
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
        int32_t *chosen = em_i32(c->out[EM_ROUTE_INDICES]) + t * em_route_width(c);
        const double lse = read_scores(c, t, score);
        choose(c, t, score, chosen);
        const double divisor = em_route_renormalises(o) ? chosen_sum(c, score, chosen) : 1;
        for (size_t n = 0; n < em_route_width(c); n++) {
            em_row(c->out[EM_ROUTE_WEIGHTS], t)[n] =
                chosen[n] < 0 ? 0 : (float)(score[chosen[n]] / divisor * em_route_scale(c));
            if (chosen[n] >= 0) f[chosen[n]]++;
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
    const int32_t *chosen = em_i32(c->out[EM_ROUTE_INDICES]) + t * em_route_width(c);
    const float *a = em_row(c->out[EM_ROUTE_WEIGHTS]->grad, t);
    const double Z = em_route_renormalises(o) ? chosen_sum(c, score, chosen) : 1;
    double through_sum = 0;
    const size_t k = em_route_chosen(chosen, em_route_width(c));
    for (size_t n = 0; em_route_renormalises(o) && n < k; n++)
        through_sum += (double)a[n] * score[chosen[n]] / Z / Z;
    for (size_t n = 0; n < k; n++)
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
            const double slope = em_score_is_single(o->score)
                                     ? ds[e] * em_score_slope(o->score, score[e])
                                     : score[e] * (ds[e] - inner);
            const double z = (double)o->z_coefficient * c->exec->aux_scale * 2 * lse / (double)T *
                             exp((double)h[e] - lse);
            dh[e] += (float)(slope + z);
        }
    }
}
