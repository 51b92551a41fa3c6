/**
 * @file ops_routing.h  Operations of mixtures of experts: logits become choices and weights, tokens
 * go to experts and come back. As in <ember/ops.h>, which includes this file: each call records one
 * operation, *y is a new tensor owned by the flow, and EMBER_E_SHAPE says what does not fit.
 */
#ifndef EMBER_OPS_ROUTING_H
#define EMBER_OPS_ROUTING_H

#include <ember/layer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The most experts that a token may go to. */
#define EMBER_TOPK_MAX 256

typedef enum ember_score {
    EMBER_SCORE_SOFTMAX_SELECTED, /**< softmax over the chosen k logits */
    EMBER_SCORE_SOFTMAX_ALL, /**< softmax over all experts, the chosen ones' values (renormalised if
                                asked) */
    EMBER_SCORE_SIGMOID,     /**< each expert by itself */
    EMBER_SCORE_SQRT_SOFTPLUS /**< each by itself: the root of log(1 + e^h) */
} ember_score;

typedef struct ember_topk_options {
    size_t k;
    ember_score score;
    bool renormalise; /**< weights are divided by their sum (+ eps) */
    float eps;        /**< added to that sum */
    float scale;      /**< of the weights; 0: 1 */
    float
        aux_coefficient; /**< Switch balance loss (Fedus et al. 2021, arXiv:2101.03961), 0: none;
                            minimum 1 at uniform, per layer, f divided by k, over the whole batch */
    float z_coefficient; /**< router z-loss (Zoph et al. 2022, arXiv:2202.08906) */
    float bias_rate; /**< the trainer moves `bias` by this much a step towards balance (Wang et al.
                        2024, arXiv:2408.15664); 0: not */
    float top_p;     /**< a token takes only as many of the k as it needs for this share of its
                        scores; 0: all k */
    unsigned groups, keep_groups; /**< experts in `groups` equal groups, of which a token uses the
                                     keep_groups best; 0: no groups (DeepSeek-AI 2024,
                                     arXiv:2412.19437) */
    unsigned group_top;           /**< a group counts the sum of its so many best values */
    unsigned k_first, k_steps; /**< in training k goes from k_first to k in k_steps updates; 0: it
                                  does not */
} ember_topk_options;

/**
 * Chooses k of E experts for each token. logits [T, E]; bias [E] or NULL is added to the scores for
 * the choice only, and has no gradient. Ties go to the lowest index. Fills routing->weights and
 * ->indices, and records the dispatch (ember_dispatch).
 */
EMBER_API EMBER_CHECKED ember_status ember_route_topk(ember_flow *flow, ember_tensor *logits,
                                                      ember_tensor *bias,
                                                      const ember_topk_options *options,
                                                      ember_routing *routing);

/** y = x times a factor of its own for each element, uniform in [1 - eps, 1 + eps), in training; x
 * otherwise. Fedus et al. 2021, arXiv:2101.03961. */
EMBER_API EMBER_CHECKED ember_status ember_jitter(ember_flow *flow, ember_tensor *x, float eps,
                                                  ember_tensor **y);

/**
 * y [T, E] = h + noise * (softplus(s) + 0.01) in training, h otherwise; h and s [T, E], noise
 * normal. The load loss, load_coefficient times the squared variation of the experts' smooth loads
 * when k of them are chosen by y, adds its gradients to h and s. value [1], if not NULL, is that
 * loss without coefficient. Shazeer et al. 2017, arXiv:1701.06538.
 */
EMBER_API EMBER_CHECKED ember_status ember_noisy_logits(ember_flow *flow, ember_tensor *h,
                                                        ember_tensor *s, size_t k,
                                                        float load_coefficient, ember_tensor **y,
                                                        ember_tensor **value);

/** y [T, E] = exp(min(log_scale, limit)) times the cosine of z [T, P] and w [E, P], both activation
 * and parameter; log_scale [1]. Rows of zeros have a cosine of 0. */
EMBER_API EMBER_CHECKED ember_status ember_cosine_logits(ember_flow *flow, ember_tensor *z,
                                                         ember_tensor *w, ember_tensor *log_scale,
                                                         float limit, ember_tensor **y);

/** y [T, E] = log softmax(outer [T, G])[g] + log softmax of inner [T, E] within group g of e: the
 * logarithms of P(group) P(expert | group), G equal groups of neighbouring experts. */
EMBER_API EMBER_CHECKED ember_status ember_hierarchical_logits(ember_flow *flow,
                                                               ember_tensor *outer,
                                                               ember_tensor *inner,
                                                               ember_tensor **y);

/** y [T, F], F even: sines and cosines of each token's position in its sequence, at F / 2 wave
 * lengths from 2 pi to 2 pi * longest, in geometric steps. */
EMBER_API EMBER_CHECKED ember_status ember_position_features(ember_flow *flow, size_t features,
                                                             float longest, ember_tensor **y);

/** y [T, E], in training: exp(logits) scaled by rows and columns until every token gives and every
 * expert gets an equal share (Sinkhorn's iteration, to a change of `tolerance`); otherwise the
 * logits. No gradient: for choosing by. Of the whole batch. */
EMBER_API EMBER_CHECKED ember_status ember_sinkhorn(ember_flow *flow, ember_tensor *logits,
                                                    float tolerance, size_t iterations,
                                                    ember_tensor **y);

/** As ember_route_topk(), but the choice is by `choice` [T, E] (no gradient), the weights by
 * logits. */
EMBER_API EMBER_CHECKED ember_status ember_route_topk_by(ember_flow *flow, ember_tensor *logits,
                                                         ember_tensor *choice,
                                                         const ember_topk_options *options,
                                                         ember_routing *routing);

/** What makes an expert active. */
typedef enum ember_activity {
    EMBER_ACTIVITY_RELU,    /**< relu(h) above 0 (Wang et al. 2024, arXiv:2412.14711) */
    EMBER_ACTIVITY_SIGMOID, /**< sigmoid(h) above the expert's threshold */
    EMBER_ACTIVITY_SOFTMAX  /**< softmax(h) above the expert's threshold */
} ember_activity;

typedef struct ember_activity_options {
    size_t k; /**< experts that a token should use in the mean: what the trainer aims at */
    ember_activity kind;
    bool renormalise;     /**< weights are divided by their sum */
    float scale;          /**< of the weights; 0: 1 */
    float threshold_rate; /**< of the trainer's moving mean of thresholds; 0: they stay */
} ember_activity_options;

/**
 * A token goes to every expert that is active for it, K = E: some, all or none. threshold [E]
 * (NULL: zeros) and sparsity [1] (NULL: none), the coefficient of the loss that makes relu's scores
 * sparse, are buffers that the trainer moves.
 */
EMBER_API EMBER_CHECKED ember_status ember_route_active(ember_flow *flow, ember_tensor *logits,
                                                        ember_tensor *threshold,
                                                        ember_tensor *sparsity,
                                                        const ember_activity_options *options,
                                                        ember_routing *routing);

/** Each expert takes the ceil(factor * L / E) tokens of a sequence of L that score best with it.
 * Zhou et al. 2022, arXiv:2202.09368. Looks at later tokens. */
EMBER_API EMBER_CHECKED ember_status ember_route_expert_choice(ember_flow *flow,
                                                               ember_tensor *logits, float factor,
                                                               ember_routing *routing);

/** By token id: table [V, K] holds experts' numbers (other values: none). x [T, D] has the batch's
 * tokens' rows. Roller et al. 2021, arXiv:2106.04426. */
EMBER_API EMBER_CHECKED ember_status ember_route_table(ember_flow *flow, ember_tensor *x,
                                                       ember_tensor *table, ember_routing *routing);
/** By position: `span` tokens to the first expert, the next to the second, ..., from the start. */
EMBER_API EMBER_CHECKED ember_status ember_route_position(ember_flow *flow, ember_tensor *x,
                                                          size_t span, ember_routing *routing);
/** By the sequence's label (ember_batch.labels): its expert. Without one in [0, E): all experts
 * alike, or the first. */
EMBER_API EMBER_CHECKED ember_status ember_route_label(ember_flow *flow, ember_tensor *x,
                                                       bool unlabelled_use_all,
                                                       ember_routing *routing);

/** What ember_router_loss() is about. */
typedef enum ember_router_loss_kind {
    EMBER_LOSS_IMPORTANCE, /**< squared variation of the experts' summed weights (Shazeer et al.
                              2017, arXiv:1701.06538) */
    EMBER_LOSS_SEQUENCE,   /**< the balance loss E sum f P of each sequence, and their mean */
    EMBER_LOSS_INFORMATION /**< mean entropy of tokens minus the entropy of their mean (Shen et al.
                              2023, arXiv:2306.04640) */
} ember_router_loss_kind;

/** routing->weights pass unchanged; in backward the loss's gradient, times coefficient, goes to
 * them (importance) or to logits [T, E], whose scores `score` tells. value [1], if not NULL: the
 * loss without coefficient. Before ember_dispatch(). */
EMBER_API EMBER_CHECKED ember_status ember_router_loss(ember_flow *flow,
                                                       ember_router_loss_kind kind,
                                                       ember_tensor *logits, ember_score score,
                                                       float coefficient, ember_routing *routing,
                                                       ember_tensor **value);

/** In training an expert takes at most ceil(factor * T * K / E) choices of a batch (at least 1),
 * the earliest tokens' or, by_weight, those of tokens with the largest weights; others go nowhere.
 * Before ember_dispatch(). */
EMBER_API EMBER_CHECKED ember_status ember_capacity(ember_flow *flow, float factor, bool by_weight,
                                                    ember_routing *routing);

/** Sorts the (token, choice) pairs by expert, stably: routing->plan from ->indices. Last, for
 * routers that fill indices themselves. */
EMBER_API EMBER_CHECKED ember_status ember_dispatch(ember_flow *flow, ember_routing *routing);

/**
 * y [rows, N], in the plan's order: each row times its expert's matrix, w [E, N, M], plus bias [E,
 * N] or NULL. x is [T, M] (rows are gathered by the plan) when `gather`, else [rows, M] already in
 * the plan's order. There are T*K rows, or fewer where choices go nowhere.
 */
EMBER_API EMBER_CHECKED ember_status ember_grouped_linear(ember_flow *flow, ember_tensor *x,
                                                          ember_tensor *w, ember_tensor *bias,
                                                          const ember_routing *routing, bool gather,
                                                          ember_tensor **y);

/**
 * Until ember_experts_end(), ember_linear() with weights [E, N, M] is ember_grouped_linear() by
 * `routing`; x [T, M] itself is gathered, what was computed from it is in the plan's order already.
 */
EMBER_API void ember_experts_begin(ember_flow *flow, const ember_routing *routing,
                                   const ember_tensor *x);
EMBER_API void ember_experts_end(ember_flow *flow);

/** The rows of x [T, M] that the plan gives to `expert`: y [n, M], n known at run time. */
EMBER_API EMBER_CHECKED ember_status ember_expert_rows(ember_flow *flow, ember_tensor *x,
                                                       const ember_routing *routing, size_t expert,
                                                       ember_tensor **y);

/** rows[e] [n_e, M] of every expert (NULL: that expert's rows are zeros), one after the other: y
 * [T*K, M]. */
EMBER_API EMBER_CHECKED ember_status ember_gather_experts(ember_flow *flow,
                                                          ember_tensor *const *rows,
                                                          const ember_routing *routing,
                                                          size_t width, ember_tensor **y);

/** y [T, M] = sum over a token's k choices of weight * row; rows [T*K, M] in the plan's order. */
EMBER_API EMBER_CHECKED ember_status ember_weighted_sum(ember_flow *flow, ember_tensor *rows,
                                                        const ember_routing *routing,
                                                        ember_tensor **y);

/** y [T, M] = the plain sum of a token's rows, whatever their weights. */
EMBER_API EMBER_CHECKED ember_status ember_expert_sum(ember_flow *flow, ember_tensor *rows,
                                                      const ember_routing *routing,
                                                      ember_tensor **y);

/** y [T, K*M]: a token's rows times their weights, side by side in the order of its choices. */
EMBER_API EMBER_CHECKED ember_status ember_rank_concat(ember_flow *flow, ember_tensor *rows,
                                                       const ember_routing *routing,
                                                       ember_tensor **y);

/* ---- Soft mixtures: Puigcerver et al. 2023, arXiv:2308.00951 ---- */

/**
 * logits [T, E*J] for J slots of each expert. slots [rows, D], by expert, then sequence, then slot:
 * each the mean of its sequence's rows of x [T, D] with the softmax over its tokens as weights.
 * Fills routing->plan for them: what experts compute of slots runs by it, as of routed rows.
 */
EMBER_API EMBER_CHECKED ember_status ember_soft_slots(ember_flow *flow, ember_tensor *x,
                                                      ember_tensor *logits, size_t slots,
                                                      ember_routing *routing, ember_tensor **y);

/** y [T, D]: each token's mean of its sequence's rows (slots that experts have changed), with the
 * softmax over slots as weights. */
EMBER_API EMBER_CHECKED ember_status ember_soft_sum(ember_flow *flow, ember_tensor *rows,
                                                    ember_tensor *logits, size_t slots,
                                                    const ember_routing *routing, ember_tensor **y);

/* ---- Experts of whole sequences ---- */

/** What a sequence is judged by. */
typedef enum ember_sequence_route {
    EMBER_BY_FIRST, /**< its first token; later parts of a sequence go the same way */
    EMBER_BY_MEAN,  /**< the mean of its tokens: not causal */
    EMBER_BY_LABEL  /**< ember_batch.labels; the first expert where there is none in [0, E) */
} ember_sequence_route;

/** Each sequence goes to the k experts of its largest softmax scores; logits [T, E] (NULL by
 * label). Fills routing, whose weights and indices have a row for each sequence. */
EMBER_API EMBER_CHECKED ember_status ember_route_sequences(ember_flow *flow, ember_tensor *logits,
                                                           ember_sequence_route by, size_t k,
                                                           bool renormalise,
                                                           ember_routing *routing);

/** Until ember_sequences_end(), what is recorded runs for the sequences of `expert` alone, as if
 * they were the batch. First comes ember_expert_sequences(): the rows of x [T, D] that are theirs.
 */
EMBER_API void ember_sequences_begin(ember_flow *flow, const ember_routing *routing, size_t expert);
EMBER_API void ember_sequences_end(ember_flow *flow);
EMBER_API EMBER_CHECKED ember_status ember_expert_sequences(ember_flow *flow, ember_tensor *x,
                                                            ember_tensor **y);

/** y [T, D]: for each token of x the sum of its sequence's weights times what its experts made of
 * it; rows[e] as expert e left them. */
EMBER_API EMBER_CHECKED ember_status ember_merge_sequences(ember_flow *flow, ember_tensor *x,
                                                           ember_tensor *const *rows,
                                                           const ember_routing *routing,
                                                           ember_tensor **y);

#ifdef __cplusplus
}
#endif
#endif
