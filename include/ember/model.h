/** @file model.h  A model: opened from its folder, asked what it is, closed. */
#ifndef EMBER_MODEL_H
#define EMBER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A model: its config, weights and tokenizer, and the threads that run it. From ember_model_open();
 * free with ember_model_close(). Threads: one call at a time; models do not know each other, so
 * give each thread one of its own. A call uses as many threads as its ember_runtime says.
 */
typedef struct ember_model ember_model;

/** How to open a model. Start from {0}: a zero field means the default. */
typedef struct ember_model_options {
    ember_runtime runtime; /**< compute: default bf16 where the machine has it, else f32 */
} ember_model_options;

/**
 * Opens a Hugging Face folder: config.json, the weights, and what there is of tokenizer.json and
 * generation_config.json.
 *
 * @param path     the folder.
 * @param options  NULL: all defaults.
 * @param model    written on success.
 * @retval EMBER_E_IO           a file is missing or cannot be read; the message has its path.
 * @retval EMBER_E_FORMAT       a file is malformed, or a tensor is missing.
 * @retval EMBER_E_SHAPE        a tensor has another shape than the config says.
 * @retval EMBER_E_CONFIG       config.json says something that no model can be made of.
 * @retval EMBER_E_UNSUPPORTED  a format or a tokenizer that this build does not read.
 * @retval EMBER_E_NUMERIC      a weight is NaN or infinite; the message names the tensor.
 * @retval EMBER_E_NOMEM        no room for the weights, 4 bytes a parameter.
 */
EMBER_API EMBER_CHECKED ember_status ember_model_open(const char *path,
                                                      const ember_model_options *options,
                                                      ember_model **model);
/** A file of a model's folder, in memory. */
typedef struct ember_model_file {
    const char *name; /**< "config.json", "model.safetensors", .. */
    const void *data; /**< `size` bytes at any address */
    size_t size;
} ember_model_file;

/**
 * Opens a model from bytes in memory, for programs that carry one: no file system is touched.
 *
 * @param files    n of them, as ember_model_open() finds in a folder: config.json and
 *                 model.safetensors, or the shards that model.safetensors.index.json names; with
 *                 tokenizer.json it reads text; tokenizer_config.json and generation_config.json
 *                 count too. Borrowed during the call: weights are copied, to 4 bytes a parameter.
 * @param options  NULL: all defaults. A number of threads saves looking at the machine's.
 * @retval EMBER_E_USAGE  a file has no name, no bytes, or a name that is there twice.
 * @retval EMBER_E_IO     config.json is not among them. The other failures are those of
 *                        ember_model_open(); messages call a file by its name.
 */
EMBER_API EMBER_CHECKED ember_status ember_model_open_memory(const ember_model_file *files,
                                                             size_t n,
                                                             const ember_model_options *options,
                                                             ember_model **model);
EMBER_API void ember_model_close(ember_model *model); /**< NULL is fine. */

/** Tokens that it knows, V: rows of the output matrix, padding included. 0: it reads vectors. */
EMBER_API size_t ember_model_vocabulary(const ember_model *model);
/** The longest sequence that its config speaks of, in tokens; 0: none is named. */
EMBER_API size_t ember_model_context(const ember_model *model);
/** Parameters in all, and those that one token uses (k of E experts). */
EMBER_API void ember_model_parameters(const ember_model *model, size_t *total, size_t *active);
/** Whether text can go in and come out: the folder has a tokenizer. */
EMBER_API bool ember_model_reads_text(const ember_model *model);

/**
 * Text to tokens, as a prompt is read: with the tokens that the tokenizer puts in front, and texts
 * of special tokens as those tokens.
 *
 * @param text   n bytes; what is not UTF-8 becomes U+FFFD.
 * @param ids    written: *count ids, owned by the caller (ember_free()).
 * @retval EMBER_E_STATE  the model has no tokenizer.
 */
EMBER_API EMBER_CHECKED ember_status ember_model_encode(ember_model *model, const char *text,
                                                        size_t n, int32_t **ids, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
