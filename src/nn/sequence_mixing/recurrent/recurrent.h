// What recurrent layers share: how their parameters start, the LSTM before a cell, and the matrix
// from a cell's outputs to the model's width.
#ifndef EM_NN_RECURRENT_H
#define EM_NN_RECURRENT_H

#include <ember/ops.h>

#include "nn/build.h"
#include "nn/sequence_mixing/recurrent/wiring.h"

// A parameter with a start: uniform in a range; Xavier's; +-1/sqrt(columns of `context`, a matrix).
struct em_range {
    double low, high;
};
void em_fill_range(const void *context, ember_random *random, ember_tensor *param);
void em_fill_xavier(const void *context, ember_random *random, ember_tensor *param);
void em_fill_fan_in(const void *context, ember_random *random, ember_tensor *param);
ember_status em_filled_param(ember_build *b, ember_tensor **param, const char *name,
                             const size_t *dim, unsigned ndim,
                             const ember_filling *filling) EMBER_CHECKED;

// A matrix [rows, columns] (Xavier, or as torch starts it) and its bias [rows].
ember_status em_product_params(ember_build *b, const char *name, size_t rows, size_t columns,
                               bool xavier, ember_tensor **weight,
                               ember_tensor **bias) EMBER_CHECKED;

// "lstm.input_map", "lstm.recurrent_map": of U units that read I values.
ember_status em_memory_params(ember_build *b, const char *prefix, size_t I, size_t U,
                              ember_recurrent_memory *memory) EMBER_CHECKED;

// fc: from M values to `output_size` (0: the model's width). Without it M values are the output.
struct em_readout {
    ember_tensor *weight, *bias;
};
ember_status em_readout_build(ember_build *b, bool projection, size_t M, size_t output_size,
                              struct em_readout *readout) EMBER_CHECKED;
ember_status em_readout_forward(const struct em_readout *readout, ember_flow *f, ember_tensor *x,
                                ember_tensor **y) EMBER_CHECKED;

#define EM_READOUT_OPTIONS(type)                                                                   \
    EMBER_OPT_BOOL(type, projection, true, "a matrix from the outputs to output_size"),            \
        EMBER_OPT_SIZE(type, output_size, 0, 0, 1 << 20,                                           \
                       "columns of the output; 0: the model's width")

// The wiring that options name, for D inputs; refused with the option's name.
ember_status em_wiring_of(ember_build *b, const char *specification, size_t inputs, size_t units,
                          size_t outputs, size_t seed, struct em_wiring *wiring) EMBER_CHECKED;

// A CfC cell's options and parameters.
struct em_cfc_options {
    size_t backbone_units, backbone_layers;
    int mode, activation;
    float backbone_dropout;
    bool mixed_memory;
};
struct em_cfc_cell {
    ember_cfc_layer layer[EMBER_CFC_LAYERS_MAX];
    size_t layers, outputs;
    ember_cfc_options options;
};
// `prefix` stands before names. Layers of `wiring` have masks and no backbone; NULL: one of
// `units`.
ember_status em_cfc_cell_build(ember_build *b, const char *prefix, size_t inputs, size_t units,
                               const struct em_wiring *wiring, const struct em_cfc_options *options,
                               struct em_cfc_cell *cell) EMBER_CHECKED;

#define EM_CFC_OPTIONS(type)                                                                       \
    EMBER_OPT_ENUM(type, mode, EMBER_CFC_DEFAULT, EMBER_CFC_MODES, "how heads are joined"),        \
        EMBER_OPT_ENUM(type, activation, EMBER_CFC_LECUN_TANH, EMBER_CFC_ACTIVATIONS,              \
                       "of the backbone"),                                                         \
        EMBER_OPT_SIZE(type, backbone_units, 128, 1, 65536, "width of the backbone"),              \
        EMBER_OPT_SIZE(type, backbone_layers, 1, 0, EMBER_CFC_BACKBONE_MAX, "of the backbone"),    \
        EMBER_OPT_FLOAT(type, backbone_dropout, 0, 0, 0.999,                                       \
                        "after the backbone's layers but the first, in training"),                 \
        EMBER_OPT_BOOL(type, mixed_memory, false, "an LSTM before each step (arXiv:2006.04418)")

#endif
