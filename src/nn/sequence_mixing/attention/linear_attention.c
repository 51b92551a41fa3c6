// Attention whose state does not grow: feature maps instead of softmax (Katharopoulos et al. 2020,
// arXiv:2006.16236), or retention, where the state fades by itself or by a gate (Sun et al. 2023,
// arXiv:2307.08621; Yang et al. 2023, arXiv:2312.06635).
#include <ember/ops.h>

#include "nn/sequence_mixing/attention/heads.h"

enum { Q = EM_HEADS_Q, K, V, O, O_BIAS = EM_HEADS_O_BIAS, DECAY, DECAY_BIAS, HEAD_NORM, GATE };
enum { DECAY_NONE, DECAY_FIXED, DECAY_GATE };
enum { ROPE_NONE, ROPE_HALF, ROPE_INTERLEAVED };

struct linear_attention {
    ember_layer base;
    size_t heads, kv_heads, head_dim;
    int feature, decay, rope;
    bool normalise, bias, head_norm, output_gate;
    float eps, norm_eps;
    double decay_first, decay_last, gate_temperature, rope_theta;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct linear_attention, heads, 8, 1, 4096, "query heads"),
    EMBER_OPT_SIZE(struct linear_attention, kv_heads, 0, 0, 4096,
                   "key and value heads, a divisor of heads; 0: as many as heads"),
    EMBER_OPT_SIZE(struct linear_attention, head_dim, 0, 0, 256,
                   "width of a head; 0: the model's width / heads"),
    EMBER_OPT_ENUM(struct linear_attention, feature, EMBER_FEATURE_ELU1, EMBER_FEATURE_CHOICES,
                   "what queries and keys go through"),
    EMBER_OPT_BOOL(
        struct linear_attention, normalise, true,
        "outputs are divided by the sum of the weights; not with feature identity, whose "
        "weights may cancel"),
    EMBER_OPT_FLOAT(struct linear_attention, eps, 1e-6, 0, 1, "added to that sum"),
    EMBER_OPT_ENUM(
        struct linear_attention, decay, DECAY_NONE, "none|fixed|gate",
        "how the state fades: not, by a factor of each head's own, or by a gate that the "
        "token sets"),
    EMBER_OPT_DOUBLE(struct linear_attention, decay_first, 5, 0.1, 60,
                     "fixed: the first head's factor is 1 - 2^-x with this x"),
    EMBER_OPT_DOUBLE(struct linear_attention, decay_last, 0, 0, 60,
                     "fixed: the last head's; between them x grows in equal steps; 0: steps of 1"),
    EMBER_OPT_DOUBLE(struct linear_attention, gate_temperature, 16, 0.01, 1e4,
                     "gate: the factor is sigmoid(gate)^(1 / this)"),
    EMBER_OPT_ENUM(struct linear_attention, rope, ROPE_NONE, "none|half|interleaved",
                   "rotary positions: which dimensions form a pair"),
    EMBER_OPT_DOUBLE(struct linear_attention, rope_theta, 1e4, 1, 1e12,
                     "base of the rotary frequencies"),
    EMBER_OPT_BOOL(struct linear_attention, head_norm, false, "RMSNorm over each head's output"),
    EMBER_OPT_FLOAT(struct linear_attention, norm_eps, 1e-5, 0, 1, "of that norm"),
    EMBER_OPT_BOOL(struct linear_attention, output_gate, false,
                   "the output is multiplied by SiLU of a projection of the layer's input"),
    EMBER_OPT_BOOL(struct linear_attention, bias, false, "biases on the four projections"),
    {0},
};

static ember_status check(struct linear_attention *a, ember_build *b)
{
    EMBER_TRY(em_heads_check(b, a->heads, &a->kv_heads, &a->head_dim));
    if (a->head_norm && a->head_dim == 1)
        return ember_build_refuse(b, "head_norm", "of a head of one element only its sign is left");
    if (a->rope != ROPE_NONE && a->head_dim % 2)
        return ember_build_refuse(b, "rope", "heads of %zu cannot be rotated in pairs",
                                  a->head_dim);
    if (a->normalise && a->feature == EMBER_FEATURE_IDENTITY)
        return ember_build_refuse(b, "normalise",
                                  "weights of feature identity may cancel, so they cannot be what "
                                  "outputs are divided by");
    if (a->decay_last == 0) a->decay_last = a->decay_first + (double)(a->kv_heads - 1);
    if (a->decay_last > 60) a->decay_last = 60;
    return EMBER_OK;
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct linear_attention *a = (struct linear_attention *)l;
    const ember_role role = EMBER_ROLE_ATTENTION;
    EMBER_TRY(check(a, b));
    const size_t D = ember_build_width(b), q = a->heads * a->head_dim;
    EMBER_TRY(em_heads_declare(l, b, a->heads, a->kv_heads, a->head_dim, a->bias));
    if (a->decay == DECAY_GATE) {
        EMBER_TRY(ember_param(b, &l->param[DECAY], "decay_proj.weight", EMBER_INIT_NORMAL, role,
                              (size_t[]){a->kv_heads, D}, 2));
        EMBER_TRY(ember_param(b, &l->param[DECAY_BIAS], "decay_proj.bias", EMBER_INIT_ZEROS, role,
                              &a->kv_heads, 1));
    }
    if (a->head_norm)
        EMBER_TRY(ember_param(b, &l->param[HEAD_NORM], "head_norm.weight", EMBER_INIT_ONES,
                              EMBER_ROLE_NORM, &a->head_dim, 1));
    if (a->output_gate)
        EMBER_TRY(ember_param(b, &l->param[GATE], "gate_proj.weight", EMBER_INIT_NORMAL, role,
                              (size_t[]){q, D}, 2));
    return EMBER_OK;
}

static ember_status turned_heads(const struct linear_attention *a, ember_flow *f, ember_tensor *x,
                                 unsigned which, ember_tensor **y)
{
    const size_t heads = which == Q ? a->heads : a->kv_heads;
    ember_tensor *h;
    EMBER_TRY(em_heads_project(&a->base, f, x, which, heads, a->head_dim, y));
    if (which == V || a->rope == ROPE_NONE) return EMBER_OK;
    const ember_rope_options rope = {.theta = a->rope_theta,
                                     .interleaved = a->rope == ROPE_INTERLEAVED};
    h = *y;
    return ember_rope(f, h, &rope, y);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct linear_attention *a = (const struct linear_attention *)l;
    ember_linear_attention_options o = {.feature = (ember_feature_map)a->feature,
                                        .normalise = a->normalise,
                                        .eps = a->eps,
                                        .gate_temperature = a->gate_temperature};
    ember_tensor *q, *k, *v, *h, *g, *decay = NULL;
    EMBER_TRY(turned_heads(a, f, x, Q, &q));
    EMBER_TRY(turned_heads(a, f, x, K, &k));
    EMBER_TRY(turned_heads(a, f, x, V, &v));
    if (a->decay == DECAY_FIXED) {
        o.decay_first = a->decay_first;
        o.decay_last = a->decay_last;
    }
    if (a->decay == DECAY_GATE)
        EMBER_TRY(ember_linear(f, x, l->param[DECAY], l->param[DECAY_BIAS], NULL, &decay));
    EMBER_TRY(ember_linear_attention(f, q, k, v, decay, &o, &h));
    if (a->head_norm) {
        EMBER_TRY(ember_rmsnorm(f, h, l->param[HEAD_NORM], a->norm_eps, &g));
        h = g;
    }
    EMBER_TRY(ember_reshape(f, h, (size_t[]){a->heads * a->head_dim}, 1, &h));
    if (a->output_gate) {
        EMBER_TRY(ember_linear(f, x, l->param[GATE], NULL, NULL, &g));
        EMBER_TRY(ember_gated(f, g, h, EMBER_SILU, &q));
        h = q;
    }
    return ember_linear(f, h, l->param[O], l->param[O_BIAS], NULL, y);
}

extern const ember_layer_type em_layer_linear_attention;
const ember_layer_type em_layer_linear_attention = {
    .name = "linear_attention",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct linear_attention),
    .options = options,
    .help = "attention with feature maps and a state of constant size, or retention. Katharopoulos "
            "et al. 2020, arXiv:2006.16236; arXiv:2307.08621",
    .build = build,
    .forward = forward,
};
