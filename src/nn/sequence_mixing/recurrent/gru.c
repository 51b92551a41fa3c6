// A gated recurrent unit, as torch has it, and a matrix from its units to the model's width.
#include "nn/sequence_mixing/recurrent/recurrent.h"

struct gru {
    ember_layer base; // param: weight_ih [3H, D], weight_hh [3H, H], bias_ih, bias_hh [3H]
    size_t units, output_size;
    bool projection;
    struct em_readout readout;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct gru, units, 64, 1, 65536, "H"),
    EM_READOUT_OPTIONS(struct gru),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct gru *s = (struct gru *)l;
    const size_t H = s->units, H3 = 3 * H, D = ember_build_width(b);
    EMBER_TRY(ember_param(b, &l->param[1], "weight_hh", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){H3, H}, 2));
    const ember_filling start = {.fill = em_fill_fan_in, .context = l->param[1]};
    ember_param_fill(b, l->param[1], &start);
    EMBER_TRY(em_filled_param(b, &l->param[0], "weight_ih", (size_t[]){H3, D}, 2, &start));
    EMBER_TRY(em_filled_param(b, &l->param[2], "bias_ih", &H3, 1, &start));
    EMBER_TRY(em_filled_param(b, &l->param[3], "bias_hh", &H3, 1, &start));
    return em_readout_build(b, s->projection, H, s->output_size, &s->readout);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *zx, *h;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], l->param[2], &zx));
    EMBER_TRY(ember_gru(f, zx, l->param[1], l->param[3], &h));
    return em_readout_forward(&((const struct gru *)l)->readout, f, h, y);
}

extern const ember_layer_type em_layer_gru;
const ember_layer_type em_layer_gru = {
    .name = "gru",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct gru),
    .options = options,
    .help = "gated recurrent units. Cho et al. 2014, arXiv:1406.1078",
    .build = build,
    .forward = forward,
};
