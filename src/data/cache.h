// Text tokenised once: the tokens of a domain's documents in one file that is mapped. Its name
// carries a key of the content and of the tokenizer, its end a checksum; what does not fit is made
// anew.
#ifndef EM_DATA_CACHE_H
#define EM_DATA_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/io.h"
#include "base/threads.h"
#include "data/documents.h"
#include "text/tokenizer.h"

// A document is the tokens [start, next document's start): what the tokenizer's template puts in
// front (BOS), the text's, and EOS. Special tokens' spellings in the text are plain text.
struct em_cache_document {
    uint64_t start;
    uint64_t bytes; // raw bytes that its targets stand for: without the first token's, where no BOS
                    // precedes it
    uint64_t hash;  // XXH3 of the text
};

// A file that a cache was made of.
struct em_cache_file {
    char *path;
    uint64_t bytes, xxh3;
};

struct em_cache {
    const struct em_cache_document *documents; // [count + 1]; the last one's start is `tokens`
    uint64_t count, tokens;
    const uint16_t *narrow; // one of the two
    const uint32_t *wide;
    struct em_document_stats stats;
    bool made;                   // and not found
    struct em_cache_file *files; // NULL where the cache is kept in memory
    size_t file_count;
    struct em_map map;
    void *memory;
};

struct em_cache_request {
    const char *name;   // of the domain
    char *const *paths; // its files
    size_t path_count;
    bool strict; // see em_documents_open
    struct em_document_options options;
    const struct em_tokenizer *tokenizer;
    bool no_eos;           // documents do not end with EOS
    const char *directory; // NULL: kept in memory, no file is written
    bool tidy;             // remove the domain's files of other keys from `directory`
    struct em_pool *pool;  // may be NULL
};

ember_status em_cache_open(const struct em_cache_request *request,
                           struct em_cache *out) EMBER_CHECKED;
void em_cache_close(struct em_cache *cache);

static inline int32_t em_cache_token(const struct em_cache *cache, uint64_t i)
{
    return (int32_t)(cache->narrow ? cache->narrow[i] : cache->wide[i]);
}

#endif
