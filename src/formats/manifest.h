// MANIFEST.json: what a folder holds, written last. A folder without one, or that differs from it,
// is not whole.
#ifndef EM_FORMATS_MANIFEST_H
#define EM_FORMATS_MANIFEST_H

#include "base/fail.h"
#include "formats/hash.h"

#define EM_MANIFEST_NAME "MANIFEST.json"

enum { EM_MANIFEST_VERSION = 1 };

struct em_manifest_file {
    char *name; // relative, '/' between folders; no "." or ".." component
    struct em_file_hash hash;
};

struct em_manifest {
    uint64_t step;
    struct em_manifest_file *files; // sorted by name
    size_t count, capacity;
};

void em_manifest_deinit(struct em_manifest *m);

// What lies in `folder` now, at any depth, each file fsynced; symbolic links and other things that
// are no files are EMBER_E_FORMAT.
ember_status em_manifest_scan(const char *folder, uint64_t step,
                              struct em_manifest *out) EMBER_CHECKED;
ember_status em_manifest_write(const char *folder, const struct em_manifest *m) EMBER_CHECKED;

// `name` is used in messages. EMBER_E_UNSUPPORTED: whole, but of a later version.
ember_status em_manifest_parse(const char *name, const char *text, size_t size,
                               struct em_manifest *out) EMBER_CHECKED;
ember_status em_manifest_read(const char *folder, struct em_manifest *out) EMBER_CHECKED;

// Every file is there with its size and, with `content`, its hash. The message names the first that
// is not.
ember_status em_manifest_verify(const char *folder, const struct em_manifest *m,
                                bool content) EMBER_CHECKED;

#endif
