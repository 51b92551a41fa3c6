// Hyena: gates and long convolutions by turns, with filters that are functions of the position.
//   x_0, .., x_{o-1}, v = short_conv(x W_in^T + b),  v = conv(v * x_i, k_i) for i = o-1, .., 1,
//   y = (x_0 * v) W_out^T + b
// A token further back than the filter is long counts as nothing. Poli et al. 2023, "Hyena
// Hierarchy", arXiv:2302.10866; Nguyen et al. 2023, "HyenaDNA", arXiv:2306.15794.
#include <math.h>

#include "nn/sequence_mixing/fftconv/implicit_filter.h"

enum { IN, IN_BIAS, SHORT, SHORT_BIAS, OUT, OUT_BIAS };

struct hyena {
    ember_layer base; // param: in_proj [(o+1) D, D], short_conv [(o+1) D, w], out_proj [D, D], and
                      // their biases
    size_t order, short_width, residual_blocks;
    float dropout;
    struct em_implicit_filter filter; // of D (o - 1) channels: a filter of D after the other
    struct em_implicit_filter later;  // two-sided: the same for later tokens, lag 0 in both
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct hyena, order, 2, 2, 256,
                   "products of the input: one more than there are long convolutions"),
    EM_FILTER_OPTIONS(struct hyena),
    EMBER_OPT_SIZE(struct hyena, short_width, 3, 1, 4096,
                   "tokens that the short convolution spans, the current one included"),
    EMBER_OPT_FLOAT(struct hyena, dropout, 0, 0, 0.999,
                    "of what goes into a long convolution, in training"),
    EMBER_OPT_SIZE(struct hyena, residual_blocks, 0, 0, 4096,
                   "the output matrix starts divided by the root of twice this; 0: it does not"),
    {0},
};

// Uniform within the inverse root of the taps that a channel has.
static void fill_short(const void *context, ember_random *random, ember_tensor *param)
{
    const double most = 1 / sqrt((double)((const struct hyena *)context)->short_width);
    const size_t n = ember_tensor_count(param);
    for (size_t i = 0; i < n; i++)
        ((float *)param->data)[i] = (float)(most * (2 * ember_random_uniform(random) - 1));
}

extern const ember_layer_type em_layer_hyena, em_layer_hyena_two_sided;

static ember_status build(ember_layer *l, ember_build *b)
{
    struct hyena *h = (struct hyena *)l;
    const ember_role role = EMBER_ROLE_CONVOLUTION;
    const size_t D = ember_build_width(b), wide = (h->order + 1) * D;
    const ember_filling uniform = {.fill = fill_short, .context = h};
    EMBER_TRY(ember_param(b, &l->param[IN], "in_proj.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){wide, D}, 2));
    EMBER_TRY(ember_param(b, &l->param[IN_BIAS], "in_proj.bias", EMBER_INIT_ZEROS, role, &wide, 1));
    EMBER_TRY(ember_param(b, &l->param[SHORT], "short_conv.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){wide, h->short_width}, 2));
    ember_param_fill(b, l->param[SHORT], &uniform);
    EMBER_TRY(
        ember_param(b, &l->param[SHORT_BIAS], "short_conv.bias", EMBER_INIT_ZEROS, role, &wide, 1));
    ember_param_fill(b, l->param[SHORT_BIAS], &uniform);
    h->filter.channels = D * (h->order - 1);
    h->later = h->filter;
    h->later.skip = false; // one is enough
    EMBER_TRY(em_implicit_filter_build(&h->filter, b, "filter"));
    if (l->type == &em_layer_hyena_two_sided && h->filter.filter_length < 2)
        return ember_build_refuse(
            b, "filter_length", "a filter of one lag sees no other token, so it has no two sides");
    if (l->type == &em_layer_hyena_two_sided)
        EMBER_TRY(em_implicit_filter_build(&h->later, b, "later_filter"));
    EMBER_TRY(ember_param(b, &l->param[OUT], "out_proj.weight", EMBER_INIT_NORMAL, role,
                          (size_t[]){D, D}, 2));
    if (h->residual_blocks)
        ember_param_fill(b, l->param[OUT],
                         &(ember_filling){.scale = 1 / sqrtf(2 * (float)h->residual_blocks)});
    return ember_param(b, &l->param[OUT_BIAS], "out_proj.bias", EMBER_INIT_ZEROS, role, &D, 1);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct hyena *h = (const struct hyena *)l;
    const size_t D = x->dim[1], order = h->order;
    ember_tensor *wide, *mixed, *k, *later = NULL, *v, *first;
    EMBER_TRY(ember_linear(f, x, l->param[IN], l->param[IN_BIAS], NULL, &wide));
    EMBER_TRY(ember_depthwise_conv(f, wide, l->param[SHORT], l->param[SHORT_BIAS], EMBER_IDENTITY,
                                   &mixed));
    EMBER_TRY(ember_implicit_filter(f, &h->filter.network, &k));
    if (l->type == &em_layer_hyena_two_sided)
        EMBER_TRY(ember_implicit_filter(f, &h->later.network, &later));
    EMBER_TRY(ember_columns(f, mixed, 0, D, &first));
    EMBER_TRY(ember_columns(f, mixed, order * D, (order + 1) * D, &v));
    for (size_t o = 0; o + 1 < order; o++) {
        ember_tensor *gate, *filter = k, *backward = later, *next;
        const size_t at = order - 1 - o;
        EMBER_TRY(ember_columns(f, mixed, at * D, (at + 1) * D, &gate));
        if (order > 2) EMBER_TRY(ember_columns(f, k, o * D, (o + 1) * D, &filter));
        if (order > 2 && later) EMBER_TRY(ember_columns(f, later, o * D, (o + 1) * D, &backward));
        if (h->dropout > 0) {
            EMBER_TRY(ember_gated(f, v, gate, EMBER_IDENTITY, &next));
            EMBER_TRY(ember_dropout(f, next, h->dropout, &v));
            gate = NULL;
        }
        EMBER_TRY(ember_fft_conv(f, &(ember_fft_conv_options){.tap_rows = true, .k_rev = backward},
                                 v, filter, NULL, gate, o + 2 == order ? first : NULL, &next));
        v = next;
    }
    return ember_linear(f, v, l->param[OUT], l->param[OUT_BIAS], NULL, y);
}

const ember_layer_type em_layer_hyena = {
    .name = "hyena",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct hyena),
    .options = options,
    .help = "gates and long convolutions with implicit filters. Poli et al. 2023, arXiv:2302.10866",
    .build = build,
    .forward = forward,
};

const ember_layer_type em_layer_hyena_two_sided = {
    .name = "hyena_two_sided",
    .kind = EMBER_SEQUENCE_MIXER,
    .flags = EMBER_NOT_CAUSAL,
    .size = sizeof(struct hyena),
    .options = options,
    .help = "Hyena with a second filter for later tokens: for classifying, not for generating",
    .build = build,
    .forward = forward,
};
