// Causal softmax attention with grouped queries, rotary positions, and the variants of today's
// models: norms on queries and keys, a sliding window, a sigmoid gate on the output. Vaswani et al.
// 2017, arXiv:1706.03762; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
#include <ember/ops.h>

#include "nn/sequence_mixing/attention/heads.h"

enum { Q = EM_HEADS_Q, K, V, O, O_BIAS = EM_HEADS_O_BIAS, Q_NORM, K_NORM, GATE };
enum { GATE_NONE, GATE_HEAD, GATE_ELEMENT };
enum { ROPE_NONE, ROPE_HALF, ROPE_INTERLEAVED };
enum { SCALING_NONE, SCALING_LINEAR, SCALING_LLAMA3 };

struct attention {
    ember_layer base;
    size_t heads, kv_heads, head_dim, window;
    bool bias, qk_norm;
    float norm_eps;
    int output_gate, rope, rope_scaling;
    double rope_theta;
    size_t rope_dim, rope_pairs;
    double rope_factor, rope_low_factor, rope_high_factor, rope_original_context;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct attention, heads, 8, 1, 4096, "query heads"),
    EMBER_OPT_SIZE(struct attention, kv_heads, 0, 0, 4096,
                   "key and value heads, a divisor of heads; 0: as many as heads"),
    EMBER_OPT_SIZE(struct attention, head_dim, 0, 0, 256,
                   "width of a head; 0: the model's width / heads"),
    EMBER_OPT_SIZE(struct attention, window, 0, 0, 1 << 30,
                   "tokens a token sees, itself included; 0: all before it"),
    EMBER_OPT_BOOL(struct attention, bias, false, "biases on the four projections"),
    EMBER_OPT_BOOL(struct attention, qk_norm, false, "RMSNorm over each head's queries and keys"),
    EMBER_OPT_FLOAT(struct attention, norm_eps, 1e-5, 0, 1, "of those norms"),
    EMBER_OPT_ENUM(
        struct attention, output_gate, GATE_NONE, "none|head|element",
        "sigmoid gate on the output, from the layer's input: a value per head or per element"),
    EMBER_OPT_ENUM(struct attention, rope, ROPE_HALF, "none|half|interleaved",
                   "rotary positions: which dimensions form a pair"),
    EMBER_OPT_DOUBLE(struct attention, rope_theta, 1e4, 1, 1e12, "base of the rotary frequencies"),
    EMBER_OPT_SIZE(struct attention, rope_dim, 0, 0, 256,
                   "leading dimensions of a head that rotate, even; 0: all"),
    EMBER_OPT_SIZE(struct attention, rope_pairs, 0, 0, 128,
                   "pairs past this one stand still; 0: all turn"),
    EMBER_OPT_ENUM(struct attention, rope_scaling, SCALING_NONE, "none|linear|llama3",
                   "how positions are stretched past the trained context"),
    EMBER_OPT_DOUBLE(struct attention, rope_factor, 1, 1e-6, 1e6, "linear, llama3: the stretch"),
    EMBER_OPT_DOUBLE(struct attention, rope_low_factor, 1, 1e-6, 1e6,
                     "llama3: wavelengths over original context / this are stretched"),
    EMBER_OPT_DOUBLE(struct attention, rope_high_factor, 4, 1e-6, 1e6,
                     "llama3: wavelengths under original context / this are not"),
    EMBER_OPT_DOUBLE(struct attention, rope_original_context, 8192, 1, 1e9,
                     "llama3: the context it was trained with"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct attention *a = (struct attention *)l;
    EMBER_TRY(em_heads_check(b, a->heads, &a->kv_heads, &a->head_dim));
    const size_t rotary = a->rope_dim ? a->rope_dim : a->head_dim;
    if (a->rope != ROPE_NONE && (rotary % 2 || rotary > a->head_dim))
        return ember_build_refuse(b, a->rope_dim ? "rope_dim" : "head_dim",
                                  "%zu cannot be rotated in pairs within a head of %zu", rotary,
                                  a->head_dim);
    if (a->rope_pairs > rotary / 2)
        return ember_build_refuse(b, "rope_pairs", "there are only %zu pairs", rotary / 2);
    if (a->rope_scaling == SCALING_LLAMA3 && a->rope_low_factor >= a->rope_high_factor)
        return ember_build_refuse(b, "rope_low_factor", "%g has to be below rope_high_factor, %g",
                                  a->rope_low_factor, a->rope_high_factor);

    EMBER_TRY(em_heads_declare(l, b, a->heads, a->kv_heads, a->head_dim, a->bias));
    if (a->qk_norm) {
        EMBER_TRY(ember_param(b, &l->param[Q_NORM], "q_norm.weight", EMBER_INIT_ONES,
                              EMBER_ROLE_NORM, &a->head_dim, 1));
        EMBER_TRY(ember_param(b, &l->param[K_NORM], "k_norm.weight", EMBER_INIT_ONES,
                              EMBER_ROLE_NORM, &a->head_dim, 1));
    }
    if (a->output_gate == GATE_NONE) return EMBER_OK;
    const size_t gates = a->output_gate == GATE_HEAD ? a->heads : a->heads * a->head_dim;
    return ember_param(b, &l->param[GATE], "gate_proj.weight", EMBER_INIT_NORMAL,
                       EMBER_ROLE_ATTENTION, (size_t[]){gates, ember_build_width(b)}, 2);
}

// x W^T as heads [T, H, K], normalised and rotated where asked.
static ember_status turned_heads(const struct attention *a, ember_flow *f, ember_tensor *x,
                                 unsigned which, size_t heads, ember_tensor **y)
{
    const ember_layer *l = &a->base;
    ember_tensor *n;
    EMBER_TRY(em_heads_project(l, f, x, which, heads, a->head_dim, y));
    if (which == V) return EMBER_OK;
    if (a->qk_norm) {
        EMBER_TRY(ember_rmsnorm(f, *y, l->param[which == Q ? Q_NORM : K_NORM], a->norm_eps, &n));
        *y = n;
    }
    if (a->rope == ROPE_NONE) return EMBER_OK;
    ember_rope_options rope = {
        .theta = a->rope_theta, .rotary = a->rope_dim, .active_pairs = a->rope_pairs};
    rope.interleaved = a->rope == ROPE_INTERLEAVED;
    if (a->rope_scaling != SCALING_NONE) rope.factor = a->rope_factor;
    if (a->rope_scaling == SCALING_LLAMA3) {
        rope.low_frequency_factor = a->rope_low_factor;
        rope.high_frequency_factor = a->rope_high_factor;
        rope.original_context = a->rope_original_context;
    }
    EMBER_TRY(ember_rope(f, *y, &rope, &n));
    *y = n;
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct attention *a = (const struct attention *)l;
    ember_tensor *q, *k, *v, *o, *g, *gated;
    EMBER_TRY(turned_heads(a, f, x, Q, a->heads, &q));
    EMBER_TRY(turned_heads(a, f, x, K, a->kv_heads, &k));
    EMBER_TRY(turned_heads(a, f, x, V, a->kv_heads, &v));
    EMBER_TRY(ember_attention(f, q, k, v, &(ember_attention_options){.window = a->window}, &o));
    if (a->output_gate == GATE_HEAD) {
        EMBER_TRY(ember_linear(f, x, l->param[GATE], NULL, NULL, &g));
        EMBER_TRY(ember_gate_rows(f, g, o, EMBER_SIGMOID, &gated));
        o = gated;
    }
    EMBER_TRY(ember_reshape(f, o, (size_t[]){a->heads * a->head_dim}, 1, &o));
    if (a->output_gate == GATE_ELEMENT) {
        EMBER_TRY(ember_linear(f, x, l->param[GATE], NULL, NULL, &g));
        EMBER_TRY(ember_gated(f, g, o, EMBER_SIGMOID, &gated));
        o = gated;
    }
    return ember_linear(f, o, l->param[O], l->param[O_BIAS], NULL, y);
}

extern const ember_layer_type em_layer_attention;
const ember_layer_type em_layer_attention = {
    .name = "attention",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct attention),
    .options = options,
    .help = "causal softmax attention with grouped queries. Vaswani et al. 2017, arXiv:1706.03762; "
            "arXiv:2305.13245",
    .build = build,
    .forward = forward,
};
