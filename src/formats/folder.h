// A model folder: files by name, on disk or in memory. Whoever reads a model reads it through this,
// so that the two cannot differ.
#ifndef EM_FORMATS_FOLDER_H
#define EM_FORMATS_FOLDER_H

#include <ember/model.h>

#include "base/json.h"
#include "formats/safetensors.h"

struct em_folder {
    const char *path;              // on disk; NULL: in memory:
    const ember_model_file *files; // [count], borrowed
    size_t count;
};

// Files in memory have plain names, each once, and bytes: else EMBER_E_USAGE.
ember_status em_folder_check(const struct em_folder *folder) EMBER_CHECKED;

// What messages call a file: "PATH/name", in memory its name. Owned; NULL: out of memory.
char *em_folder_name(const struct em_folder *folder, const char *name);

ember_status em_folder_has(const struct em_folder *folder, const char *name,
                           bool *has) EMBER_CHECKED;
// As em_json_read and em_safetensors_open; a file that is not among those in memory is EMBER_E_IO.
ember_status em_folder_json(const struct em_folder *folder, const char *name, size_t limit,
                            int flags, json_t **out) EMBER_CHECKED;
ember_status em_folder_safetensors(const struct em_folder *folder, const char *name,
                                   struct em_safetensors **out) EMBER_CHECKED;

#endif
