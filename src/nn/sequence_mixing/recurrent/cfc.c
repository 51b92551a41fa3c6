// Closed-form continuous-time networks (Hasani et al. 2022, arXiv:2106.13898): one cell with a
// backbone, or wired, a cell for each layer of neurons.
#include "nn/sequence_mixing/recurrent/recurrent.h"

struct cfc {
    ember_layer base;
    size_t units, wiring_seed, backbone_units, backbone_layers, output_size;
    const char *wiring;
    int mode, activation;
    float backbone_dropout;
    bool mixed_memory, projection;
    struct em_cfc_cell cell;
    struct em_readout readout;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct cfc, units, 32, 1, 65536, "of a cell without wiring"),
    EMBER_OPT_STRING(struct cfc, wiring,
                     "auto:UNITS,OUTPUTS[,SPARSITY], ncp:.., layers:N,.., full, random:SPARSITY or "
                     "a wiring file's text: a cell for each layer, without backbones; empty: one "
                     "cell"),
    EMBER_OPT_SIZE(struct cfc, wiring_seed, 22222, 0, 1e15, "of a wiring that is drawn"),
    EM_CFC_OPTIONS(struct cfc),
    EM_READOUT_OPTIONS(struct cfc),
    {0},
};

static ember_status build(ember_layer *layer, ember_build *b)
{
    struct cfc *l = (struct cfc *)layer;
    const size_t I = ember_build_width(b);
    const struct em_cfc_options o = {.backbone_units = l->backbone_units,
                                     .backbone_layers = l->backbone_layers,
                                     .mode = l->mode,
                                     .activation = l->activation,
                                     .backbone_dropout = l->backbone_dropout,
                                     .mixed_memory = l->mixed_memory};
    struct em_wiring wiring;
    if (*l->wiring) EMBER_TRY(em_wiring_of(b, l->wiring, I, l->units, 0, l->wiring_seed, &wiring));
    EMBER_TRY(em_cfc_cell_build(b, "", I, l->units, *l->wiring ? &wiring : NULL, &o, &l->cell));
    return em_readout_build(b, l->projection, l->cell.outputs, l->output_size, &l->readout);
}

static ember_status forward(const ember_layer *layer, ember_flow *f, ember_tensor *x,
                            ember_tensor **y)
{
    const struct cfc *l = (const struct cfc *)layer;
    ember_tensor *h;
    EMBER_TRY(ember_cfc(f, x, l->cell.layer, l->cell.layers, &l->cell.options, &h));
    return em_readout_forward(&l->readout, f, h, y);
}

extern const ember_layer_type em_layer_cfc;
const ember_layer_type em_layer_cfc = {
    .name = "cfc",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct cfc),
    .options = options,
    .help = "closed-form continuous-time network. Hasani et al. 2022, arXiv:2106.13898",
    .build = build,
    .forward = forward,
};
