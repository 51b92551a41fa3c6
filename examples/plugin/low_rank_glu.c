// A gated feed-forward layer whose three matrices are bottlenecks, each W x = B act(A x) of rank r:
// about half the weights and operations of SwiGLU at r = D/4. Liu et al. 2025, "CoLA:
// Compute-Efficient Pre-Training of LLMs via Low-Rank Activation", arXiv:2502.10940.
#include <ember/ops.h>

struct low_rank_glu {
    ember_layer base; // param: gate, up, down, each [r, in] and then [out, r]
    size_t hidden, rank;
    int gate, inner;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct low_rank_glu, hidden, 0, 0, 1 << 20,
                   "width of the gated middle; 0: 8/3 of the model's width"),
    EMBER_OPT_SIZE(struct low_rank_glu, rank, 0, 0, 1 << 16,
                   "of each matrix; 0: a quarter of the model's width, at least 1"),
    EMBER_OPT_ENUM(struct low_rank_glu, gate, EMBER_SILU, EMBER_ACTIVATION_CHOICES, "of the gate"),
    EMBER_OPT_ENUM(struct low_rank_glu, inner, EMBER_SILU, EMBER_ACTIVATION_CHOICES,
                   "between the two halves of a matrix"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    static const char *const in[] = {"gate_in.weight", "up_in.weight", "down_in.weight"};
    static const char *const out[] = {"gate_out.weight", "up_out.weight", "down_out.weight"};
    const struct low_rank_glu *g = (const struct low_rank_glu *)l;
    const size_t D = ember_build_width(b), F = g->hidden ? g->hidden : (8 * D + 2) / 3,
                 R = g->rank ? g->rank : (D + 3) / 4;
    for (unsigned i = 0; i < 3; i++) {
        const size_t from = i == 2 ? F : D, to = i == 2 ? D : F;
        EMBER_TRY(ember_param(b, &l->param[2 * i], in[i], EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){R, from}, 2));
        EMBER_TRY(ember_param(b, &l->param[2 * i + 1], out[i], EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){to, R}, 2));
    }
    return EMBER_OK;
}

static ember_status bottleneck(const ember_layer *l, ember_flow *f, ember_tensor *x, unsigned i,
                               ember_tensor **y)
{
    const struct low_rank_glu *g = (const struct low_rank_glu *)l;
    ember_tensor *narrow, *active;
    EMBER_TRY(ember_linear(f, x, l->param[2 * i], NULL, NULL, &narrow));
    EMBER_TRY(ember_activation(f, narrow, (ember_activation_kind)g->inner, &active));
    return ember_linear(f, active, l->param[2 * i + 1], NULL, NULL, y);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct low_rank_glu *g = (const struct low_rank_glu *)l;
    ember_tensor *gate, *up, *middle;
    EMBER_TRY(bottleneck(l, f, x, 0, &gate));
    EMBER_TRY(bottleneck(l, f, x, 1, &up));
    EMBER_TRY(ember_gated(f, gate, up, (ember_activation_kind)g->gate, &middle));
    return bottleneck(l, f, middle, 2, y);
}

extern const ember_layer_type example_low_rank_glu;
const ember_layer_type example_low_rank_glu = {
    .name = "low_rank_glu",
    .kind = EMBER_CHANNEL_MIXER,
    .flags = EMBER_GROUPABLE,
    .size = sizeof(struct low_rank_glu),
    .options = options,
    .help = "SwiGLU of bottlenecks: each matrix is B act(A x). arXiv:2502.10940",
    .build = build,
    .forward = forward,
};
