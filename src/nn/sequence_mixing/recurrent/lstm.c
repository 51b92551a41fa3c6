// Long short-term memory, as torch has it, and a matrix from its units to the model's width.
#include "nn/sequence_mixing/recurrent/recurrent.h"

struct lstm {
    ember_layer base; // param: weight_ih [4H, D], weight_hh [4H, H], bias_ih, bias_hh [4H]
    size_t units, output_size;
    bool projection;
    struct em_readout readout;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct lstm, units, 64, 1, 65536, "H"),
    EM_READOUT_OPTIONS(struct lstm),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct lstm *s = (struct lstm *)l;
    const size_t H = s->units, H4 = 4 * H, D = ember_build_width(b);
    EMBER_TRY(ember_param(b, &l->param[1], "weight_hh", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER,
                          (size_t[]){H4, H}, 2));
    const ember_filling start = {.fill = em_fill_fan_in, .context = l->param[1]};
    ember_param_fill(b, l->param[1], &start);
    EMBER_TRY(em_filled_param(b, &l->param[0], "weight_ih", (size_t[]){H4, D}, 2, &start));
    EMBER_TRY(em_filled_param(b, &l->param[2], "bias_ih", &H4, 1, &start));
    EMBER_TRY(em_filled_param(b, &l->param[3], "bias_hh", &H4, 1, &start));
    return em_readout_build(b, s->projection, H, s->output_size, &s->readout);
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *zx, *h;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], l->param[2], &zx));
    EMBER_TRY(ember_lstm(f, zx, l->param[1], l->param[3], &h));
    return em_readout_forward(&((const struct lstm *)l)->readout, f, h, y);
}

extern const ember_layer_type em_layer_lstm;
const ember_layer_type em_layer_lstm = {
    .name = "lstm",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct lstm),
    .options = options,
    .help = "long short-term memory. Hochreiter and Schmidhuber 1997",
    .build = build,
    .forward = forward,
};
