// Mamba-2: heads with one decay rate each, as state space duality computes them. Dao and Gu 2024,
// arXiv:2405.21060.
//   [z | xBC | dt] = u W_in^T, [x | B | C] = silu(conv(xBC)), y = scan(x, dt, A, B, C) + D x
//   out = norm(y silu(z)) W_out^T, the norm over each group's channels
#include <ember/ops.h>

#include <math.h>

#include "nn/sequence_mixing/state_space/start.h"

enum { IN, IN_BIAS, CONV, CONV_BIAS, DT_BIAS, A_LOG, SKIP, NORM, OUT, OUT_BIAS };

struct mamba2 {
    ember_layer base;
    size_t d_state, d_conv, expand, d_inner, head_dim, groups, depth;
    double dt_min, dt_max, dt_init_floor, dt_limit_min, dt_limit_max, a_init_min, a_init_max;
    float norm_eps;
    bool conv_bias, bias;
    size_t heads, mixed; // mixed: channels that the convolution sees
    // How parameters start.
    float in_bound, conv_bound, inner_bound, out_bound;
    struct em_start_steps steps;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct mamba2, d_state, 128, 1, 4096, "states of each channel"),
    EMBER_OPT_SIZE(struct mamba2, d_conv, 4, 1, 4096,
                   "tokens that the convolution spans, the current one included"),
    EMBER_OPT_SIZE(struct mamba2, expand, 2, 1, 64, "channels, as a multiple of the model's width"),
    EMBER_OPT_SIZE(struct mamba2, d_inner, 0, 0, 1 << 20, "channels; 0: expand times the width"),
    EMBER_OPT_SIZE(struct mamba2, head_dim, 64, 1, 1 << 16, "channels of a head"),
    EMBER_OPT_SIZE(struct mamba2, groups, 1, 1, 4096,
                   "of heads, a divisor of their number: each has its own B, C and norm"),
    EMBER_OPT_DOUBLE(struct mamba2, dt_min, 0.001, 1e-9, 1e3,
                     "step sizes start log-uniform from this"),
    EMBER_OPT_DOUBLE(struct mamba2, dt_max, 0.1, 1e-9, 1e3, "to this"),
    EMBER_OPT_DOUBLE(struct mamba2, dt_init_floor, 1e-4, 0, 1e3, "and none below this"),
    EMBER_OPT_DOUBLE(struct mamba2, dt_limit_min, 0, 0, 1e3, "steps are never below this"),
    EMBER_OPT_DOUBLE(struct mamba2, dt_limit_max, 0, 0, 1e9, "nor above this; 0: no limit"),
    EMBER_OPT_DOUBLE(struct mamba2, a_init_min, 1, 1e-6, 1e6,
                     "decay rates start uniform from this"),
    EMBER_OPT_DOUBLE(struct mamba2, a_init_max, 16, 1e-6, 1e6, "to this"),
    EMBER_OPT_FLOAT(struct mamba2, norm_eps, 1e-5, 0, 1, "of the gated norm"),
    EMBER_OPT_BOOL(struct mamba2, conv_bias, true, "bias of the convolution"),
    EMBER_OPT_BOOL(struct mamba2, bias, false, "biases on the projections in and out"),
    EMBER_OPT_SIZE(struct mamba2, depth, 0, 0, 4096,
                   "the output projection's start is divided by the square root of this (the "
                   "model's blocks); 0: it is not"),
    {0},
};

static void start_rates(const void *context, ember_random *random, ember_tensor *param)
{
    const struct mamba2 *m = context;
    float *w = param->data;
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++)
        w[i] = (float)log(m->a_init_min +
                          (m->a_init_max - m->a_init_min) * ember_random_uniform(random));
}

static ember_status check(struct mamba2 *m, ember_build *b)
{
    const size_t width = ember_build_width(b);
    if (!m->d_inner) m->d_inner = m->expand * width;
    if (m->d_inner % m->head_dim)
        return ember_build_refuse(b, "head_dim", "%zu does not divide the %zu channels",
                                  m->head_dim, m->d_inner);
    m->heads = m->d_inner / m->head_dim;
    if (m->heads % m->groups)
        return ember_build_refuse(b, "groups", "%zu does not divide the %zu heads", m->groups,
                                  m->heads);
    if (m->dt_min > m->dt_max)
        return ember_build_refuse(b, "dt_max", "%g is below dt_min, %g", m->dt_max, m->dt_min);
    if (m->dt_limit_max > 0 && m->dt_limit_min > m->dt_limit_max)
        return ember_build_refuse(b, "dt_limit_max", "%g is below dt_limit_min, %g",
                                  m->dt_limit_max, m->dt_limit_min);
    if (m->a_init_min > m->a_init_max)
        return ember_build_refuse(b, "a_init_max", "%g is below a_init_min, %g", m->a_init_max,
                                  m->a_init_min);
    m->mixed = m->d_inner + 2 * m->groups * m->d_state;
    m->in_bound = em_start_bound(width);
    m->conv_bound = em_start_bound(m->d_conv);
    m->inner_bound = em_start_bound(m->d_inner);
    m->out_bound = m->inner_bound * (m->depth ? em_start_bound(m->depth) : 1);
    m->steps = (struct em_start_steps){m->dt_min, m->dt_max,
                                       m->dt_init_floor > 1e-30 ? m->dt_init_floor : 1e-30};
    return EMBER_OK;
}

static ember_status param(struct mamba2 *m, ember_build *b, unsigned which, const char *name,
                          const float *bound, const size_t *dim, unsigned ndim)
{
    ember_tensor **p = &m->base.param[which];
    EMBER_TRY(ember_param(b, p, name, EMBER_INIT_ZEROS, EMBER_ROLE_CONVOLUTION, dim, ndim));
    ember_param_fill(b, *p, &(ember_filling){.fill = em_start_uniform, .context = bound});
    return EMBER_OK;
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct mamba2 *m = (struct mamba2 *)l;
    EMBER_TRY(check(m, b));
    const size_t D = ember_build_width(b), E = m->d_inner, H = m->heads, rows = E + m->mixed + H;
    const ember_role other = EMBER_ROLE_OTHER;
    EMBER_TRY(param(m, b, IN, "in_proj.weight", &m->in_bound, (size_t[]){rows, D}, 2));
    if (m->bias) EMBER_TRY(param(m, b, IN_BIAS, "in_proj.bias", &m->in_bound, &rows, 1));
    EMBER_TRY(
        param(m, b, CONV, "conv1d.weight", &m->conv_bound, (size_t[]){m->mixed, m->d_conv}, 2));
    if (m->conv_bias)
        EMBER_TRY(param(m, b, CONV_BIAS, "conv1d.bias", &m->conv_bound, &m->mixed, 1));
    EMBER_TRY(ember_param(b, &l->param[DT_BIAS], "dt_bias", EMBER_INIT_ZEROS, other, &H, 1));
    ember_param_fill(b, l->param[DT_BIAS],
                     &(ember_filling){.fill = em_start_step_biases, .context = &m->steps});
    EMBER_TRY(ember_param(b, &l->param[A_LOG], "A_log", EMBER_INIT_ZEROS, other, &H, 1));
    ember_param_fill(b, l->param[A_LOG],
                     &(ember_filling){.fill = start_rates, .context = m, .no_decay = true});
    EMBER_TRY(ember_param(b, &l->param[SKIP], "D", EMBER_INIT_ONES, other, &H, 1));
    EMBER_TRY(
        ember_param(b, &l->param[NORM], "norm.weight", EMBER_INIT_ONES, EMBER_ROLE_NORM, &E, 1));
    EMBER_TRY(param(m, b, OUT, "out_proj.weight", &m->out_bound, (size_t[]){D, E}, 2));
    return m->bias ? param(m, b, OUT_BIAS, "out_proj.bias", &m->inner_bound, &D, 1) : EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *u, ember_tensor **y)
{
    const struct mamba2 *m = (const struct mamba2 *)l;
    const size_t E = m->d_inner, GN = m->groups * m->d_state;
    const size_t parts[] = {m->groups, E / m->groups};
    ember_tensor *made, *z, *mixed, *scanned, *gated;
    ember_ssd_inputs in = {
        .A_log = l->param[A_LOG], .D = l->param[SKIP], .dt_bias = l->param[DT_BIAS]};
    EMBER_TRY(ember_linear(f, u, l->param[IN], l->param[IN_BIAS], NULL, &made));
    EMBER_TRY(ember_columns(f, made, 0, E, &z));
    EMBER_TRY(ember_columns(f, made, E, E + m->mixed, &mixed));
    EMBER_TRY(ember_columns(f, made, E + m->mixed, E + m->mixed + m->heads, &in.dt));
    EMBER_TRY(
        ember_depthwise_conv(f, mixed, l->param[CONV], l->param[CONV_BIAS], EMBER_SILU, &mixed));
    EMBER_TRY(ember_columns(f, mixed, 0, E, &in.x));
    EMBER_TRY(ember_columns(f, mixed, E, E + GN, &in.B));
    EMBER_TRY(ember_columns(f, mixed, E + GN, E + 2 * GN, &in.C));
    EMBER_TRY(ember_ssd(f, &in,
                        &(ember_ssd_options){.heads = m->heads,
                                             .groups = m->groups,
                                             .dt_min = m->dt_limit_min,
                                             .dt_max = m->dt_limit_max},
                        &scanned));
    EMBER_TRY(ember_gated(f, z, scanned, EMBER_SILU, &gated));
    EMBER_TRY(ember_reshape(f, gated, parts, 2, &gated));
    EMBER_TRY(ember_rmsnorm(f, gated, l->param[NORM], m->norm_eps, &gated));
    EMBER_TRY(ember_reshape(f, gated, &E, 1, &gated));
    return ember_linear(f, gated, l->param[OUT], l->param[OUT_BIAS], NULL, y);
}

extern const ember_layer_type em_layer_mamba2;
const ember_layer_type em_layer_mamba2 = {
    .name = "mamba2",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct mamba2),
    .options = options,
    .help = "state space duality: heads of one decay rate each (Mamba-2). arXiv:2405.21060",
    .build = build,
    .forward = forward,
};
