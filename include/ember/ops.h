/**
 * @file ops.h  Operations: what layers compose. Each call records one operation on the flow; *y is
 * a new tensor owned by the flow, valid until it is closed. All activations are f32; rows are
 * tokens.
 *
 * Every function returns EMBER_E_SHAPE when shapes do not fit (the message names the operation and
 * both shapes) and EMBER_E_NOMEM.
 */
#ifndef EMBER_OPS_H
#define EMBER_OPS_H

#include <ember/layer.h>
#include <ember/ops_recurrent.h>
#include <ember/ops_routing.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The batch's tokens looked up in `table` [V, D]: y [T, D]. Looking up row `frozen_row` gives that
 * row no gradient (the padding token of models from elsewhere); -1: none.
 */
EMBER_API EMBER_CHECKED ember_status ember_embedding(ember_flow *flow, ember_tensor *table,
                                                     ptrdiff_t frozen_row, ember_tensor **y);

/** The batch's `inputs` [T, D]. */
EMBER_API EMBER_CHECKED ember_status ember_inputs(ember_flow *flow, size_t width, ember_tensor **y);

/** y [T, N] = x [T, K] w^T + bias + residual; w [N, K]; bias [N] and residual [T, N] may be NULL.
 */
EMBER_API EMBER_CHECKED ember_status ember_linear(ember_flow *flow, ember_tensor *x,
                                                  ember_tensor *w, ember_tensor *bias,
                                                  ember_tensor *residual, ember_tensor **y);

/** As ember_linear, always in f32 (router logits). */
EMBER_API EMBER_CHECKED ember_status ember_linear_f32(ember_flow *flow, ember_tensor *x,
                                                      ember_tensor *w, ember_tensor *bias,
                                                      ember_tensor **y);

/** y = x / sqrt(mean(x^2) + eps) * w over the last axis; w has its length, or that of a whole row
 * of x: then every part [G] of [T, G, K] has weights of its own. Zhang and Sennrich 2019,
 * arXiv:1910.07467.
 */
EMBER_API EMBER_CHECKED ember_status ember_rmsnorm(ember_flow *flow, ember_tensor *x,
                                                   ember_tensor *w, float eps, ember_tensor **y);

/** y = (x - mean) / sqrt(var + eps) * w + b; b may be NULL. Ba, Kiros and Hinton 2016,
 * arXiv:1607.06450. */
EMBER_API EMBER_CHECKED ember_status ember_layernorm(ember_flow *flow, ember_tensor *x,
                                                     ember_tensor *w, ember_tensor *b, float eps,
                                                     ember_tensor **y);

typedef enum ember_activation_kind {
    EMBER_IDENTITY,
    EMBER_RELU,
    EMBER_RELU2,     /**< relu(x)^2; So et al. 2021, arXiv:2109.08668 */
    EMBER_SILU,      /**< x sigmoid(x); Elfwing et al. 2017, arXiv:1702.03118 */
    EMBER_GELU,      /**< x Phi(x), exact; Hendrycks and Gimpel 2016, arXiv:1606.08415 */
    EMBER_GELU_TANH, /**< its tanh approximation */
    EMBER_SIGMOID,
    EMBER_TANH
} ember_activation_kind;
/** The names, in the order of the enum, as an option's choices: "identity|relu|...". */
#define EMBER_ACTIVATION_CHOICES "identity|relu|relu2|silu|gelu|gelu_tanh|sigmoid|tanh"

EMBER_API EMBER_CHECKED ember_status ember_activation(ember_flow *flow, ember_tensor *x,
                                                      ember_activation_kind kind, ember_tensor **y);

/** y = act(g) * u, elementwise: SwiGLU with SILU, GeGLU with GELU (Shazeer 2020, arXiv:2002.05202),
 * an output gate with SIGMOID. */
EMBER_API EMBER_CHECKED ember_status ember_gated(ember_flow *flow, ember_tensor *g, ember_tensor *u,
                                                 ember_activation_kind kind, ember_tensor **y);

/** y [.., H, K] = act(g) * u, one value of g [.., H] for each row of u: a gate per head. */
EMBER_API EMBER_CHECKED ember_status ember_gate_rows(ember_flow *flow, ember_tensor *g,
                                                     ember_tensor *u, ember_activation_kind kind,
                                                     ember_tensor **y);

/** y = a + b. */
EMBER_API EMBER_CHECKED ember_status ember_add(ember_flow *flow, ember_tensor *a, ember_tensor *b,
                                               ember_tensor **y);
/** y = a * factor. */
EMBER_API EMBER_CHECKED ember_status ember_scale(ember_flow *flow, ember_tensor *a, float factor,
                                                 ember_tensor **y);

/** Zeros with probability p in training (scaled by 1 / (1 - p)), else x itself. Srivastava et al.
 * 2014. */
EMBER_API EMBER_CHECKED ember_status ember_dropout(ember_flow *flow, ember_tensor *x, float p,
                                                   ember_tensor **y);

/** The same elements with further dimensions `dim` after the rows: [T, H*K] as [T, H, K]. No work,
 * no copy. */
EMBER_API EMBER_CHECKED ember_status ember_reshape(ember_flow *flow, ember_tensor *x,
                                                   const size_t *dim, unsigned ndim,
                                                   ember_tensor **y);
/** Columns [begin, end) of x [T, N]: a view with x's row stride. */
EMBER_API EMBER_CHECKED ember_status ember_columns(ember_flow *flow, ember_tensor *x, size_t begin,
                                                   size_t end, ember_tensor **y);

/** Rotary positions. Su et al. 2021, arXiv:2104.09864. Pair i turns by position * theta^(-2i /
 * rotary). */
typedef struct ember_rope_options {
    double theta;        /**< base of the frequencies */
    size_t rotary;       /**< leading dimensions of a head that rotate; even; 0: all */
    size_t active_pairs; /**< pairs past this one stand still ("proportional"); 0: all rotary / 2
                            turn */
    bool interleaved;    /**< pairs (2i, 2i+1); otherwise (i, i + rotary/2) */
    double factor;       /**< of positions: frequencies are divided by it (linear scaling); 0: 1 */
    /** Llama-3: only long wavelengths are divided by `factor`, smoothly between two bounds. All >
     * 0, or all 0. */
    double low_frequency_factor, high_frequency_factor, original_context;
} ember_rope_options;

/** x [T, H, K] rotated by each token's position in its sequence (states included). */
EMBER_API EMBER_CHECKED ember_status ember_rope(ember_flow *flow, ember_tensor *x,
                                                const ember_rope_options *options,
                                                ember_tensor **y);

typedef struct ember_attention_options {
    double scale;  /**< of the scores; 0: K^-0.5 */
    size_t window; /**< a token sees itself and the window - 1 tokens before it; 0: all */
} ember_attention_options;

/**
 * Causal attention within each sequence, y [T, H, K]. q [T, H, K], k and v [T, G, K], H a multiple
 * of G (grouped queries, Ainslie et al. 2023, arXiv:2305.13245): query head h reads key head h / (H
 * / G). Memory is linear in T (Dao et al. 2022, arXiv:2205.14135). Keeps keys and values in the
 * state.
 */
EMBER_API EMBER_CHECKED ember_status ember_attention(ember_flow *flow, ember_tensor *q,
                                                     ember_tensor *k, ember_tensor *v,
                                                     const ember_attention_options *options,
                                                     ember_tensor **y);

/**
 * LFM2's gated short convolution: bcx [T, 3D] = [B | C | X], u = B * X,
 * y[t] = C[t] * (sum_j w[:, j] u[t - (L-1) + j] + bias), w [D, L], bias [D] or NULL; u before the
 * start is 0, or what the state kept.
 */
EMBER_API EMBER_CHECKED ember_status ember_short_conv(ember_flow *flow, ember_tensor *bcx,
                                                      ember_tensor *w, ember_tensor *bias,
                                                      ember_tensor **y);

/**
 * The plain causal depthwise convolution: y[t] = act(sum_j w[:, j] x[t - (L-1) + j] + bias), x
 * [T, D], w [D, L] (its last tap is the current token's), bias [D] or NULL; x before the start is
 * 0, or what the state kept. EMBER_IDENTITY: no activation.
 */
EMBER_API EMBER_CHECKED ember_status ember_depthwise_conv(ember_flow *flow, ember_tensor *x,
                                                          ember_tensor *w, ember_tensor *bias,
                                                          ember_activation_kind activation,
                                                          ember_tensor **y);
/** What linear attention makes of queries and keys. */
typedef enum ember_feature_map {
    EMBER_FEATURE_IDENTITY, /**< x itself */
    EMBER_FEATURE_ELU1,     /**< elu(x) + 1; Katharopoulos et al. 2020, arXiv:2006.16236 */
    EMBER_FEATURE_RELU,
    EMBER_FEATURE_SOFTMAX /**< exp(x) over its sum within the head; Shen et al. 2018,
                             arXiv:1812.01243 */
} ember_feature_map;
/** The names, in the order of the enum, as an option's choices. */
#define EMBER_FEATURE_CHOICES "identity|elu1|relu|softmax"

/** Start from {0}. */
typedef struct ember_linear_attention_options {
    ember_feature_map feature;
    bool normalise; /**< y is divided by the weights' sum + eps */
    float eps;
    double scale; /**< of the queries' features; 0: 1 where normalised, else K^-0.5 */
    /** The state of key head g fades by 1 - 2^-x a token, x from decay_first (g = 0) to decay_last
     * (g = G - 1) in equal steps, in (0, 60]; 0: it does not. Not used with a gate. */
    double decay_first, decay_last;
    double gate_temperature; /**< with a gate: it fades by sigmoid(gate)^(1 / this); 0: 16 */
} ember_linear_attention_options;

/**
 * Attention with a state of constant size: y_t = f(q_t) S_t, y [T, H, V], with S_t = a_t S_{t-1} +
 * f(k_t) v_t^T for each head of keys; or that divided by f(q_t) z_t + eps, z_t = a_t z_{t-1} +
 * f(k_t). q [T, H, K], k [T, G, K], v [T, G, V], H a multiple of G as in ember_attention(); gate
 * [T, G] or NULL makes the decay a. Feature maps: Katharopoulos et al. 2020, arXiv:2006.16236;
 * retention (no feature map, not normalised, fixed decays): Sun et al. 2023, arXiv:2307.08621;
 * gates: Yang et al. 2023, arXiv:2312.06635. Time is linear in T. Keeps G K (V + 1) floats, or
 * G K V, in the state. EMBER_E_RANGE for options outside their range.
 */
EMBER_API EMBER_CHECKED ember_status ember_linear_attention(
    ember_flow *flow, ember_tensor *q, ember_tensor *k, ember_tensor *v, ember_tensor *gate,
    const ember_linear_attention_options *options, ember_tensor **y);
/** How ember_fft_conv() convolves. Start from {0}: a zero field means the default. */
typedef struct ember_fft_conv_options {
    /** NULL: causal. Otherwise a kernel of k's shape for later tokens: two-sided, with lag 0 in
     * both (its two values add up). */
    ember_tensor *k_rev;
    bool tap_rows;   /**< kernels are [L_k, D/head_dim], a row a lag, as operations make them; their
                        rows may be strided. Otherwise contiguous [D/head_dim, L_k] */
    size_t taps;     /**< only lags 0 .. taps - 1 (a partial kernel); 0: all L_k */
    bool circular;   /**< the past comes round: the sequence repeats with `period` */
    size_t period;   /**< of a circular one; 0, or less than the sequence's length: that length */
    size_t head_dim; /**< of H3's outer product; 0: 1, channel by channel */
    bool gelu;       /**< act is the exact GELU; otherwise the identity */
    float dropout;   /**< in training, the chance of a channel to be zero all along a sequence; the
                        others are divided by 1 - dropout */
    bool exact;      /**< outputs keep every bit whatever comes later: see below */
} ember_fft_conv_options;

/**
 * Long convolution of each sequence: v = u * pre_gate,
 *   y[t] = post_gate[t] * act(sum_j k[j] v[t - j] + skip * v[t]),
 * over all tokens of the sequence before t, by fast Fourier transforms: O(T log T). All of u,
 * pre_gate, post_gate and y are [T, D]; gates and skip may be NULL. k has L_k lags, any number;
 * what lies further back counts as 0. Gradients go to every tensor. Poli et al. 2023, "Hyena
 * Hierarchy", arXiv:2302.10866; Fu et al. 2023, "FlashFFTConv", arXiv:2311.05908.
 *
 * With head_dim d, H3's outer product (Fu et al. 2022, arXiv:2212.14052): kernels and skip [D/d]
 * belong to heads of d channels, both gates are needed, and channel j of a head is
 *   y_j = sum_i post_i * act(conv(u_i pre_j) + skip u_i pre_j).
 *
 * Causal ones keep a state: what was seen, and what it will add to tokens to come, for which work
 * is done in blocks of 1, 2, 4, ... tokens (an online convolution), so L tokens one by one take O(L
 * log^2 L). The state grows with the tokens, up to L_k of them.
 *
 * A transform rounds, and its rounding reaches everywhere: a later token changes earlier outputs by
 * some 1e-7 of the largest value that there is. With `exact` it changes none, at about the price of
 * decoding: tokens meet in direct sums, or in blocks of which one ends before the other begins.
 *
 * @retval EMBER_E_RANGE  a causal option for a convolution that is not, or dropout outside [0, 1).
 */
EMBER_API EMBER_CHECKED ember_status ember_fft_conv(ember_flow *flow,
                                                    const ember_fft_conv_options *options,
                                                    ember_tensor *u, ember_tensor *k,
                                                    ember_tensor *skip, ember_tensor *pre_gate,
                                                    ember_tensor *post_gate, ember_tensor **y);

/**
 * A kernel with its lowest frequencies alone: k [H, L], a parameter of at most fft_size lags,
 * padded to fft_size (a power of two), of whose fft_size / 2 + 1 frequencies the first
 * `frequencies` are left. Such a kernel also answers before an impulse: y and later, [H, fft_size /
 * 2], are the k and k_rev of a two-sided ember_fft_conv() (later has 0 at lag 0). Sequences of up
 * to fft_size / 2 tokens are then convolved as by a product of spectra of fft_size values. Fu et
 * al. 2023, "FlashFFTConv", arXiv:2311.05908.
 *
 * @retval EMBER_E_RANGE  another fft_size, or no frequencies.
 */
EMBER_API EMBER_CHECKED ember_status ember_frequency_sparse(ember_flow *flow, ember_tensor *k,
                                                            size_t fft_size, size_t frequencies,
                                                            ember_tensor **y, ember_tensor **later);

/** What a selective scan reads: E channels in `groups` alike parts, N states each. */
typedef struct ember_scan_inputs {
    ember_tensor *x;          /**< [T, E] */
    ember_tensor *delta;      /**< [T, E]: step sizes, before bias and softplus */
    ember_tensor *A_log;      /**< [E, N], a parameter: A = -exp(A_log) */
    ember_tensor *B, *C;      /**< [T, groups * N]: a group's channels share N of them */
    ember_tensor *D;          /**< [E], a parameter, or NULL */
    ember_tensor *delta_bias; /**< [E], a parameter, or NULL */
    ember_tensor *z;          /**< [T, E]: y is multiplied by silu(z); or NULL */
} ember_scan_inputs;

/**
 * Mamba's selective scan, y [T, E]. Channel by channel, with dt = softplus(delta + delta_bias) and
 * N states h: h[t] = exp(dt A) h[t-1] + dt x[t] B[t], y[t] = (h[t] . C[t] + D x[t]) silu(z[t]). h
 * before the start is 0, or what the state kept. N is at most 256. Rows may also be the pixels of
 * images, which keep no state. Gu and Dao 2023, arXiv:2312.00752.
 */
EMBER_API EMBER_CHECKED ember_status ember_selective_scan(ember_flow *flow,
                                                          const ember_scan_inputs *in,
                                                          size_t groups, ember_tensor **y);
/** y [T, D], row t the mean of its sequence's rows up to t. Keeps D floats in the state. */
EMBER_API EMBER_CHECKED ember_status ember_running_mean(ember_flow *flow, ember_tensor *x,
                                                        ember_tensor **y);

/** The most layers of sines that a filter's network may have. */
#define EMBER_FILTER_HIDDEN 16

/** A filter as a function of the position. All tensors are parameters. */
typedef struct ember_filter_network {
    ember_tensor *z;                               /**< [L, E]: what stands for each position */
    ember_tensor *t;                               /**< [L, 1]: its time */
    ember_tensor *deltas;                          /**< [C]: rates of decay, without gradient */
    ember_tensor *frequency;                       /**< [W]: of all sines */
    ember_tensor *skip;                            /**< [C], added to row 0; or NULL */
    ember_tensor *weight[EMBER_FILTER_HIDDEN + 1]; /**< [W, E], [W, W] .. [C, W] */
    ember_tensor *bias[EMBER_FILTER_HIDDEN];       /**< [W] */
    size_t hidden;                                 /**< layers of sines */
    float shift;                                   /**< added to the decaying window */
    bool normalise; /**< each row is divided by the sum of its magnitudes */
} ember_filter_network;

/**
 * The filter of a long convolution: k [n, C], at most L rows: as many as the batch's furthest
 * sequence has tokens, its state's included, and twice as many where it leaves a state.
 * h = z W_0^T + b_0; h = sin(frequency h) W_i^T + b_i; m = sin(frequency h) W^T;
 * k[i][c] = m[i][c] (exp(-t_i |deltas_c|) + shift). Poli et al. 2023, arXiv:2302.10866. Where
 * tokens come in small parts, rows are computed once for as long as the parameters stay as they
 * are. EMBER_E_RANGE for another number of layers.
 */
EMBER_API EMBER_CHECKED ember_status ember_implicit_filter(ember_flow *flow,
                                                           const ember_filter_network *network,
                                                           ember_tensor **k);
/** y = x * w + b, each column by itself: w, b [D]. */
EMBER_API EMBER_CHECKED ember_status ember_column_affine(ember_flow *flow, ember_tensor *x,
                                                         ember_tensor *w, ember_tensor *b,
                                                         ember_tensor **y);

/** What stands for a whole sequence. */
typedef enum ember_pool {
    EMBER_POOL_FIRST,
    EMBER_POOL_LAST,
    EMBER_POOL_MEAN,
    EMBER_POOL_SUM
} ember_pool;

/** y [S, D]: the first or the last of each sequence's rows, their mean or their sum. */
EMBER_API EMBER_CHECKED ember_status ember_sequence_pool(ember_flow *flow, ember_tensor *x,
                                                         ember_pool pool, ember_tensor **y);

/** y [S, D]: the mean of each sequence's rows, its tokens or the pixels of its image. */
EMBER_API EMBER_CHECKED ember_status ember_sequence_mean(ember_flow *flow, ember_tensor *x,
                                                         ember_tensor **y);

/** A matrix for each sequence, made by the model itself: x [T, I], m [S, O I] (a row holds [O, I]),
 * y [T, O] with y_t = m_s x_t. Always in f32. */
EMBER_API EMBER_CHECKED ember_status ember_sequence_linear(ember_flow *flow, ember_tensor *x,
                                                           ember_tensor *m, ember_tensor **y);

/** Zeros all of a sequence's rows with probability p in training (scaled by 1 / (1 - p)), else x
 * itself. Stochastic depth: Huang et al. 2016, arXiv:1603.09382. */
EMBER_API EMBER_CHECKED ember_status ember_drop_path(ember_flow *flow, ember_tensor *x, float p,
                                                     ember_tensor **y);

/** Products of groups of columns: x [T, G K], w [G, P, K] (or [G P, K]), y [T, G (end - begin)]
 * with y_g = x_g w_g[begin..end]^T; begin < end <= P. Always in f32. */
EMBER_API EMBER_CHECKED ember_status ember_group_linear(ember_flow *flow, ember_tensor *x,
                                                        ember_tensor *w, size_t groups,
                                                        size_t begin, size_t end, ember_tensor **y);

/* ---- Images: sequences whose rows are pixels, one row of the image after the other ---- */

/**
 * An image in four reading directions: x [T, E] to y [T, 4 E]. Direction k's columns hold in row i
 * the pixel that it visits as its i-th: 0 goes along the rows, 1 down the columns, 2 and 3 are 0
 * and 1 backwards. A sequence of n pixels has ceil(n / columns) rows; the last may be short. Not
 * causal. Liu et al. 2024, arXiv:2401.10166.
 */
EMBER_API EMBER_CHECKED ember_status ember_cross_scan(ember_flow *flow, ember_tensor *x,
                                                      size_t columns, ember_tensor **y);
/** Its adjoint: y [T, 4 E] to x [T, E], each pixel the sum of its four visits. */
EMBER_API EMBER_CHECKED ember_status ember_cross_merge(ember_flow *flow, ember_tensor *y,
                                                       size_t columns, ember_tensor **x);

/** Depthwise convolution over images with zeros around them: x [T, E], w [E, 1, k, k] with k odd,
 * bias [E] or NULL, y [T, E]. */
EMBER_API EMBER_CHECKED ember_status ember_depthwise_conv2d(ember_flow *flow, ember_tensor *x,
                                                            ember_tensor *w, ember_tensor *bias,
                                                            size_t columns, ember_tensor **y);

typedef struct ember_conv2d_options {
    size_t rows, columns;   /**< of x's images: every sequence has rows * columns pixels */
    size_t stride, padding; /**< padding: zeros on each side, fewer than k */
} ember_conv2d_options;

/** Convolution over images: x [T, I], w [O, I, k, k], bias [O] or NULL, y [T', O] with (rows + 2
 * padding - k) / stride + 1 rows of (columns + 2 padding - k) / stride + 1 pixels each. */
EMBER_API EMBER_CHECKED ember_status ember_conv2d(ember_flow *flow, ember_tensor *x,
                                                  ember_tensor *w, ember_tensor *bias,
                                                  const ember_conv2d_options *options,
                                                  ember_tensor **y);

/** Each 2 x 2 pixels become one: x [T, C] to y [T', 4 C] on ceil(rows / 2) x ceil(columns / 2), in
 * the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column), zeros where there is no pixel. */
EMBER_API EMBER_CHECKED ember_status ember_space_to_depth(ember_flow *flow, ember_tensor *x,
                                                          size_t rows, size_t columns,
                                                          ember_tensor **y);

/** What Mamba-2's scan reads: H heads of width P in G groups, N states. */
typedef struct ember_ssd_inputs {
    ember_tensor *x;       /**< [T, H P] */
    ember_tensor *dt;      /**< [T, H]: step sizes, before bias and softplus */
    ember_tensor *A_log;   /**< [H], a parameter: A = -exp(A_log) */
    ember_tensor *B, *C;   /**< [T, G N]: a group's heads share N of them */
    ember_tensor *D;       /**< [H], a parameter, or NULL */
    ember_tensor *dt_bias; /**< [H], a parameter, or NULL */
} ember_ssd_inputs;

/** Start from {0}. */
typedef struct ember_ssd_options {
    size_t heads, groups;  /**< groups 0: 1 */
    double dt_min, dt_max; /**< steps are cut to these after softplus; dt_max 0: no limit */
} ember_ssd_options;

/**
 * Mamba-2's scan (state space duality), y [T, H P]. Head by head, with dt = softplus(dt + dt_bias)
 * and a state h [N, P]: h[t] = exp(dt A) h[t-1] + dt B[t] x[t]^T, y[t] = C[t] h[t] + D x[t]; in
 * chunks, by matrix products. h before the start is 0, or what the state kept. Dao and Gu 2024,
 * arXiv:2405.21060. EMBER_E_RANGE for limits that no step fits.
 */
EMBER_API EMBER_CHECKED ember_status ember_ssd(ember_flow *flow, const ember_ssd_inputs *in,
                                               const ember_ssd_options *options, ember_tensor **y);

/* ---- Outputs and losses ---- */

/** The last row of each sequence: y [S, D]. */
EMBER_API EMBER_CHECKED ember_status ember_last_rows(ember_flow *flow, ember_tensor *x,
                                                     ember_tensor **y);

/**
 * loss [1] = loss_scale * sum of -log softmax(x w^T + bias)[target] over the batch's scored tokens,
 * in nats; x [T, D], w [V, D]. Never holds [T, V]. nll [T] (0 where not scored) if not NULL. Its
 * gradient is computed in forward. x may have a row for each sequence, [S, D]: the target of such a
 * row is that of the sequence's last place, and nll is [S].
 */
EMBER_API EMBER_CHECKED ember_status ember_cross_entropy(ember_flow *flow, ember_tensor *x,
                                                         ember_tensor *w, ember_tensor *bias,
                                                         ember_tensor **loss, ember_tensor **nll);

/**
 * The same, and right [T] (I32; [S] for a row of each sequence): 1 where no logit is larger than
 * that of the target. Told in passes without gradients; elsewhere, and where nothing is scored, 0.
 */
EMBER_API EMBER_CHECKED ember_status ember_cross_entropy_right(ember_flow *flow, ember_tensor *x,
                                                               ember_tensor *w, ember_tensor *bias,
                                                               ember_tensor **loss,
                                                               ember_tensor **nll,
                                                               ember_tensor **right);

/** loss [1] = loss_scale * sum over rows of the mean of their squares. */
EMBER_API EMBER_CHECKED ember_status ember_mean_square(ember_flow *flow, ember_tensor *x,
                                                       ember_tensor **loss);

/** x [T, M] with rows of tokens or sequences. error [T] = the mean over a row of (x - value)^2, the
 * values [T, M] being the trainer's; loss [1] = loss_scale * their sum. */
EMBER_API EMBER_CHECKED ember_status ember_squared_error(ember_flow *flow, ember_tensor *x,
                                                         ember_tensor **loss, ember_tensor **error);

#ifdef __cplusplus
}
#endif
#endif
