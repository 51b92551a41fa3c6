// Two-dimensional selective scan: the pixels of an image are read in four directions, each through
// a selective scan of its own, and what comes out is summed at each pixel. Liu et al. 2024,
// "VMamba: Visual State Space Model", arXiv:2401.10166.
#include <ember/ops.h>

#include <math.h>

enum { IN, CONV, CONV_BIAS, X_PROJ, DT_PROJ, DT_BIAS, A_LOGS, DS, NORM, NORM_BIAS, OUT };
enum { DIRECTIONS = 4 };

struct ss2d {
    ember_layer base;
    double ratio;
    size_t states, rank, conv, columns, inner;
    bool conv_bias, gate, stacked;
    float norm_eps;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct ss2d, ratio, 2, 0.01, 64, "inner channels for each of the model's"),
    EMBER_OPT_SIZE(struct ss2d, states, 16, 1, 256, "states of a channel in each direction"),
    EMBER_OPT_SIZE(struct ss2d, rank, 0, 0, 1 << 16,
                   "of the step sizes' projection; 0: a sixteenth of the width, rounded up"),
    EMBER_OPT_SIZE(struct ss2d, conv, 3, 1, 31,
                   "side of the depthwise convolution's window, odd; 1: there is none"),
    EMBER_OPT_BOOL(struct ss2d, conv_bias, true, "its bias"),
    EMBER_OPT_BOOL(struct ss2d, gate, true, "the output is multiplied by SiLU of a projection"),
    EMBER_OPT_BOOL(struct ss2d, stacked, false,
                   "projections of the directions are kept as [4, rows, columns]"),
    EMBER_OPT_SIZE(struct ss2d, columns, 0, 0, 1 << 20,
                   "pixels in a row of the image; 0: what the blocks before it make"),
    EMBER_OPT_FLOAT(struct ss2d, norm_eps, 1e-5, 0, 1, "of the LayerNorm on the sum"),
    {0},
};

// W ~ U(-rank^-1/2, rank^-1/2), so that step sizes start with unit variance.
static void fill_dt(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context;
    float *w = param->data;
    const double bound = 1 / sqrt((double)param->dim[param->ndim - 1]);
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++)
        w[i] = (float)(bound * (2 * ember_random_uniform(random) - 1));
}

// softplus of it is log-uniform in [0.001, 0.1].
static void fill_dt_bias(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context;
    float *b = param->data;
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++) {
        const double dt = exp(ember_random_uniform(random) * (log(0.1) - log(0.001)) + log(0.001));
        b[i] = (float)(dt + log(-expm1(-dt)));
    }
}

// A = -1, -2, .. in each channel.
static void fill_A_logs(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context, (void)random;
    float *a = param->data;
    const size_t N = param->dim[param->ndim - 1];
    for (size_t i = 0, n = ember_tensor_count(param); i < n; i++)
        a[i] = (float)log((double)(i % N + 1));
}

// [4 rows, columns], or stacked.
static ember_status of_directions(ember_build *b, const struct ss2d *s, ember_tensor **param,
                                  const char *name, size_t rows, size_t columns)
{
    const size_t flat[] = {DIRECTIONS * rows, columns}, stack[] = {DIRECTIONS, rows, columns};
    return ember_param(b, param, name, EMBER_INIT_NORMAL, EMBER_ROLE_OTHER,
                       s->stacked ? stack : flat, s->stacked ? 3 : 2);
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct ss2d *s = (struct ss2d *)l;
    const size_t D = ember_build_width(b);
    size_t rows;
    if (!s->columns) ember_build_grid(b, &rows, &s->columns);
    if (!s->columns)
        return ember_build_refuse(b, "columns",
                                  "no block before this one makes images, so it has to be said how "
                                  "many pixels are in a row");
    if (s->conv % 2 == 0) return ember_build_refuse(b, "conv", "%zu is not odd", s->conv);
    const double inner = floor(s->ratio * (double)D);
    if (inner < 1 || inner > 1 << 24)
        return ember_build_refuse(b, "ratio", "%g of %zu channels", s->ratio, D);
    s->inner = (size_t)inner;
    if (!s->rank) s->rank = (D + 15) / 16;
    const size_t E = s->inner, N = s->states, all = DIRECTIONS * E;
    ember_tensor **p = l->param;
    EMBER_TRY(ember_param(b, &p[IN], "in_proj.weight", EMBER_INIT_NORMAL, EMBER_ROLE_OTHER,
                          (size_t[]){s->gate ? 2 * E : E, D}, 2));
    if (s->conv > 1) {
        EMBER_TRY(ember_param(b, &p[CONV], "conv2d.weight", EMBER_INIT_NORMAL,
                              EMBER_ROLE_CONVOLUTION, (size_t[]){E, 1, s->conv, s->conv}, 4));
        if (s->conv_bias)
            EMBER_TRY(ember_param(b, &p[CONV_BIAS], "conv2d.bias", EMBER_INIT_ZEROS,
                                  EMBER_ROLE_CONVOLUTION, &E, 1));
    }
    EMBER_TRY(of_directions(b, s, &p[X_PROJ], "x_proj.weight", s->rank + 2 * N, E));
    EMBER_TRY(of_directions(b, s, &p[DT_PROJ], "dt_projs.weight", E, s->rank));
    ember_param_fill(b, p[DT_PROJ], &(ember_filling){.fill = fill_dt});
    EMBER_TRY(ember_param(b, &p[DT_BIAS], "dt_projs_bias", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){DIRECTIONS, E}, 2));
    ember_param_fill(b, p[DT_BIAS], &(ember_filling){.fill = fill_dt_bias, .no_decay = true});
    EMBER_TRY(ember_param(b, &p[A_LOGS], "A_logs", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){all, N}, 2));
    ember_param_fill(b, p[A_LOGS], &(ember_filling){.fill = fill_A_logs, .no_decay = true});
    EMBER_TRY(ember_param(b, &p[DS], "Ds", EMBER_INIT_ONES, EMBER_ROLE_OTHER, &all, 1));
    EMBER_TRY(ember_param(b, &p[NORM], "out_norm.weight", EMBER_INIT_ONES, EMBER_ROLE_NORM, &E, 1));
    EMBER_TRY(
        ember_param(b, &p[NORM_BIAS], "out_norm.bias", EMBER_INIT_ZEROS, EMBER_ROLE_NORM, &E, 1));
    return ember_param(b, &p[OUT], "out_proj.weight", EMBER_INIT_NORMAL, EMBER_ROLE_OTHER,
                       (size_t[]){D, E}, 2);
}

// Four selective scans of x [T, E], and their sum.
static ember_status four_scans(const struct ss2d *s, ember_flow *f, ember_tensor *x,
                               ember_tensor **y)
{
    ember_tensor *const *p = s->base.param;
    const size_t R = s->rank, N = s->states;
    ember_scan_inputs in = {.A_log = p[A_LOGS], .D = p[DS], .delta_bias = p[DT_BIAS]};
    ember_tensor *steps, *scanned;
    EMBER_TRY(ember_cross_scan(f, x, s->columns, &in.x));
    EMBER_TRY(ember_group_linear(f, in.x, p[X_PROJ], DIRECTIONS, 0, R, &steps));
    EMBER_TRY(ember_group_linear(f, in.x, p[X_PROJ], DIRECTIONS, R, R + N, &in.B));
    EMBER_TRY(ember_group_linear(f, in.x, p[X_PROJ], DIRECTIONS, R + N, R + 2 * N, &in.C));
    EMBER_TRY(ember_group_linear(f, steps, p[DT_PROJ], DIRECTIONS, 0, s->inner, &in.delta));
    EMBER_TRY(ember_selective_scan(f, &in, DIRECTIONS, &scanned));
    return ember_cross_merge(f, scanned, s->columns, y);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct ss2d *s = (const struct ss2d *)l;
    ember_tensor *const *p = l->param;
    ember_tensor *both, *u, *z = NULL, *h;
    EMBER_TRY(ember_linear(f, x, p[IN], NULL, NULL, &both));
    u = both;
    if (s->gate) {
        EMBER_TRY(ember_columns(f, both, 0, s->inner, &u));
        EMBER_TRY(ember_columns(f, both, s->inner, 2 * s->inner, &z));
    }
    if (p[CONV]) {
        EMBER_TRY(ember_depthwise_conv2d(f, u, p[CONV], p[CONV_BIAS], s->columns, &h));
        u = h;
    }
    EMBER_TRY(ember_activation(f, u, EMBER_SILU, &h));
    EMBER_TRY(four_scans(s, f, h, &u));
    EMBER_TRY(ember_layernorm(f, u, p[NORM], p[NORM_BIAS], s->norm_eps, &h));
    if (z) {
        EMBER_TRY(ember_gated(f, z, h, EMBER_SILU, &u));
        h = u;
    }
    return ember_linear(f, h, p[OUT], NULL, NULL, y);
}

extern const ember_layer_type em_layer_ss2d;
const ember_layer_type em_layer_ss2d = {
    .name = "ss2d",
    .kind = EMBER_SEQUENCE_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct ss2d),
    .options = options,
    .help = "selective scans of an image in four directions. Liu et al. 2024, arXiv:2401.10166",
    .build = build,
    .forward = forward,
};
