// A bank of closed-form continuous-time cells of several paces: cell i moves at every stride^i-th
// token, by the time since it last did, and stands still in between. Their outputs side by side go
// through one matrix.
#include <stdio.h>

#include "nn/sequence_mixing/recurrent/recurrent.h"

enum { CELLS = 8 };

struct strided_cfc {
    ember_layer base; // param[i]: cell i's part of the matrix; the last: its bias
    size_t cells, stride, units, backbone_units, backbone_layers;
    int mode, activation;
    float backbone_dropout;
    bool mixed_memory;
    struct em_cfc_cell cell[CELLS];
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct strided_cfc, cells, 3, 1, CELLS, "of the bank"),
    EMBER_OPT_SIZE(struct strided_cfc, stride, 2, 1, 64, "cell i moves at every stride^i-th token"),
    EMBER_OPT_SIZE(struct strided_cfc, units, 32, 1, 65536, "of each cell"),
    EM_CFC_OPTIONS(struct strided_cfc),
    {0},
};

static ember_status build(ember_layer *layer, ember_build *b)
{
    struct strided_cfc *l = (struct strided_cfc *)layer;
    const size_t D = ember_build_width(b);
    const struct em_cfc_options o = {.backbone_units = l->backbone_units,
                                     .backbone_layers = l->backbone_layers,
                                     .mode = l->mode,
                                     .activation = l->activation,
                                     .backbone_dropout = l->backbone_dropout,
                                     .mixed_memory = l->mixed_memory};
    size_t stride = 1;
    for (size_t i = 0; i < l->cells; i++, stride *= l->stride) {
        char name[40];
        snprintf(name, sizeof name, "cells.%zu.", i);
        EMBER_TRY(em_cfc_cell_build(b, name, D, l->units, NULL, &o, &l->cell[i]));
        l->cell[i].options.stride = stride;
        snprintf(name, sizeof name, "cells.%zu.fc.weight", i);
        EMBER_TRY(em_filled_param(b, &layer->param[i], name, (size_t[]){D, l->units}, 2,
                                  &(ember_filling){.fill = em_fill_xavier}));
    }
    return ember_param(b, &layer->param[CELLS], "fc.bias", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER, &D,
                       1);
}

static ember_status forward(const ember_layer *layer, ember_flow *f, ember_tensor *x,
                            ember_tensor **y)
{
    const struct strided_cfc *l = (const struct strided_cfc *)layer;
    ember_tensor *sum = NULL, *h;
    for (size_t i = 0; i < l->cells; i++) {
        EMBER_TRY(ember_cfc(f, x, l->cell[i].layer, l->cell[i].layers, &l->cell[i].options, &h));
        EMBER_TRY(ember_linear(f, h, layer->param[i], i ? NULL : layer->param[CELLS], sum, &sum));
    }
    *y = sum;
    return EMBER_OK;
}

extern const ember_layer_type em_layer_strided_cfc;
const ember_layer_type em_layer_strided_cfc = {
    .name = "strided_cfc",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct strided_cfc),
    .options = options,
    .help = "closed-form continuous-time cells of several paces. Hasani et al. 2022, "
            "arXiv:2106.13898",
    .build = build,
    .forward = forward,
};
