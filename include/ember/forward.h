/** @file forward.h  Logits and gradients of a model for given tokens, from file to file. */
#ifndef EMBER_FORWARD_H
#define EMBER_FORWARD_H

#include <stddef.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Start from {0}. */
typedef struct ember_forward_options {
    ember_runtime runtime; /**< compute: default f32 */
    bool gradients;        /**< also `loss` and `grad.NAME` for every parameter */
    size_t chunk;          /**< tokens at a time through the carried state; 0: all at once */
    bool masked;           /**< leave out what `mask` of the file says; see below */
} ember_forward_options;

/**
 * Threads: any, at any time; each call opens a model of its own.
 *
 * Runs a model in evaluation mode over the rows of a safetensors file, each a sequence of its own.
 *
 * @param model  a folder with config.json and weights.
 * @param in     safetensors with `input_ids` [B, T] (i32 or i64), or, for models of `inputs`,
 * `inputs` [B, T, D] and, if wanted, `timespans` [B, T] (f32, > 0; 1 where absent). Other tensors
 * are ignored.
 * @param out    safetensors, replaced durably: f32 `logits` [B, T, V] or `outputs` [B, T, M]; with
 * gradients also `loss` [1], the mean next-token cross-entropy in nats over B (T-1) places (for
 * `inputs`: the mean squared output), and `grad.NAME` in the parameter's shape in the model's
 * files, zeros where nothing reached it; buffers have none. Left as it was on failure.
 * @param options  NULL: all defaults.
 *
 * With `masked`, `mask` [B, T] (i32 or i64, 0 or 1) is read too, as training reads it: a place of 0
 * was not observed. It is left out, and its time is added to the next one's span, so that the state
 * goes on over it; its outputs are zeros, and it has no part in the loss.
 *
 * @retval EMBER_E_USAGE   gradients together with chunk.
 * @retval EMBER_E_FORMAT  `in` is malformed or lacks the tensor that the model reads.
 * @retval EMBER_E_SHAPE   a tensor of `in` has a shape or type that the model cannot read, or a
 * loss is wanted of rows of one token.
 * @retval EMBER_E_RANGE   an id outside the vocabulary, an input that is not finite, a time
 * span that is not positive, or a mask that leaves nothing of a row.
 * @retval EMBER_E_NUMERIC the model's weights or what it computes of them are not finite; the
 * message names the tensor, or the layer that is the first to be at fault.
 * @retval EMBER_E_IO      a file cannot be read or written.
 * Other failures are those of ember_model_open().
 */
EMBER_API EMBER_CHECKED ember_status ember_forward_file(const char *model, const char *in,
                                                        const char *out,
                                                        const ember_forward_options *options);

#ifdef __cplusplus
}
#endif
#endif
