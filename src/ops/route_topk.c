// Top-k routing. s = scores of the logits h; S = the k largest of s (+ bias), ties to the lowest
// index.
//   softmax over the selected: g = softmax(h_S);    dh_i = g_i (a_i - sum_S g_j a_j),  a = dL/dg
//   softmax over all: g = p_S (renormalised: as above, but for eps);
//                                       dh_j = g_j a_j [j in S] - p_j sum_S g_i a_i
//   sigmoid and root of softplus: g = s_S, or s_S / Z with Z = sum_S s + eps;
//                                       dh_i = s'_i (a_i - sum_S a_j g_j) / Z
// everything times `scale`. Losses, per layer and over the whole batch, added to dh with
// exec->aux_scale:
//   balance: c E sum_e f_e P_e, f_e = choices of e / (k T), P_e = mean of the scores normalised to
//            sum 1 (Fedus et al. 2021, arXiv:2101.03961; f divided by k, so 1 when balanced)
//   z:       c mean (logsumexp h)^2 (Zoph et al. 2022, arXiv:2202.08906)
// Where a token needs fewer than k experts (top_p, k on its way up), its last indices are -1.
#include "ops/route_topk.h"
#include "kernels/kernels.h"

enum { LOGITS = EM_ROUTE_LOGITS, BIAS = EM_ROUTE_BIAS };
enum { WEIGHTS = EM_ROUTE_WEIGHTS, INDICES = EM_ROUTE_INDICES, STATS = EM_ROUTE_STATS };
enum { BLOCK = 256 }; // tokens of a partial sum

// Scratch: of each block of tokens P [E], choices [E], z and entropy in double; and two rows of E
// floats for each thread.
static size_t row_floats(size_t E)
{
    return (E + 31) / 32 * 32;
}

static ember_status need_workspace(struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, T / BLOCK + 2, 4 * E + 8, &bytes));
    EM_TRY(em_add_scratch(c, em_call_threads(c), 2 * row_floats(E), &bytes));
    em_need_scratch(c, bytes);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[96];
    const ember_tensor *h = c->in[LOGITS], *bias = c->in[BIAS], *choice = c->in[EM_ROUTE_CHOICE];
    const ember_topk_options *o = em_route_options(c);
    const size_t k = em_route_width(c);
    EM_TRY(em_check_f32(c, h, "logits", 0));
    if (h->ndim != 2 || !o->k || k > h->dim[1])
        return em_fail(EMBER_E_SHAPE, "route_topk: %zu of the experts of %s cannot be chosen", k,
                       em_shape_text(h, text, sizeof text));
    const size_t E = h->dim[1];
    if (choice) EM_TRY(em_check_same(c, "logits", h, "choice", choice));
    if (o->groups && (E % o->groups || !o->keep_groups || o->keep_groups > o->groups ||
                      E / o->groups * o->keep_groups < k || !o->group_top))
        return em_fail(EMBER_E_SHAPE, "route_topk: %zu of %zu experts in %u of %u groups", k, E,
                       o->keep_groups, o->groups);
    if (bias) EM_TRY(em_check_f32(c, bias, "bias", 0));
    if (bias && (bias->ndim != 1 || bias->dim[0] != E))
        return em_fail(EMBER_E_SHAPE, "route_topk: bias has to be [%zu], not %s", E,
                       em_shape_text(bias, text, sizeof text));
    EM_TRY(need_workspace(c));
    EM_TRY(em_out_rows(c, WEIGHTS, EMBER_F32, h, 1, &k, 1));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, h, 1, &k, 1));
    EM_TRY(em_out(c, STATS, EMBER_F32, (size_t[]){4}, 1));
    // P and f of the balance loss, for backward.
    return em_saved(c, 0, EMBER_F32, (size_t[]){2 * E}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){(8 + (double)em_route_width(c)) * n, 4 * n};
    *backward = (struct em_cost){10 * n, 12 * n};
}

// Means, the losses and the entropies (over log E), unscaled.
void em_route_finish(const struct em_call *c, const double *P, const double *f, double z,
                     double entropy)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const double tokens = T ? (double)T : 1, nats = E > 1 ? log((double)E) : 1;
    double aux = 0, marginal = 0, choices = 0;
    for (size_t e = 0; e < E; e++)
        choices += f[e];
    if (!(choices > 0)) choices = 1;
    for (size_t e = 0; e < E; e++) {
        const double p = P[e] / tokens;
        aux += (double)E * f[e] / choices * p;
        if (p > 0) marginal -= p * log(p);
        if (!em_recording(c)) continue;
        em_f32(c->saved[0])[e] = (float)p;
        em_f32(c->saved[0])[E + e] = (float)(f[e] / choices);
    }
    float *stats = em_f32(c->out[STATS]);
    stats[0] = (float)aux;
    stats[1] = (float)(z / tokens);
    stats[2] = (float)(entropy / tokens / nats);
    stats[3] = (float)(marginal / nats);
}

struct work {
    const struct em_call *call;
    double *sum; // of each block
    float *rows; // of each thread
};

static float *row_of(const struct work *w, unsigned thread)
{
    return w->rows + thread * 2 * row_floats(w->call->in[LOGITS]->dim[1]);
}

static void read_single_scores(ember_score kind, const float *h, size_t E, float *score)
{
    if (kind == EMBER_SCORE_SIGMOID)
        em_kernels()->activation_f32(EM_SIGMOID, score, h, E);
    else
        for (size_t e = 0; e < E; e++)
            score[e] = (float)sqrt(fmax((double)h[e], 0) + log1p(exp(-fabs((double)h[e]))));
}

// A token's scores; returns the log of the sum of exponentials.
static float read_scores(ember_score kind, const float *h, size_t E, float *score)
{
    if (!em_score_is_single(kind)) return em_kernels()->softmax_f32(score, h, E);
    read_single_scores(kind, h, E, score);
    return em_kernels()->logsumexp_f32(h, E);
}

static double sum_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum;
}

// The k best of score + bias. Without a bias they are those of the logits, so that far tails keep
// their order.
static void choose(const float *value, size_t E, size_t k, int32_t *chosen)
{
    float best[EMBER_TOPK_MAX];
    size_t have = 0;
    for (size_t e = 0; e < E; e++) {
        const float v = value[e];
        size_t at = have;
        if (have == k) {
            if (!(v > best[k - 1])) continue;
            at = k - 1;
        } else {
            have++;
        }
        for (; at > 0 && v > best[at - 1]; at--) {
            best[at] = best[at - 1];
            chosen[at] = chosen[at - 1];
        }
        best[at] = v;
        chosen[at] = (int32_t)e;
    }
}

// Groups that are not among the best lose their values. A group is worth the sum of its best ones.
static void keep_best_groups(const ember_topk_options *o, float *value, size_t E)
{
    const size_t each = E / o->groups;
    float worth[EMBER_TOPK_MAX], unkept = -INFINITY;
    int32_t best[EMBER_TOPK_MAX];
    for (size_t g = 0; g < o->groups; g++) {
        const size_t n = o->group_top < each ? o->group_top : each;
        choose(value + g * each, each, n, best);
        worth[g] = 0;
        for (size_t i = 0; i < n; i++)
            worth[g] += value[g * each + (size_t)best[i]];
    }
    choose(worth, o->groups, o->keep_groups, best);
    for (size_t g = 0; g < o->groups; g++) {
        bool kept = false;
        for (size_t i = 0; i < o->keep_groups; i++)
            kept = kept || (size_t)best[i] == g;
        for (size_t i = 0; !kept && i < each; i++)
            value[g * each + i] = unkept;
    }
}

// A token's experts: the k best, and of these as many as it needs. `value` is space for E numbers.
static void choose_experts(const struct em_call *c, size_t t, const float *score, float *value,
                           int32_t *chosen)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t E = c->in[LOGITS]->dim[1], width = em_route_width(c), k = em_route_k(c);
    const float *by = em_route_choice(c, t);
    if (!by && c->in[BIAS]) {
        em_kernels()->add_f32(value, score, em_f32(c->in[BIAS]), E);
        by = value;
    } else if (!by) {
        by = o->groups ? score : em_row(c->in[LOGITS], t);
    }
    if (o->groups && by != value) memcpy(value, by, E * sizeof *value);
    if (o->groups) keep_best_groups(o, value, E);
    choose(o->groups ? value : by, E, k, chosen);
    size_t used = k;
    if (o->top_p > 0) {
        double all = 0, sum = 0;
        for (size_t e = 0; e < E; e++)
            all += (double)score[e];
        for (used = 0; used < k && !(used && sum >= (double)o->top_p * all); used++)
            sum += (double)score[chosen[used]];
    }
    for (size_t n = used; n < width; n++)
        chosen[n] = -1;
}

static double chosen_sum(const ember_topk_options *o, const float *score, const int32_t *chosen,
                         size_t k)
{
    double sum = 0;
    for (size_t n = 0; n < k; n++)
        sum += (double)score[chosen[n]];
    return em_route_divisor(o, sum);
}

static void weigh(const struct em_call *c, const float *h, const float *score,
                  const int32_t *chosen, float *weight)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t width = em_route_width(c), k = em_route_chosen(chosen, width);
    for (size_t n = k; n < width; n++)
        weight[n] = 0;
    if (o->score == EMBER_SCORE_SOFTMAX_SELECTED) { // relative to all experts they could vanish
        for (size_t n = 0; n < k; n++)
            weight[n] = h[chosen[n]];
        em_kernels()->softmax_f32(weight, weight, k);
        em_kernels()->scale_f32(weight, weight, (float)em_route_scale(c), k);
        return;
    }
    const double factor =
        em_route_scale(c) / (o->renormalise ? chosen_sum(o, score, chosen, k) : 1);
    for (size_t n = 0; n < k; n++)
        weight[n] = (float)((double)score[chosen[n]] * factor);
}

// A token's share of the sums of a block.
static void add_token(const struct em_call *c, const float *h, const float *score, double lse,
                      double *sum)
{
    const size_t E = c->in[LOGITS]->dim[1];
    const bool single = em_score_is_single(em_route_options(c)->score);
    const double all = single ? sum_of(score, E) : 1, share = all > 0 ? 1 / all : 0,
                 log_all = all > 0 ? log(all) : 0;
    double entropy = 0;
    for (size_t e = 0; e < E; e++) {
        const double p = (double)score[e] * share;
        sum[e] += p;
        if (p > 0) entropy += p * (single ? log_all - (double)logf(score[e]) : lse - (double)h[e]);
    }
    sum[2 * E] += lse * lse;
    sum[2 * E + 1] += entropy;
}

static void forward_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const ember_topk_options *o = em_route_options(c);
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1], width = em_route_width(c);
    float *score = row_of(w, thread), *value = score + row_floats(E);
    for (size_t b = begin; b < end; b++) {
        double *sum = w->sum + b * (2 * E + 2);
        memset(sum, 0, (2 * E + 2) * sizeof *sum);
        for (size_t t = b * BLOCK; t < T && t < (b + 1) * BLOCK; t++) {
            const float *h = em_row(c->in[LOGITS], t);
            int32_t *chosen = em_i32(c->out[INDICES]) + t * width;
            const double lse = (double)read_scores(o->score, h, E, score);
            choose_experts(c, t, score, value, chosen);
            weigh(c, h, score, chosen, em_row(c->out[WEIGHTS], t));
            for (size_t n = 0; n < em_route_chosen(chosen, width); n++)
                sum[E + (size_t)chosen[n]]++;
            add_token(c, h, score, lse, sum);
        }
    }
}

static struct work take_workspace(const struct em_call *c, size_t blocks)
{
    const size_t E = c->in[LOGITS]->dim[1];
    struct work w = {.call = c};
    w.sum = em_scratch_take(em_scratch_of(c), (blocks + 1) * (2 * E + 2) * sizeof *w.sum);
    w.rows = em_take_floats(c, em_pool_threads(c->exec->pool), 2 * row_floats(E));
    return w;
}

static void forward(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1],
                 blocks = (T + BLOCK - 1) / BLOCK, each = 2 * E + 2;
    struct work w = take_workspace(c, blocks);
    em_parallel(c->exec->pool, blocks, 1, forward_blocks, &w);
    double *total = w.sum + blocks * each; // the blocks' sums, in order
    memset(total, 0, each * sizeof *total);
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < each; i++)
            total[i] += w.sum[b * each + i];
    em_route_finish(c, total, total + E, total[2 * E], total[2 * E + 1]);
}

// dh += the gradient that comes in through the weights.
static void weight_gradient(const struct em_call *c, size_t t, const float *score, float *dh)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t E = c->in[LOGITS]->dim[1], width = em_route_width(c);
    const float *g = em_row(c->out[WEIGHTS], t), *a = em_row(c->out[WEIGHTS]->grad, t);
    const int32_t *chosen = em_i32(c->out[INDICES]) + t * width;
    const size_t k = em_route_chosen(chosen, width);
    const double scale = em_route_scale(c);
    double mean = 0, through_all = 0; // mean: sum_S g_j a_j, g with its scale
    for (size_t n = 0; n < k; n++)
        mean += (double)g[n] * (double)a[n];
    if (o->score == EMBER_SCORE_SOFTMAX_SELECTED) {
        for (size_t n = 0; n < k; n++)
            dh[chosen[n]] += (float)((double)g[n] * ((double)a[n] - mean / scale));
        return;
    }
    const double z = o->renormalise ? chosen_sum(o, score, chosen, k) : 1;
    for (size_t n = 0; n < k; n++) {
        // ds: of the score, then into the logit by the score's own derivative.
        const double s = (double)score[chosen[n]];
        const double ds = o->renormalise ? (scale * (double)a[n] - mean) / z : scale * (double)a[n];
        if (em_score_is_single(o->score)) {
            dh[chosen[n]] += (float)(ds * em_score_slope(o->score, s));
        } else {
            dh[chosen[n]] += (float)(ds * s);
            through_all += ds * s;
        }
    }
    if (o->score == EMBER_SCORE_SOFTMAX_ALL)
        em_kernels()->axpy_f32(dh, -(float)through_all, score, E);
}

// dh += the gradients of the losses; `softmax` is that of the logits.
static void loss_gradient(const struct em_call *c, float lse, const float *score,
                          const float *softmax, float *dh)
{
    const ember_topk_options *o = em_route_options(c);
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const double per_token = c->exec->aux_scale / (double)T;
    const double z = (double)o->z_coefficient * per_token * 2 * (double)lse;
    if (z != 0) em_kernels()->axpy_f32(dh, (float)z, softmax, E);
    if (o->aux_coefficient == 0) return;
    const bool single = em_score_is_single(o->score);
    const float *f = em_f32(c->saved[0]) + E;
    const double all = single ? sum_of(score, E) : 1, share = all > 0 ? 1 / all : 0,
                 aux = (double)o->aux_coefficient * per_token * (double)E;
    const double mean = (double)em_kernels()->dot_f32(score, f, E) * share;
    for (size_t e = 0; e < E; e++) {
        const double s = (double)score[e];
        dh[e] += (float)(aux * (single ? em_score_slope(o->score, s) * share : s) *
                         ((double)f[e] - mean));
    }
}

static void backward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const ember_topk_options *o = em_route_options(c);
    const size_t E = c->in[LOGITS]->dim[1];
    const bool losses =
        c->exec->aux_scale != 0 && (o->aux_coefficient != 0 || o->z_coefficient != 0);
    float *score = row_of(w, thread), *softmax = score;
    for (size_t t = begin; t < end; t++) {
        const float *h = em_row(c->in[LOGITS], t);
        float *dh = em_row(c->in[LOGITS]->grad, t), lse = 0;
        if (em_score_is_single(o->score)) {
            read_single_scores(o->score, h, E, score);
            softmax = score + row_floats(E);
            if (losses && o->z_coefficient != 0) lse = em_kernels()->softmax_f32(softmax, h, E);
        } else {
            lse = em_kernels()->softmax_f32(score, h, E);
        }
        weight_gradient(c, t, score, dh);
        if (losses) loss_gradient(c, lse, score, softmax, dh);
    }
}

static void backward(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0];
    if (!em_wants(c, LOGITS) || !T) return;
    struct work w = take_workspace(c, 0);
    em_parallel(c->exec->pool, T, em_row_grain(16 * c->in[LOGITS]->dim[1]), backward_tokens, &w);
}

const struct em_op em_op_route_topk = {
    .name = "route_topk",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_route_reference_forward, em_route_reference_backward)},
    .backward_reads = EM_READS_IN(LOGITS) | EM_READS_OUT(WEIGHTS) | EM_READS_OUT(INDICES),
};

ember_status em_route_topk(ember_flow *flow, ember_tensor *const in[EM_ROUTE_INPUTS],
                           const ember_topk_options *options, ember_routing *routing,
                           struct em_router_record *record)
{
    const ember_tensor *logits = in[LOGITS];
    const size_t most = options->k > options->k_first ? options->k : options->k_first;
    if (most > EMBER_TOPK_MAX || options->groups > EMBER_TOPK_MAX)
        return em_fail(EMBER_E_SHAPE, "route_topk: at most %d experts a token, not %zu",
                       EMBER_TOPK_MAX, options->k);
    if (options->score < EMBER_SCORE_SOFTMAX_SELECTED || options->score > EMBER_SCORE_SQRT_SOFTPLUS)
        return em_fail(EMBER_E_RANGE, "route_topk: there is no score number %d",
                       (int)options->score);
    if (logits && logits->ndim == 2 && logits->dim[1] != routing->n_experts)
        return em_fail(EMBER_E_SHAPE, "route_topk: %zu logits for %zu experts", logits->dim[1],
                       routing->n_experts);
    struct em_call *c = em_call_new(flow, &em_op_route_topk, EM_ROUTE_INPUTS);
    if (!c) return EMBER_E_NOMEM;
    memcpy(c->in, in, EM_ROUTE_INPUTS * sizeof *in);
    *em_attr(c, ember_topk_options) = *options;
    EM_TRY(em_record(flow, c));
    routing->k = em_route_width(c);
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    *record = (struct em_router_record){.layer = c->layer,
                                        .logits = in[LOGITS],
                                        .bias = in[BIAS],
                                        .bias_rate = options->bias_rate,
                                        .stats = c->out[STATS]};
    return EMBER_OK;
}

static ember_status route_and_dispatch(ember_flow *flow, ember_tensor *const in[EM_ROUTE_INPUTS],
                                       const ember_topk_options *options, ember_routing *routing)
{
    struct em_router_record record;
    EM_TRY(em_route_topk(flow, in, options, routing, &record));
    EM_TRY(ember_dispatch(flow, routing));
    record.routing = *routing;
    return em_flow_router(flow, &record);
}

ember_status ember_route_topk(ember_flow *flow, ember_tensor *logits, ember_tensor *bias,
                              const ember_topk_options *options, ember_routing *routing)
{
    return route_and_dispatch(flow, (ember_tensor *[EM_ROUTE_INPUTS]){logits, bias, NULL}, options,
                              routing);
}

ember_status ember_route_topk_by(ember_flow *flow, ember_tensor *logits, ember_tensor *choice,
                                 const ember_topk_options *options, ember_routing *routing)
{
    return route_and_dispatch(flow, (ember_tensor *[EM_ROUTE_INPUTS]){logits, NULL, choice},
                              options, routing);
}
