// The weights of a model folder: one model.safetensors, or the shards that
// model.safetensors.index.json names, seen as one set of tensors.
#ifndef EM_FORMATS_WEIGHTS_H
#define EM_FORMATS_WEIGHTS_H

#include "formats/folder.h"

struct em_weights;

// `path` is a folder (its index if there is one, else model.safetensors, else its only
// *.safetensors) or a .safetensors file. EMBER_E_FORMAT names the shard or tensor that is missing,
// placed twice, or placed outside the folder; EMBER_E_UNSUPPORTED when there is only pickle.
ember_status em_weights_open(const char *path, struct em_weights **out) EMBER_CHECKED;
// The same of a folder that may be in memory; its bytes are borrowed until close.
ember_status em_weights_open_in(const struct em_folder *folder,
                                struct em_weights **out) EMBER_CHECKED;
void em_weights_close(struct em_weights *weights); // NULL is fine; tensors are gone with it

size_t em_weights_count(const struct em_weights *weights);
const struct em_st_tensor *em_weights_at(const struct em_weights *weights,
                                         size_t i); // by file, then the data's order
const struct em_st_tensor *em_weights_find(const struct em_weights *weights,
                                           const char *name); // or NULL

// As find, but a missing tensor is EMBER_E_FORMAT (with the nearest name), another shape
// EMBER_E_SHAPE.
ember_status em_weights_need(const struct em_weights *weights, const char *name,
                             const size_t *shape, size_t rank,
                             const struct em_st_tensor **out) EMBER_CHECKED;

// Values that were used and will hardly be again; see em_safetensors_forget.
void em_weights_forget(const struct em_weights *weights, const void *values, size_t bytes);

const char *em_weights_path(const struct em_weights *weights); // as given to open
// For messages: the file that holds a tensor; NULL: the one that lists them all (the index, or the
// only file).
const char *em_weights_file_of(const struct em_weights *weights, const struct em_st_tensor *tensor);
size_t em_weights_files(const struct em_weights *weights);
const struct em_safetensors *em_weights_file(const struct em_weights *weights, size_t i);
uint64_t em_weights_bytes(const struct em_weights *weights); // of all tensors

#endif
