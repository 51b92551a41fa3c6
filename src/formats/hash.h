// What is known of a file: whether it is there, and the XXH3 of its bytes, for manifests and
// caches.
#ifndef EM_FORMATS_HASH_H
#define EM_FORMATS_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

struct em_file_hash {
    uint64_t bytes, xxh3;
};

// Whether there is something at `path`. Unlike em_path_exists a failure is not taken for absence:
// deciding on it, a state would be thrown away because of one bad read.
ember_status em_file_probe(const char *path, bool *exists) EMBER_CHECKED;
// As probe, of folder/name; without a folder (NULL) there is none.
ember_status em_folder_probe(const char *folder, const char *name, bool *exists) EMBER_CHECKED;

uint64_t em_hash_bytes(const void *p, size_t n);

// Reads the file with read() and not through a map: a bad sector is then a status and no signal.
// With `sync` the file is fsynced first.
ember_status em_hash_file(const char *path, bool sync, struct em_file_hash *out) EMBER_CHECKED;

#endif
