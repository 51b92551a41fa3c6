/** @file tokenizer.h  Text to token ids and back; training of tokenizers. */
#ifndef EMBER_TOKENIZER_H
#define EMBER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A tokenizer. Threads: not changed by any call, many threads may share one. Free with
 * ember_tokenizer_close(). */
typedef struct ember_tokenizer ember_tokenizer;

/**
 * Opens a tokenizer as Hugging Face's tokenizer.json describes it (byte-level BPE: LFM2, Llama 3,
 * GPT-2, Qwen2, SmolLM2, GPT-NeoX and the like).
 *
 * @param path  a tokenizer.json, or a folder that has one; a tokenizer_config.json beside it names
 * BOS, EOS, PAD.
 * @retval EMBER_E_IO           the file cannot be read.
 * @retval EMBER_E_FORMAT       it is malformed; the message names the place.
 * @retval EMBER_E_UNSUPPORTED  it asks for something that Ember lacks; the message names it.
 */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_open(const char *path,
                                                          ember_tokenizer **tokenizer);

/** The tokenizer without a file: byte b has id 3 + b; PAD is 0, BOS 1, EOS 2. */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_bytes(ember_tokenizer **tokenizer);

/** NULL is fine. */
EMBER_API void ember_tokenizer_close(ember_tokenizer *tokenizer);

/** Writes DIRECTORY/tokenizer.json and tokenizer_config.json, each replaced durably; the folder is
 * made. */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_save(const ember_tokenizer *tokenizer,
                                                          const char *directory);

/** The largest token id plus one. */
EMBER_API size_t ember_tokenizer_size(const ember_tokenizer *tokenizer);

/** Begin-of-text, end-of-text and padding ids; -1 where there is none. */
EMBER_API int32_t ember_tokenizer_bos(const ember_tokenizer *tokenizer);
EMBER_API int32_t ember_tokenizer_eos(const ember_tokenizer *tokenizer);
EMBER_API int32_t ember_tokenizer_pad(const ember_tokenizer *tokenizer);

/** The id of an added token with this text, else of the token with these bytes; -1: none. */
EMBER_API int32_t ember_tokenizer_find(const ember_tokenizer *tokenizer, const char *bytes,
                                       size_t n);

/** The bytes of a token, borrowed from the tokenizer, maybe a part of a character; NULL: no such
 * id. */
EMBER_API const char *ember_tokenizer_token(const ember_tokenizer *tokenizer, int32_t id,
                                            size_t *n);

/** How to encode and decode; 0 is the default. */
enum {
    EMBER_TOKENIZER_NO_SPECIAL =
        1, /**< encode: no BOS or other token around the text, and texts of special tokens
                stay text; decode: special tokens leave no text */
    EMBER_TOKENIZER_RAW =
        2 /**< decode: the bytes as they are; else what is not UTF-8 becomes U+FFFD */
};

/**
 * Turns text into token ids.
 *
 * @param text   n bytes, borrowed; what is not UTF-8 counts as U+FFFD, as in Python's
 * errors="replace".
 * @param flags  0 or EMBER_TOKENIZER_NO_SPECIAL.
 * @param ids    owned by the caller (ember_free()); not NULL, even for no ids.
 * @retval EMBER_E_NOMEM  about 4 bytes a token, and for pieces without a cut 30 bytes a byte.
 */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_encode(const ember_tokenizer *tokenizer,
                                                            const char *text, size_t n,
                                                            unsigned flags, int32_t **ids,
                                                            size_t *count);

/**
 * Turns token ids into text.
 *
 * @param flags  of EMBER_TOKENIZER_NO_SPECIAL and EMBER_TOKENIZER_RAW.
 * @param text   owned by the caller (ember_free()), with a NUL after its n bytes.
 * @retval EMBER_E_RANGE  an id without a token; the message has it.
 */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_decode(const ember_tokenizer *tokenizer,
                                                            const int32_t *ids, size_t count,
                                                            unsigned flags, char **text, size_t *n);

/** What the tokenizer consists of, for people or (json) as a JSON object; owned by the caller
 * (ember_free()). */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_inspect(const ember_tokenizer *tokenizer,
                                                             bool json, char **text);

/** How to train a tokenizer. Start from {0}. */
typedef struct ember_tokenizer_training {
    size_t vocab;         /**< tokens in all, at least 259; default 8192 */
    size_t min_frequency; /**< how often a pair has to occur to become a token; default 2 */
    unsigned threads;     /**< that count words; default: what affinity and cgroup quota allow */
    const char *text_key; /**< of the text in JSON lines; default "text" */
} ember_tokenizer_training;

/** What a training read. */
typedef struct ember_tokenizer_corpus {
    uint64_t files, documents, bytes;
} ember_tokenizer_corpus;

/**
 * Trains a byte-level BPE tokenizer with LFM2's split pattern and special tokens (PAD 0, BOS 1, EOS
 * 2, then the 256 bytes, then merges). The same text gives the same tokenizer, whatever the
 * threads. Where the text yields fewer merges than asked for, the vocabulary is smaller and the log
 * has a line.
 *
 * @param paths    files, folders or globs; .gz and .zst are decompressed, of .jsonl files every
 * line is a document.
 * @param corpus   what was read; may be NULL.
 * @retval EMBER_E_CONFIG  `vocab` is too small or too large.
 */
EMBER_API EMBER_CHECKED ember_status ember_tokenizer_train(const char *const *paths,
                                                           size_t path_count,
                                                           const ember_tokenizer_training *options,
                                                           ember_tokenizer **tokenizer,
                                                           ember_tokenizer_corpus *corpus);

#ifdef __cplusplus
}
#endif
#endif
