/** @file infer.h  Text from a model: sampling, generation, and how well it predicts a text. */
#ifndef EMBER_INFER_H
#define EMBER_INFER_H

#include <ember/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which filters see what. */
typedef enum ember_sampler_order {
    EMBER_ORDER_LLAMA, /**< penalty over 64 tokens, top-k, top-p, min-p, and the temperature last */
    EMBER_ORDER_HF     /**< penalty over all tokens, the temperature, then top-k, top-p, min-p */
} ember_sampler_order;

/** How a token is drawn. Start from ember_sampling_default(): zero means zero here. */
typedef struct ember_sampling {
    double temperature;    /**< 0: always the most likely token */
    size_t top_k;          /**< the k most likely tokens; 0: off */
    double top_p;          /**< the fewest tokens that hold this probability; 1: off */
    double min_p;          /**< least probability, as a share of the largest; 0: off */
    double repeat_penalty; /**< for tokens that came before; 1: off */
    ember_sampler_order order;
} ember_sampling;

/**
 * What the model's generation_config.json says, read as transformers reads it; without a word
 * there, or with model NULL: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty.
 */
EMBER_API ember_sampling ember_sampling_default(const ember_model *model);

/** Why a continuation ended. */
typedef enum ember_finish {
    EMBER_FINISH_LENGTH, /**< max_tokens were made */
    EMBER_FINISH_END,    /**< an end token, which is the last of its ids */
    EMBER_FINISH_STOP,   /**< a stop string, which is not part of the text */
    EMBER_FINISH_CONTEXT /**< the model's context is full */
} ember_finish;
EMBER_API const char *ember_finish_name(ember_finish finish); /**< "length", "end", .. Static. */

typedef struct ember_answer {
    size_t prompt_tokens;
    size_t tokens; /**< made, an end token included */
    ember_finish finish;
    const int32_t *ids; /**< [prompt_tokens + tokens]; valid until on_end() returns */
} ember_answer;

/**
 * A prompt and what is wanted of it. Start from {0}. All pointers are borrowed until
 * ember_generate() returns. A function that returns anything but EMBER_OK ends the whole call with
 * that status.
 */
typedef struct ember_request {
    const char *text; /**< the prompt, n_text bytes; or NULL: */
    size_t n_text;
    const int32_t *ids; /**< its tokens, n_ids of them, taken as they are */
    size_t n_ids;
    size_t max_tokens;              /**< 0: 128 */
    const ember_sampling *sampling; /**< NULL: ember_sampling_default(model) */
    uint64_t seed;                  /**< the same seed gives the same tokens, alone or in a batch */
    const char *const *stop;        /**< n_stop strings; one that is a special token ends as such */
    size_t n_stop;
    const char *name; /**< of the prompt, for messages; NULL: "the prompt" */
    ember_status (*on_token)(void *context, int32_t id); /**< each token as it is made */
    /** Text as it is made, not NUL-terminated: whole characters, and never a part of a stop string.
     */
    ember_status (*on_text)(void *context, const char *text, size_t n);
    ember_status (*on_end)(void *context, const ember_answer *answer);
    void *context;
} ember_request;

/**
 * Continues n prompts, several in one pass; what each gives does not depend on the others. They end
 * in any order. Threads: one call at a time on a model, as for every call that has a model; the
 * functions of a request are called on the caller's thread.
 *
 * @retval EMBER_E_RANGE        before anything runs: a prompt is empty, longer than the model's
 *                              context (it is never cut), or has an id outside the vocabulary.
 * @retval EMBER_E_STATE        a text or a stop string, and the model has no tokenizer.
 * @retval EMBER_E_INTERRUPTED  ember_interrupt() was called: what was made has been given out.
 * @retval EMBER_E_NUMERIC      the model computed something that is not a number.
 */
EMBER_API EMBER_CHECKED ember_status ember_generate(ember_model *model,
                                                    const ember_request *requests, size_t n);

/**
 * Continues one prompt, for programs that want a text and no settings: those of
 * ember_sampling_default(model), seed 0, so the same prompt gives the same text. ember_generate()
 * has the rest.
 *
 * @param max_tokens  0: 128.
 * @param text        the continuation without the prompt, NUL-terminated, owned by the caller
 *                    (ember_free()).
 * Failures are those of ember_generate().
 */
EMBER_API EMBER_CHECKED ember_status ember_generate_text(ember_model *model, const char *prompt,
                                                         size_t max_tokens, char **text);

/** Start from {0}. */
typedef struct ember_generate_file_options {
    const ember_request *like; /**< max_tokens, sampling and stop strings of all; NULL: defaults */
    bool ids;                  /**< answers have their ids too, prompt included */
    uint64_t seed;             /**< prompt i (from 0) without a seed of its own gets seed + i */
    bool any_seed; /**< seed is a proposal: a job that goes on keeps the one it began with */
} ember_generate_file_options;

/**
 * Answers a file of prompts, several at a time.
 *
 * @param prompts  JSON lines: {"prompt": text} or {"prompt_ids": [..]}, with "id" and "seed" if
 *                 wanted.
 * @param answers  JSON lines in the same order, replaced durably when all are there: the prompt's
 *                 object with index, text, finish, prompt_tokens, tokens, seed (and ids). Until
 * then they are in ANSWERS.partial; the same call goes on from there.
 * @retval EMBER_E_FORMAT       a prompt's line is malformed; the message names it.
 * @retval EMBER_E_STATE        ANSWERS.partial belongs to another job.
 * @retval EMBER_E_INTERRUPTED  as ember_generate(); answers that are ready are kept.
 */
EMBER_API EMBER_CHECKED ember_status
ember_generate_file(ember_model *model, const char *prompts, const char *answers,
                    const ember_generate_file_options *options);

/** Start from {0}. */
typedef struct ember_eval_options {
    size_t context; /**< tokens of a window; 0: 2048 or the model's context, whichever is less, or
                         512 with llama_windows */
    bool llama_windows; /**< score as llama.cpp's perplexity does; see ember_eval() */
} ember_eval_options;

/** How well a text is predicted. Nats per token: nats / tokens; perplexity: exp of that; bits per
 * byte: nats / (ln 2 * bytes). */
typedef struct ember_evaluation {
    double nats;     /**< sum of -log p over the scored tokens */
    uint64_t tokens; /**< scored */
    uint64_t windows;
    double bytes; /**< raw bytes that they stand for */
} ember_evaluation;

/**
 * Scores texts: every token once, in windows of `context` that start from an empty state, each
 * beginning with the token that the one before scored last. A document's first token is scored
 * where the tokenizer puts a BOS in front. A text file is one document; of .jsonl every line is
 * one.
 *
 * With llama_windows a file is read as it is (but for one newline at its end), cut into windows of
 * `context` tokens side by side, whose first token is replaced by the BOS if the tokenizer has one
 * in front; the second half of each is scored, `context - context / 2 - 1` tokens; what does not
 * fill a window is left out.
 *
 * @param paths   files, folders or globs, n of them; with llama_windows files.
 * @param scores  [n], written.
 * @retval EMBER_E_STATE        the model has no tokenizer.
 * @retval EMBER_E_SHAPE        llama_windows, and a text of fewer than two windows.
 * @retval EMBER_E_NUMERIC      a loss is not finite; the message names the layer at fault.
 * @retval EMBER_E_INTERRUPTED  ember_interrupt() was called.
 */
EMBER_API EMBER_CHECKED ember_status ember_eval(ember_model *model, const char *const *paths,
                                                size_t n, const ember_eval_options *options,
                                                ember_evaluation *scores);

/** How well a model does on sequences of vectors or tokens with what is to be learnt of them. */
typedef struct ember_tensor_evaluation {
    double loss;        /**< sum over the scored places: cross-entropy in nats, or mean squares */
    uint64_t sequences; /**< read */
    uint64_t places;    /**< scored; outputs of whole sequences count as one each */
    uint64_t right;     /**< labels that are the most likely class, or token */
    bool labels;        /**< classes are told; otherwise values, of which none is right or wrong */
} ember_tensor_evaluation;

/**
 * Scores what ember_train() trains on as `data.tensors`: safetensors with `inputs` [S, B, T, I] or
 * `input_ids` [S, B, T], optional `timespans`, `lengths` and `mask`, and `labels` or `targets`, of
 * sequences or of places (docs/configs.md). Every sequence once, in evaluation mode.
 *
 * @param paths   files, n of them.
 * @param scores  [n], written.
 * @retval EMBER_E_FORMAT       a file lacks what the model reads, or what it is to tell.
 * @retval EMBER_E_SHAPE        a tensor has another shape or type.
 * @retval EMBER_E_RANGE        a value that cannot be: an id or a class that there is not, ...
 * @retval EMBER_E_CONFIG       labels or targets of places, and a model that makes one output.
 * @retval EMBER_E_NUMERIC      a loss is not finite; the message names the layer at fault.
 * @retval EMBER_E_INTERRUPTED  ember_interrupt() was called.
 */
EMBER_API EMBER_CHECKED ember_status ember_eval_tensors(ember_model *model,
                                                        const char *const *paths, size_t n,
                                                        ember_tensor_evaluation *scores);

#ifdef __cplusplus
}
#endif
#endif
