// Long convolution with a learned kernel, between gates that are projections of the input as well:
//   [u | pre | post] = x W_in^T, y = (post act(conv(u pre, k) + skip u pre)) W_out^T.
// Fu et al. 2023, "Simple Hardware-Efficient Long Convolutions for Sequence Modeling",
// arXiv:2302.06646; with head_dim > 1 the outer product of H3, Fu et al. 2022, arXiv:2212.14052.
#include <math.h>

#include <ember/ops.h>

enum { NONE = 0, PRE = 1, POST = 2, BOTH = 3 };
enum { KERNEL, LATER, SKIP, IN, IN_BIAS, OUT, OUT_BIAS };

struct fftconv {
    ember_layer base; // param: kernel and later_kernel [heads, lags], D [heads], in_proj, out_proj,
                      // and their biases
    size_t fft_size, head_dim, lags, frequencies;
    int gating, activation, precision;
    bool skip, projections, bias, exact;
    float dropout;
};

// Of every form.
#define FORM_OPTIONS                                                                               \
    EMBER_OPT_SIZE(struct fftconv, fft_size, 2048, 1, 1u << 26,                                    \
                   "length of the transform that the kernel fills by half: it has fft_size / 2 "   \
                   "lags, rounded up; sequences may be longer"),                                   \
        EMBER_OPT_SIZE(                                                                            \
            struct fftconv, head_dim, 1, 1, 256,                                                   \
            "channels of a head that share a kernel and meet in an outer product (H3); 1: "        \
            "each channel by itself; more need gating both"),                                      \
        EMBER_OPT_ENUM(struct fftconv, gating, BOTH, "none|pre|post|both",                         \
                       "products with projections of the input before and after the convolution"), \
        EMBER_OPT_ENUM(struct fftconv, activation, 0, "identity|gelu",                             \
                       "of the convolution's output, before the gate; gelu is the exact one"),     \
        EMBER_OPT_FLOAT(struct fftconv, dropout, 0, 0, 0.99,                                       \
                        "in training, the chance of a channel to be zero all along a sequence"),   \
        EMBER_OPT_ENUM(struct fftconv, precision, 0, "f32", "of the transforms"),                  \
        EMBER_OPT_BOOL(struct fftconv, skip, true,                                                 \
                       "a learned share of the input beside the kernel"),                          \
        EMBER_OPT_BOOL(struct fftconv, projections, true,                                          \
                       "linear maps before and after; without them gating is none"),               \
        EMBER_OPT_BOOL(struct fftconv, bias, false, "biases on the projections")

static const ember_option causal_options[] = {
    FORM_OPTIONS,
    EMBER_OPT_BOOL(
        struct fftconv, exact, false,
        "later tokens change no bit of earlier outputs, where transforms let them change "
        "some 1e-7; several times slower"),
    {0},
};

static const ember_option options[] = {FORM_OPTIONS, {0}};

static const ember_option sparse_options[] = {
    FORM_OPTIONS,
    EMBER_OPT_SIZE(
        struct fftconv, frequencies, 0, 0, 1u << 25,
        "of the kernel's fft_size / 2 + 1, a power of two then, the lowest that are left; "
        "0: fft_size / 8"),
    {0},
};

extern const ember_layer_type em_layer_fftconv, em_layer_fftconv_two_sided,
    em_layer_fftconv_circular, em_layer_fftconv_sparse;

// Each head fades at its own rate, from a few tokens to the whole kernel, and has the energy of
// one.
static void fill_kernel(const void *context, ember_random *random, ember_tensor *k)
{
    const struct fftconv *f = context;
    const size_t heads = k->dim[k->ndim - 2], lags = f->lags;
    float *to = k->data;
    for (size_t i = 0; i < ember_tensor_count(k); i++) {
        const double place = heads > 1 ? (double)(i / lags % heads) / (double)(heads - 1) : 0.5;
        const double slowest = fmax(2, (double)lags / 3), time = 2 * pow(slowest / 2, place);
        to[i] =
            (float)(ember_random_normal(random) * exp(-(double)(i % lags) / time) * sqrt(2 / time));
    }
}

static void fill_skip(const void *context, ember_random *random, ember_tensor *skip)
{
    (void)context;
    float *to = skip->data;
    for (size_t i = 0; i < ember_tensor_count(skip); i++)
        to[i] = (float)ember_random_normal(random);
}

static size_t gates_of(const struct fftconv *f)
{
    return f->gating == BOTH ? 2 : f->gating != NONE;
}

static ember_status declare(ember_layer *l, ember_build *b, unsigned i, const char *name,
                            ember_init init, const size_t *dim, unsigned ndim)
{
    return ember_param(b, &l->param[i], name, init, EMBER_ROLE_CONVOLUTION, dim, ndim);
}

static ember_status declare_kernel(ember_layer *l, ember_build *b, unsigned i, const char *name,
                                   size_t heads)
{
    const struct fftconv *f = (const struct fftconv *)l;
    EMBER_TRY(declare(l, b, i, name, EMBER_INIT_NORMAL, (size_t[]){heads, f->lags}, 2));
    ember_param_fill(b, l->param[i],
                     &(ember_filling){.fill = fill_kernel, .context = f, .no_decay = true});
    return EMBER_OK;
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct fftconv *f = (struct fftconv *)l;
    const size_t D = ember_build_width(b);
    if (D % f->head_dim)
        return ember_build_refuse(b, "head_dim", "%zu does not divide the width %zu", f->head_dim,
                                  D);
    if (!f->projections) f->gating = NONE;
    if (f->head_dim > 1 && f->gating != BOTH)
        return ember_build_refuse(b, "head_dim", "%zu needs gating both, and projections",
                                  f->head_dim);
    f->lags = (f->fft_size + 1) / 2;
    if (l->type == &em_layer_fftconv_sparse) {
        if (f->fft_size & (f->fft_size - 1))
            return ember_build_refuse(b, "fft_size", "%zu is not a power of two", f->fft_size);
        if (f->frequencies > f->fft_size / 2)
            return ember_build_refuse(b, "frequencies", "%zu are all that a kernel of %zu lags has",
                                      f->frequencies, f->lags);
        if (!f->frequencies) f->frequencies = f->fft_size < 16 ? 1 : f->fft_size / 8;
    }
    if (l->type != &em_layer_fftconv && f->lags < 2)
        return ember_build_refuse(b, "fft_size",
                                  "a kernel of one lag sees no other token, later ones neither");
    const size_t heads = D / f->head_dim, rows = (1 + gates_of(f)) * D;
    EMBER_TRY(declare_kernel(l, b, KERNEL, "kernel", heads));
    if (l->type == &em_layer_fftconv_two_sided)
        EMBER_TRY(declare_kernel(l, b, LATER, "later_kernel", heads));
    if (f->skip) {
        EMBER_TRY(declare(l, b, SKIP, "D", EMBER_INIT_NORMAL, &heads, 1));
        ember_param_fill(b, l->param[SKIP], &(ember_filling){.fill = fill_skip});
    }
    if (!f->projections) return EMBER_OK;
    EMBER_TRY(declare(l, b, IN, "in_proj.weight", EMBER_INIT_NORMAL, (size_t[]){rows, D}, 2));
    if (f->bias) EMBER_TRY(declare(l, b, IN_BIAS, "in_proj.bias", EMBER_INIT_ZEROS, &rows, 1));
    EMBER_TRY(declare(l, b, OUT, "out_proj.weight", EMBER_INIT_NORMAL, (size_t[]){D, D}, 2));
    if (f->bias) EMBER_TRY(declare(l, b, OUT_BIAS, "out_proj.bias", EMBER_INIT_ZEROS, &D, 1));
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *flow, ember_tensor *x,
                            ember_tensor **y)
{
    const struct fftconv *f = (const struct fftconv *)l;
    const size_t D = x->dim[x->ndim - 1];
    ember_fft_conv_options o = {.k_rev = l->param[LATER],
                                .circular = l->type == &em_layer_fftconv_circular,
                                .head_dim = f->head_dim,
                                .gelu = f->activation,
                                .dropout = f->dropout,
                                .exact = f->exact};
    ember_tensor *u = x, *pre = NULL, *post = NULL, *kernel = l->param[KERNEL], *all;
    if (l->type == &em_layer_fftconv_sparse)
        EMBER_TRY(
            ember_frequency_sparse(flow, kernel, f->fft_size, f->frequencies, &kernel, &o.k_rev));
    if (f->projections) {
        EMBER_TRY(ember_linear(flow, x, l->param[IN], l->param[IN_BIAS], NULL, &all));
        const size_t last = gates_of(f) * D;
        EMBER_TRY(ember_columns(flow, all, 0, D, &u));
        if (f->gating & PRE) EMBER_TRY(ember_columns(flow, all, D, 2 * D, &pre));
        if (f->gating & POST) EMBER_TRY(ember_columns(flow, all, last, last + D, &post));
    }
    EMBER_TRY(ember_fft_conv(flow, &o, u, kernel, l->param[SKIP], pre, post, y));
    if (!f->projections) return EMBER_OK;
    return ember_linear(flow, *y, l->param[OUT], l->param[OUT_BIAS], NULL, y);
}

const ember_layer_type em_layer_fftconv = {
    .name = "fftconv",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct fftconv),
    .options = causal_options,
    .help =
        "gated long convolution with a learned kernel, by fast Fourier transforms (LongConv, H3)",
    .build = build,
    .forward = forward,
};

const ember_layer_type em_layer_fftconv_two_sided = {
    .name = "fftconv_two_sided",
    .kind = EMBER_SEQUENCE_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct fftconv),
    .options = options,
    .help = "fftconv with a second kernel for later tokens, lag 0 in both: for classifying, not "
            "for generating",
    .build = build,
    .forward = forward,
};

const ember_layer_type em_layer_fftconv_circular = {
    .name = "fftconv_circular",
    .kind = EMBER_SEQUENCE_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct fftconv),
    .options = options,
    .help = "fftconv of sequences that come round: before the first token stands the last one. "
            "For periodic data, not for generating",
    .build = build,
    .forward = forward,
};

const ember_layer_type em_layer_fftconv_sparse = {
    .name = "fftconv_sparse",
    .kind = EMBER_SEQUENCE_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct fftconv),
    .options = sparse_options,
    .help = "fftconv with the lowest frequencies of its kernel alone, which then answers before an "
            "impulse too: for classifying, not for generating. Fu et al. 2023, arXiv:2311.05908",
    .build = build,
    .forward = forward,
};
