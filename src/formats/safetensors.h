// safetensors files: u64 LE header length | JSON header | tensor data. The reader maps the file and
// checks all of it before it hands out a pointer; the writer replaces the file durably, in the
// order of the reference writer, without a second copy of the data in memory.
#ifndef EM_FORMATS_SAFETENSORS_H
#define EM_FORMATS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

// The dtypes a file may hold: more than Ember computes with.
enum em_st_dtype {
    EM_ST_BOOL,
    EM_ST_F4,
    EM_ST_F6_E2M3,
    EM_ST_F6_E3M2,
    EM_ST_U8,
    EM_ST_I8,
    EM_ST_F8_E5M2,
    EM_ST_F8_E4M3,
    EM_ST_F8_E8M0,
    EM_ST_I16,
    EM_ST_U16,
    EM_ST_F16,
    EM_ST_BF16,
    EM_ST_I32,
    EM_ST_U32,
    EM_ST_F32,
    EM_ST_C64,
    EM_ST_F64,
    EM_ST_I64,
    EM_ST_U64,
    EM_ST_DTYPE_COUNT
};
const char *em_st_dtype_name(enum em_st_dtype dtype);                           // "F32"
size_t em_st_dtype_bits(enum em_st_dtype dtype);                                // of one element
bool em_st_dtype_parse(const char *name, size_t length, enum em_st_dtype *out); // false: unknown

// Bytes that `elements` values of a dtype take; false when that wraps or ends inside a byte.
bool em_st_bytes(enum em_st_dtype dtype, size_t elements, size_t *bytes);

// A tensor in an open file: everything is borrowed from it. Row-major, little endian. `data` is
// aligned to nothing that the file does not promise: read it through memcpy or em_st_to_f32.
struct em_st_tensor {
    const char *name;
    const size_t *shape;
    const unsigned char *data;
    size_t rank, elements, bytes;
    enum em_st_dtype dtype;
    bool hashed;   // the file says what its bytes hash to
    uint64_t xxh3; // then
};

// In __metadata__, files that Ember writes have the XXH3 of every tensor: 16 hexadecimal digits
// each, in the order of the names. Other readers pass over it. Where their number is not that of
// the tensors, another program has changed the file, and they mean nothing.
#define EM_ST_HASHES "ember.xxh3"

struct em_st_pair {
    const char *key, *value;
};

struct em_safetensors;

enum { EM_ST_HEADER_LIMIT = 100000000 };

// Every tensor's dtype, shape and place are checked: no holes, no overlap, no duplicate, nothing
// past the end. EMBER_E_FORMAT otherwise; EMBER_E_UNSUPPORTED for a pickle file, with a line how to
// convert it.
ember_status em_safetensors_open(const char *path, struct em_safetensors **out) EMBER_CHECKED;

// As open, of a file already in memory, which is borrowed until close. `name` is used in messages.
ember_status em_safetensors_parse(const char *name, const unsigned char *data, size_t size,
                                  struct em_safetensors **out) EMBER_CHECKED;
void em_safetensors_close(struct em_safetensors *file); // NULL is fine

// Values that were used and will hardly be again: of a mapped file they stop counting as memory.
void em_safetensors_forget(const struct em_safetensors *file, const void *values, size_t bytes);

const char *em_safetensors_path(const struct em_safetensors *file);
size_t em_safetensors_count(const struct em_safetensors *file);
const struct em_st_tensor *em_safetensors_at(const struct em_safetensors *file,
                                             size_t i); // in the data's order
const struct em_st_tensor *em_safetensors_find(const struct em_safetensors *file,
                                               const char *name); // or NULL
size_t em_safetensors_metadata_count(const struct em_safetensors *file);
struct em_st_pair em_safetensors_metadata_at(const struct em_safetensors *file, size_t i);
const char *em_safetensors_metadata(const struct em_safetensors *file, const char *key); // or NULL

// Whether the tensor's bytes are those that were written: OK also where the file does not say.
// `file` is for the message. EMBER_E_FORMAT.
ember_status em_st_tensor_verify(const char *file, const struct em_st_tensor *tensor) EMBER_CHECKED;
// All tensors of a file.
ember_status em_safetensors_verify(const struct em_safetensors *file) EMBER_CHECKED;

// "[3, 4]" into `out`, cut to fit; returns `out`. For messages.
const char *em_st_shape_text(const size_t *shape, size_t rank, char *out, size_t size);

// `n` values of F32, BF16, F16 or F64 as float, from any address; exact but for F64, which is
// rounded to nearest. Other dtypes are EMBER_E_UNSUPPORTED.
ember_status em_st_to_f32(enum em_st_dtype dtype, const void *from, float *to,
                          size_t n) EMBER_CHECKED;
ember_status em_st_tensor_f32(const struct em_st_tensor *tensor,
                              float *to) EMBER_CHECKED; // names the tensor
// Element i of a tensor of I32 or I64.
int64_t em_st_integer(const struct em_st_tensor *tensor, size_t i);

// A tensor to be written; all borrowed. Where `data` is NULL, the file's source is asked for it.
struct em_st_output {
    const char *name;
    const size_t *shape;
    const void *data;
    size_t rank;
    enum em_st_dtype dtype;
};

// Writes bytes [offset, offset + bytes) of tensor `index` (of the list given) to `to`. Called in
// order of offset, in pieces that are multiples of 8 bytes but for the last.
typedef ember_status em_st_source(void *context, size_t index, size_t offset, void *to,
                                  size_t bytes);

struct em_st_write {
    const struct em_st_output *tensors;
    size_t count;
    const struct em_st_pair *metadata; // none: {"format": "pt"}, which other readers insist on
    size_t metadata_count;
    em_st_source *source; // may be NULL when every tensor has its data
    void *context;
    bool hashes; // write EM_ST_HASHES: the source is asked for everything twice
};

// Replaces `path` durably; until it returns EMBER_OK the old file is in place. Tensors are written
// by element size descending, then name. A name given twice or of invalid UTF-8 is EMBER_E_FORMAT.
ember_status em_safetensors_write(const char *path, const struct em_st_write *w) EMBER_CHECKED;

#endif
