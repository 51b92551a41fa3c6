// What transformers' two Mambas have in common: tensors' names, configs' keys, the activation.
#ifndef EM_MODELS_MAMBA_H
#define EM_MODELS_MAMBA_H

#include <string.h>

#include "models/hf_config.h"

// clang-format off
#define EM_MAMBA_NAMES                                                                             \
    {"embedding.weight", "backbone.embeddings.weight", false},                                     \
    {"final_norm.weight", "backbone.norm_f.weight", false},                                        \
    {"head.weight", "lm_head.weight", false},                                                      \
    {"blocks.#.sequence_norm.weight", "backbone.layers.#.norm.weight", false},                     \
    {"blocks.#.sequence.in_proj.weight", "backbone.layers.#.mixer.in_proj.weight", false},         \
    {"blocks.#.sequence.in_proj.bias", "backbone.layers.#.mixer.in_proj.bias", false},             \
    {"blocks.#.sequence.conv1d.weight", "backbone.layers.#.mixer.conv1d.weight", true},            \
    {"blocks.#.sequence.conv1d.bias", "backbone.layers.#.mixer.conv1d.bias", false},               \
    {"blocks.#.sequence.A_log", "backbone.layers.#.mixer.A_log", false},                           \
    {"blocks.#.sequence.D", "backbone.layers.#.mixer.D", false},                                   \
    {"blocks.#.sequence.out_proj.weight", "backbone.layers.#.mixer.out_proj.weight", false},       \
    {"blocks.#.sequence.out_proj.bias", "backbone.layers.#.mixer.out_proj.bias", false}
#define EM_MAMBA_KEYS                                                                              \
    EM_HF_KEYS, "state_size", "layer_norm_epsilon", "expand", "conv_kernel", "use_bias",           \
    "use_conv_bias", "hidden_act", "time_step_rank", "time_step_min", "time_step_max",             \
    "time_step_floor", "rescale_prenorm_residual", "residual_in_fp32", "layer_types"
// clang-format on

static inline ember_status em_mamba_activation(struct em_reader *r, const char *family)
{
    const char *name = em_read_string(r, "hidden_act", "silu");
    EM_TRY(r->status);
    if (strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0)
        return em_fail(EMBER_E_UNSUPPORTED, "%s: hidden_act of %s has to be silu, not \"%.60s\"",
                       r->where, family, name);
    return EMBER_OK;
}

#endif
