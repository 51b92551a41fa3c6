// XXH3 of files, for manifests and caches.
#ifndef EM_FORMATS_HASH_H
#define EM_FORMATS_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

struct em_file_hash {
    uint64_t bytes, xxh3;
};

uint64_t em_hash_bytes(const void *p, size_t n);

// Reads the file with read() and not through a map: a bad sector is then a status and no signal.
// With `sync` the file is fsynced first.
ember_status em_hash_file(const char *path, bool sync, struct em_file_hash *out) EMBER_CHECKED;

#endif
