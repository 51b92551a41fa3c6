// A file's bytes, decompressed on the way: gzip and zstd are known by their first bytes.
#ifndef EM_DATA_STREAM_H
#define EM_DATA_STREAM_H

#include <stddef.h>

#include "base/fail.h"

struct em_stream;

// EMBER_E_UNSUPPORTED: compressed in a way that this build lacks.
ember_status em_stream_open(const char *path, struct em_stream **out) EMBER_CHECKED;
void em_stream_close(struct em_stream *stream); // NULL is fine

// Up to n bytes (n >= 1) into `to`; *got = 0 only at the end. Damaged or truncated data are
// EMBER_E_FORMAT.
ember_status em_stream_read(struct em_stream *stream, void *to, size_t n,
                            size_t *got) EMBER_CHECKED;

#endif
