// The cache's file: tokens, padding to 8, document table, footer. Written front to back, so that a
// build needs no memory for the tokens.
#ifndef EM_DATA_CACHE_FILE_H
#define EM_DATA_CACHE_FILE_H

#include "data/cache.h"

// Little endian, as the machine has it. The footer's own hash is its last member.
struct em_cache_footer {
    char magic[8];
    uint32_t version, token_bytes;
    uint64_t key, count, tokens, payload_hash;
    struct em_document_stats stats;
    uint64_t footer_hash;
};

// Where the bytes of a cache go: to a file, replaced durably, or to memory.
struct em_cache_writer {
    struct em_file file;
    struct em_buf memory;
    bool to_file;
    void *hash;
    uint64_t written;
    struct em_cache_document *documents;
    size_t count, capacity;
    uint64_t tokens;
    uint32_t token_bytes;
};

// `path` NULL: to memory.
ember_status em_cache_writer_open(const char *path, size_t vocabulary,
                                  struct em_cache_writer *w) EMBER_CHECKED;
ember_status em_cache_writer_add(struct em_cache_writer *w, const int32_t *ids, size_t n,
                                 uint64_t bytes, uint64_t hash) EMBER_CHECKED;
// *memory: the bytes, owned by the caller; NULL for a file.
ember_status em_cache_writer_finish(struct em_cache_writer *w, uint64_t key,
                                    const struct em_document_stats *stats, void **memory,
                                    size_t *size) EMBER_CHECKED;
void em_cache_writer_abort(struct em_cache_writer *w); // fine after finish

// Checks everything and fills the views of `out`. `name` is used in messages.
ember_status em_cache_view(const char *name, const unsigned char *data, size_t size, uint64_t key,
                           size_t vocabulary, struct em_cache *out) EMBER_CHECKED;

#endif
