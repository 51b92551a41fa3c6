// Mamba: a selective state space behind a short convolution, gated. Gu and Dao 2023,
// arXiv:2312.00752.
//   [x | z] = u W_in^T, x = silu(conv(x)), [delta | B | C] = x W_x^T, dt = softplus(delta W_dt^T +
//   b) y = (scan(x, dt, A, B, C) + D x) silu(z), out = y W_out^T
#include <ember/ops.h>

#include "nn/sequence_mixing/state_space/start.h"

enum { IN, IN_BIAS, CONV, CONV_BIAS, X_PROJ, DT, DT_BIAS, A_LOG, SKIP, OUT, OUT_BIAS };
enum { DT_RANDOM, DT_CONSTANT };

struct mamba {
    ember_layer base;
    size_t d_state, d_conv, expand, d_inner, dt_rank, depth;
    double dt_min, dt_max, dt_init_floor;
    float dt_scale;
    int dt_init;
    bool conv_bias, bias;
    // How parameters start.
    float in_bound, conv_bound, x_bound, dt_bound, out_bound;
    struct em_start_steps steps;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct mamba, d_state, 16, 1, 256, "states of each channel"),
    EMBER_OPT_SIZE(struct mamba, d_conv, 4, 1, 4096,
                   "tokens that the convolution spans, the current one included"),
    EMBER_OPT_SIZE(struct mamba, expand, 2, 1, 64, "channels, as a multiple of the model's width"),
    EMBER_OPT_SIZE(struct mamba, d_inner, 0, 0, 1 << 20, "channels; 0: expand times the width"),
    EMBER_OPT_SIZE(struct mamba, dt_rank, 0, 0, 1 << 20,
                   "width of what step sizes are made from; 0: a 16th of the model's, rounded up"),
    EMBER_OPT_DOUBLE(struct mamba, dt_min, 0.001, 1e-9, 1e3,
                     "step sizes start log-uniform from this"),
    EMBER_OPT_DOUBLE(struct mamba, dt_max, 0.1, 1e-9, 1e3, "to this"),
    EMBER_OPT_DOUBLE(struct mamba, dt_init_floor, 1e-4, 0, 1e3, "and none below this"),
    EMBER_OPT_ENUM(struct mamba, dt_init, DT_RANDOM, "random|constant",
                   "how the step projection's weights start: uniform within, or all equal to, "
                   "dt_scale / sqrt(dt_rank)"),
    EMBER_OPT_FLOAT(struct mamba, dt_scale, 1, 0, 1e3, "of these weights"),
    EMBER_OPT_BOOL(struct mamba, conv_bias, true, "bias of the convolution"),
    EMBER_OPT_BOOL(struct mamba, bias, false, "biases on the projections in and out"),
    EMBER_OPT_SIZE(struct mamba, depth, 0, 0, 4096,
                   "the output projection's start is divided by the square root of this (the "
                   "model's blocks); 0: it is not"),
    {0},
};

static void constant(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    float *w = param->data;
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++)
        w[i] = *(const float *)context;
}

static ember_status check(struct mamba *m, ember_build *b)
{
    const size_t width = ember_build_width(b);
    if (!m->d_inner) m->d_inner = m->expand * width;
    if (!m->dt_rank) m->dt_rank = (width + 15) / 16;
    if (m->dt_min > m->dt_max)
        return ember_build_refuse(b, "dt_max", "%g is below dt_min, %g", m->dt_max, m->dt_min);
    m->in_bound = em_start_bound(width);
    m->conv_bound = em_start_bound(m->d_conv);
    m->x_bound = em_start_bound(m->d_inner);
    m->dt_bound = m->dt_scale * em_start_bound(m->dt_rank);
    m->out_bound = m->x_bound * (m->depth ? em_start_bound(m->depth) : 1);
    // A step whose softplus cannot be inverted in f32 would start at minus infinity.
    m->steps = (struct em_start_steps){m->dt_min, m->dt_max,
                                       m->dt_init_floor > 1e-30 ? m->dt_init_floor : 1e-30};
    return EMBER_OK;
}

static ember_status param(struct mamba *m, ember_build *b, unsigned which, const char *name,
                          const float *bound, const size_t *dim, unsigned ndim)
{
    ember_tensor **p = &m->base.param[which];
    EMBER_TRY(ember_param(b, p, name, EMBER_INIT_ZEROS, EMBER_ROLE_CONVOLUTION, dim, ndim));
    if (bound)
        ember_param_fill(b, *p, &(ember_filling){.fill = em_start_uniform, .context = bound});
    return EMBER_OK;
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct mamba *m = (struct mamba *)l;
    EMBER_TRY(check(m, b));
    const size_t D = ember_build_width(b), E = m->d_inner, E2 = 2 * E, N = m->d_state,
                 R = m->dt_rank;
    EMBER_TRY(param(m, b, IN, "in_proj.weight", &m->in_bound, (size_t[]){E2, D}, 2));
    if (m->bias) EMBER_TRY(param(m, b, IN_BIAS, "in_proj.bias", &m->in_bound, &E2, 1));
    EMBER_TRY(param(m, b, CONV, "conv1d.weight", &m->conv_bound, (size_t[]){E, m->d_conv}, 2));
    if (m->conv_bias) EMBER_TRY(param(m, b, CONV_BIAS, "conv1d.bias", &m->conv_bound, &E, 1));
    EMBER_TRY(param(m, b, X_PROJ, "x_proj.weight", &m->x_bound, (size_t[]){R + 2 * N, E}, 2));
    EMBER_TRY(param(m, b, DT, "dt_proj.weight", &m->dt_bound, (size_t[]){E, R}, 2));
    if (m->dt_init == DT_CONSTANT)
        ember_param_fill(b, l->param[DT],
                         &(ember_filling){.fill = constant, .context = &m->dt_bound});
    EMBER_TRY(param(m, b, DT_BIAS, "dt_proj.bias", NULL, &E, 1));
    ember_param_fill(b, l->param[DT_BIAS],
                     &(ember_filling){.fill = em_start_step_biases, .context = &m->steps});
    EMBER_TRY(ember_param(b, &l->param[A_LOG], "A_log", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){E, N}, 2));
    ember_param_fill(b, l->param[A_LOG],
                     &(ember_filling){.fill = em_start_rates, .no_decay = true});
    EMBER_TRY(ember_param(b, &l->param[SKIP], "D", EMBER_INIT_ONES, EMBER_ROLE_OTHER, &E, 1));
    EMBER_TRY(param(m, b, OUT, "out_proj.weight", &m->out_bound, (size_t[]){D, E}, 2));
    return m->bias ? param(m, b, OUT_BIAS, "out_proj.bias", &m->x_bound, &D, 1) : EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *u, ember_tensor **y)
{
    const struct mamba *m = (const struct mamba *)l;
    const size_t E = m->d_inner, N = m->d_state, R = m->dt_rank;
    ember_tensor *xz, *x, *made, *low, *scanned;
    ember_scan_inputs in = {
        .A_log = l->param[A_LOG], .D = l->param[SKIP], .delta_bias = l->param[DT_BIAS]};
    EMBER_TRY(ember_linear(f, u, l->param[IN], l->param[IN_BIAS], NULL, &xz));
    EMBER_TRY(ember_columns(f, xz, 0, E, &x));
    EMBER_TRY(ember_columns(f, xz, E, 2 * E, &in.z));
    EMBER_TRY(ember_depthwise_conv(f, x, l->param[CONV], l->param[CONV_BIAS], EMBER_SILU, &in.x));
    EMBER_TRY(ember_linear(f, in.x, l->param[X_PROJ], NULL, NULL, &made));
    EMBER_TRY(ember_columns(f, made, 0, R, &low));
    EMBER_TRY(ember_columns(f, made, R, R + N, &in.B));
    EMBER_TRY(ember_columns(f, made, R + N, R + 2 * N, &in.C));
    EMBER_TRY(ember_linear(f, low, l->param[DT], NULL, NULL, &in.delta));
    EMBER_TRY(ember_selective_scan(f, &in, 1, &scanned));
    return ember_linear(f, scanned, l->param[OUT], l->param[OUT_BIAS], NULL, y);
}

extern const ember_layer_type em_layer_mamba;
const ember_layer_type em_layer_mamba = {
    .name = "mamba",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct mamba),
    .options = options,
    .help = "selective state space behind a short convolution (Mamba). arXiv:2312.00752",
    .build = build,
    .forward = forward,
};
