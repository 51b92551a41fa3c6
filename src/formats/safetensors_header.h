// The JSON header of a safetensors file, by a parser of its own: it reads one shape of document
// without building a tree, so a hostile header costs no more memory than a few times its length.
#ifndef EM_FORMATS_SAFETENSORS_HEADER_H
#define EM_FORMATS_SAFETENSORS_HEADER_H

#include "base/arena.h"
#include "base/buf.h"
#include "formats/safetensors.h"

struct em_st_entry {
    struct em_st_tensor tensor; // data not set yet
    uint64_t begin, end;        // offsets into the data
};

struct em_st_header {
    struct em_arena arena; // names, shapes, metadata strings
    struct em_st_entry *entries;
    size_t count, capacity;
    struct em_st_pair *metadata;
    size_t metadata_count, metadata_capacity;
};

// `file` names the file in messages. On failure the header is empty.
ember_status em_st_header_parse(const char *file, const char *text, size_t size,
                                struct em_st_header *out) EMBER_CHECKED;
void em_st_header_deinit(struct em_st_header *header);

// Sets hashed and xxh3 of the tensors, sorted by name, from the metadata.
void em_st_take_hashes(const struct em_st_pair *metadata, size_t pairs,
                       struct em_st_tensor *const *by_name, size_t count);
// The value of EM_ST_HASHES for what is to be written, appended; `path` is for messages.
ember_status em_st_put_hashes(const char *path, const struct em_st_write *w,
                              struct em_buf *out) EMBER_CHECKED;

// Whether [text, text + size) is valid UTF-8 without NUL (RFC 3629: no surrogates, no overlong
// forms).
bool em_st_utf8_valid(const char *text, size_t size);

#endif
