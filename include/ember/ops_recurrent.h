/**
 * @file ops_recurrent.h  Recurrent cells: token by token, all sequences of the batch together. They
 * run in f32, and their state goes with the sequence. A part of <ember/ops.h>, which includes it.
 */
#ifndef EMBER_OPS_RECURRENT_H
#define EMBER_OPS_RECURRENT_H

#include <ember/layer.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Long short-term memory, y [T, H]. zx [T, 4H] is the input's part of the gates (x w_ih^T + b_ih,
 * in torch's order input, forget, candidate, output), w [4H, H], bias [4H] or NULL. Hochreiter and
 * Schmidhuber 1997.
 */
EMBER_API EMBER_CHECKED ember_status ember_lstm(ember_flow *flow, ember_tensor *zx, ember_tensor *w,
                                                ember_tensor *bias, ember_tensor **y);
/** Gated recurrent unit, y [T, H], as torch has it. zx [T, 3H] (reset, update, new), w [3H, H],
 * bias [3H] or NULL. Cho et al. 2014, arXiv:1406.1078. */
EMBER_API EMBER_CHECKED ember_status ember_gru(ember_flow *flow, ember_tensor *zx, ember_tensor *w,
                                               ember_tensor *bias, ember_tensor **y);

/** An LSTM of U units that runs before each step of a cell and hands it its memory (mixed memory):
 * input_map [4U, I], its bias [4U], recurrent_map [4U, U]; all NULL: none. Lechner and Hasani 2020,
 * arXiv:2006.04418. */
typedef struct ember_recurrent_memory {
    ember_tensor *input_map, *input_bias, *recurrent_map;
} ember_recurrent_memory;

/** Synapses, [source, destination]: steepness and middle of their sigmoid, weight, the potential
 * that they pull to; a mask (0: there is none). */
typedef struct ember_ltc_synapses {
    ember_tensor *sigma, *mu, *w, *erev, *mask;
} ember_ltc_synapses;
typedef struct ember_ltc_parameters {
    ember_tensor *input_w, *input_b;  /**< [I]: the senses feel x * input_w + input_b; NULL: x. A
                                         memory reads x itself */
    ember_tensor *cm, *gleak, *vleak; /**< [U] */
    ember_tensor *sigma, *mu, *w, *erev, *mask; /**< [U, U] */
    ember_ltc_synapses sensory;                 /**< [I, U]: from the inputs */
    ember_recurrent_memory memory;
} ember_ltc_parameters;
#define EMBER_LTC_UNFOLDS_MAX 256
typedef struct ember_ltc_options {
    size_t unfolds;            /**< steps of the solver a token */
    size_t outputs;            /**< the first so many neurons are the output; 0: all */
    float epsilon;             /**< added to denominators */
    bool implicit_constraints; /**< cm, gleak and weights go through softplus; otherwise they are
                                  positive because training keeps them so */
} ember_ltc_options;
/**
 * Liquid time-constant network, y [T, outputs]: a token moves the neurons' potentials by the time
 * that the batch's `timespans` give. Hasani et al. 2021, arXiv:2006.04439.
 */
EMBER_API EMBER_CHECKED ember_status ember_ltc(ember_flow *flow, ember_tensor *x,
                                               const ember_ltc_parameters *parameters,
                                               const ember_ltc_options *options, ember_tensor **y);

typedef enum ember_cfc_mode { EMBER_CFC_DEFAULT, EMBER_CFC_NO_GATE, EMBER_CFC_PURE } ember_cfc_mode;
#define EMBER_CFC_MODES "default|no_gate|pure"
/** Of the backbone. lecun_tanh(x) = 1.7159 tanh(0.666 x). */
typedef enum ember_cfc_activation {
    EMBER_CFC_LECUN_TANH,
    EMBER_CFC_RELU,
    EMBER_CFC_SILU,
    EMBER_CFC_TANH,
    EMBER_CFC_GELU
} ember_cfc_activation;
#define EMBER_CFC_ACTIVATIONS "lecun_tanh|relu|silu|tanh|gelu"
#define EMBER_CFC_BACKBONE_MAX 8
#define EMBER_CFC_LAYERS_MAX 8
/** One layer of H units that reads [input | its last state]; K is the backbone's width, without one
 * that of what is read. */
typedef struct ember_cfc_layer {
    struct {
        ember_tensor *weight, *bias; /**< [K, what is read], [K] */
    } backbone[EMBER_CFC_BACKBONE_MAX];
    struct {
        ember_tensor *weight, *bias; /**< [H, K], [H] */
    } ff1, ff2, time_a, time_b;      /**< the pure mode has ff1 alone */
    ember_tensor *w_tau, *a;         /**< [1, H], of the pure mode */
    ember_tensor *mask;              /**< [H, K]: of ff1's and ff2's weights; NULL: none */
} ember_cfc_layer;
typedef struct ember_cfc_options {
    ember_cfc_mode mode;
    ember_cfc_activation activation;
    size_t backbone_layers;
    float dropout; /**< after the backbone's layers but the first, in training */
    size_t stride; /**< the cell moves at positions that are multiples of it, by the time since the
                      last, and stands still in between; 0: 1 */
    ember_recurrent_memory memory; /**< of all layers' units */
} ember_cfc_options;
/**
 * Closed-form continuous-time network of n_layers, each fed by the one before, y [T, H of the
 * last]. Hasani et al. 2022, arXiv:2106.13898.
 */
EMBER_API EMBER_CHECKED ember_status ember_cfc(ember_flow *flow, ember_tensor *x,
                                               const ember_cfc_layer *layers, size_t n_layers,
                                               const ember_cfc_options *options, ember_tensor **y);

#ifdef __cplusplus
}
#endif
#endif
