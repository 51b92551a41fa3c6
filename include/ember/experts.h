/** @file experts.h  Mixtures of experts: what each expert of a trained model does. */
#ifndef EMBER_EXPERTS_H
#define EMBER_EXPERTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Start from {0}; all is borrowed during the call. */
typedef struct ember_experts_options {
    ember_runtime runtime;   /**< compute: default bf16 where the machine has it, else f32 */
    const char *const *data; /**< [n_data] held-out texts: files, folders or globs */
    size_t n_data;
    const char *const *labels;  /**< [n_labels] the domain of each of data, which may share one;
                                     NULL: each is a domain of its own */
    size_t n_labels;            /**< 0 or n_data */
    const char *const *compare; /**< [n_compare] earlier checkpoints: folders of the same model */
    size_t n_compare;
    uint64_t tokens;  /**< about so many of each of data, spread evenly; 0: 32768 */
    size_t context;   /**< tokens of a window, at most 2048; 0: the model's, at most 2048 */
    const char *html; /**< where the page goes; NULL: nowhere */
    const char *json; /**< where the same figures go as JSON; NULL: nowhere */
} ember_experts_options;

/**
 * Runs a model over held-out text and tells who does what, for every mixture of experts: loads by
 * domain, position and kind of token, single tokens, which experts share tokens, how alike they are
 * in weights and outputs, entropies, the mutual information with labels beside that of shuffled
 * ones, concentration, dead experts, example texts by expert. Where the folder is a training run,
 * also its experts' load over training and how much its routers changed since the states in
 * training/. docs/report.md has the figures' definitions and the JSON's fields.
 *
 * @param model  a model's folder with a tokenizer.
 * @param text   a sketch for a terminal, as wide and colourful as stdout is; owned by the caller
 *               (ember_free()).
 * @retval EMBER_E_USAGE        n_data is 0, or n_labels is another number.
 * @retval EMBER_E_CONFIG       the model has no mixture of experts, or a checkpoint in `compare`
 *                              has another number of them, or of experts.
 * @retval EMBER_E_RANGE        windows of more than 2048 tokens.
 * @retval EMBER_E_STATE        the model has no tokenizer.
 * @retval EMBER_E_INTERRUPTED  ember_interrupt() was called. Failures of ember_model_open() and
 *                              ember_eval() come as they are.
 */
EMBER_API EMBER_CHECKED ember_status ember_experts_report(const char *model,
                                                          const ember_experts_options *options,
                                                          char **text);

/** What happens to experts. */
typedef enum ember_expert_edit_kind {
    EMBER_EXPERTS_ADD,    /**< `count` new ones, last */
    EMBER_EXPERTS_REMOVE, /**< those named go, with their rows of the router */
    EMBER_EXPERTS_CLONE,  /**< those named get a copy each, last */
    EMBER_EXPERTS_MERGE   /**< those named become one, their mean, at the first one's place */
} ember_expert_edit_kind;

/** Start from {0}; all is borrowed during the call. */
typedef struct ember_expert_edit {
    ember_expert_edit_kind kind;
    const size_t *experts; /**< [n_experts] to be removed, cloned or merged, from 0 */
    size_t n_experts;
    size_t count;       /**< to be added */
    const size_t *like; /**< added ones begin as this one, router row included; NULL: at random */
    double noise; /**< on copies: normal noise of this share of each tensor's root mean square */
    bool off; /**< new ones are kept from being chosen by a selection bias of -1e30 (the router gets
                 one where it has none): until that is raised, no output changes by a bit */
    const size_t *layers; /**< [n_layers] blocks whose mixtures change */
    size_t n_layers;      /**< 0: all */
    uint64_t seed;
} ember_expert_edit;

/**
 * Writes a model with other experts: weights, config, tokenizer. All other parameters are the same.
 * A hash router's table is renumbered; tokens of an expert that is gone have none.
 *
 * @param model  a model's folder; never changed.
 * @param out    the new folder; it must not exist. Nothing is left of it on failure.
 * @param text   a line for each mixture; owned by the caller (ember_free()). NULL: not wanted.
 * @retval EMBER_E_USAGE        no experts are named, or one twice.
 * @retval EMBER_E_RANGE        a mixture has no such expert, or would have none left.
 * @retval EMBER_E_CONFIG       the model, or the blocks named, have no mixture of experts; a router
 *                              cannot choose k of so few; merged experts differ in kind.
 * @retval EMBER_E_STATE        `out` is there already.
 * @retval EMBER_E_UNSUPPORTED  a part whose shape changes and that does not go by experts (columns
 *                              of ranks); single layers of a family whose layers are alike; `off`
 *                              with a router that cannot have a selection bias.
 */
EMBER_API EMBER_CHECKED ember_status ember_experts_edit(const char *model, const char *out,
                                                        const ember_expert_edit *edit, char **text);

/** Start from {0}. */
typedef struct ember_upcycling {
    size_t experts;       /**< of each mixture */
    size_t k;             /**< that a token goes to, of renormalised softmax weights; 0: 2 */
    double noise;         /**< on all experts but the first, as a share of each tensor's size */
    const size_t *layers; /**< [n_layers] blocks that change */
    size_t n_layers;      /**< 0: all with a dense channel mixer */
    uint64_t seed;        /**< of the routers and the noise */
} ember_upcycling;

/**
 * Writes a dense model as one with mixtures, whose experts begin as what was there: without noise
 * its outputs are those of the dense one, but for rounding. Komatsuzaki et al. 2022,
 * arXiv:2212.05055. Arguments and failures as of ember_experts_edit().
 * @retval EMBER_E_UNSUPPORTED  a family of another name than `ember`.
 */
EMBER_API EMBER_CHECKED ember_status ember_experts_upcycle(const char *model, const char *out,
                                                           const ember_upcycling *how, char **text);

#ifdef __cplusplus
}
#endif
#endif
