// A tokenizer: text to ids and back, as Hugging Face's tokenizer.json describes it (byte-level
// BPE, or single characters). Constant after opening: many threads may share one, each with an
// encoder of its own.
#ifndef EM_TEXT_TOKENIZER_H
#define EM_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"
#include "formats/folder.h"
#include "text/bpe.h" // struct em_ids

struct em_tokenizer;

// `path`: a tokenizer.json, or a folder with one (and a tokenizer_config.json, whose bos_token,
// eos_token and pad_token name those ids). EMBER_E_FORMAT: malformed; EMBER_E_UNSUPPORTED: names
// the part that Ember cannot do (another model, normalizer, pre-tokenizer or split pattern).
ember_status em_tokenizer_open(const char *path, struct em_tokenizer **tokenizer) EMBER_CHECKED;

// A folder's, which may be in memory.
ember_status em_tokenizer_open_in(const struct em_folder *folder,
                                  struct em_tokenizer **tokenizer) EMBER_CHECKED;

// The same from memory; `name` is for messages. Without a config, bos, eos and pad are the names in
// use.
ember_status em_tokenizer_parse(const char *name, const char *text, size_t n,
                                struct em_tokenizer **tokenizer) EMBER_CHECKED;

// Every byte is a token: byte b has id 3 + b; <|pad|> 0, <|startoftext|> 1, <|endoftext|> 2.
ember_status em_tokenizer_bytes(struct em_tokenizer **tokenizer) EMBER_CHECKED;

// Each character of `alphabet` (UTF-8, each once) is a token, from id 7 on; any other is [UNK] 6.
// [CLS] 0 and [SEP] 1 stand around a text; [BOS] 2, [MASK] 3, [PAD] 4, [RESERVED] 5. "ACGTN" makes
// HyenaDNA's. Upper and lower case are different characters. EMBER_E_RANGE: no such alphabet.
ember_status em_tokenizer_characters(const char *alphabet,
                                     struct em_tokenizer **tokenizer) EMBER_CHECKED;

void em_tokenizer_close(struct em_tokenizer *tokenizer);

// Writes DIR/tokenizer.json and DIR/tokenizer_config.json, durably; DIR is made. A tokenizer that
// was opened from a file is written as that file has it, but in a normal form.
ember_status em_tokenizer_save(const struct em_tokenizer *tokenizer,
                               const char *directory) EMBER_CHECKED;

size_t em_tokenizer_size(const struct em_tokenizer *tokenizer); // the largest id + 1
size_t em_tokenizer_merges(const struct em_tokenizer *tokenizer);
int32_t em_tokenizer_bos(const struct em_tokenizer *tokenizer); // -1: none, as for the other two
int32_t em_tokenizer_eos(const struct em_tokenizer *tokenizer);
int32_t em_tokenizer_pad(const struct em_tokenizer *tokenizer);

// XXH3 of everything that decides ids: tokens, merges, steps, template. For caches of tokenised
// data.
uint64_t em_tokenizer_hash(const struct em_tokenizer *tokenizer);

// An added token with this text, else the token of these bytes; -1: none.
int32_t em_tokenizer_find(const struct em_tokenizer *tokenizer, const void *bytes, size_t n);
// The bytes of a token, borrowed; NULL for an id without one. They may not be whole UTF-8.
const uint8_t *em_tokenizer_token(const struct em_tokenizer *tokenizer, int64_t id, size_t *n);
bool em_tokenizer_is_special(const struct em_tokenizer *tokenizer, int64_t id);

// What the tokenizer consists of: model, added tokens, steps, roles, template, hash. For people (a
// line each), or as one JSON object with a newline.
ember_status em_tokenizer_describe(const struct em_tokenizer *tokenizer, bool json,
                                   struct em_buf *out) EMBER_CHECKED;

enum em_encode_flags {
    EM_ENCODE_ADD_SPECIAL = 1, // the template's tokens around the text (BOS)
    EM_ENCODE_PARSE_SPECIAL =
        2, // texts of special tokens become those tokens; else they are plain text
    EM_ENCODE_DEFAULT = 3,
};

// One thread's work space for encoding with one tokenizer, which outlives it. About 1 MiB.
struct em_encoder;
ember_status em_encoder_create(const struct em_tokenizer *tokenizer,
                               struct em_encoder **encoder) EMBER_CHECKED;
void em_encoder_destroy(struct em_encoder *encoder);

// Appends the ids of n bytes. What is not UTF-8 becomes U+FFFD, as Python's errors="replace" does.
// On failure `ids` is as it was.
ember_status em_encode(struct em_encoder *encoder, const void *text, size_t n, unsigned flags,
                       struct em_ids *ids) EMBER_CHECKED;

enum em_decode_flags {
    EM_DECODE_SKIP_SPECIAL = 1, // special tokens leave no text
    EM_DECODE_RAW = 2,          // the bytes as they are; else what is not UTF-8 becomes U+FFFD
};

// Appends the text of the ids. EMBER_E_RANGE: an id without a token; `out` is as it was.
ember_status em_decode(const struct em_tokenizer *tokenizer, const int32_t *ids, size_t count,
                       unsigned flags, struct em_buf *out) EMBER_CHECKED;

// Decoding token by token: whole characters only. The bytes of an unfinished one wait in `tail`.
struct em_decode_stream {
    uint8_t tail[4];
    unsigned waiting;
};
ember_status em_decode_next(const struct em_tokenizer *tokenizer, struct em_decode_stream *stream,
                            int32_t id, unsigned flags, struct em_buf *out) EMBER_CHECKED;
// After the last id: an unfinished character becomes U+FFFD.
ember_status em_decode_end(struct em_decode_stream *stream, struct em_buf *out) EMBER_CHECKED;

#endif
