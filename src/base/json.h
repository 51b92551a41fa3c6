// JSON: values are jansson's, the text is read and written here, with what configs and recipes need
// (// and /* */ comments, trailing commas), duplicate keys refused, depth limited, and errors as
// "file:line:column: message".
#ifndef EM_BASE_JSON_H
#define EM_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"

enum em_json_flags {
    EM_JSON_COMMENTS = 1, // allow comments and trailing commas (recipes and configs)
    EM_JSON_DENSE = 2,    // a file that is known for its many small values (vocabularies)
};

// `name` is used in messages only. Depth over 64 and invalid UTF-8 are EMBER_E_FORMAT; so are more
// values than fit, with the text, into twice its size and 64 MiB (EM_JSON_DENSE: four times), as
// `[[],[],..` takes forty times its size. Also accepted: the bare words Infinity, -Infinity and NaN
// that Python's json writes (as the strings of the same spelling).
ember_status em_json_parse(const char *name, const char *text, size_t size, int flags,
                           json_t **out) EMBER_CHECKED;
ember_status em_json_read(const char *path, size_t limit, int flags,
                          json_t **out) EMBER_CHECKED; // limit 0: 64 MiB

// indent 0: compact. Keys keep their order. Real numbers are written so that they read back equal.
ember_status em_json_print(const json_t *value, int indent, struct em_buf *out) EMBER_CHECKED;
ember_status em_json_write(const char *path, const json_t *value,
                           int indent) EMBER_CHECKED; // durable, newline at the end

// A member of an object, with a message that names `where` ("file: path.to") when it has another
// type; absent or null leaves *out as it was. Integers must be integral and within [min, max].
ember_status em_json_get_size(const json_t *object, const char *where, const char *key, size_t min,
                              size_t max, size_t *out) EMBER_CHECKED;
ember_status em_json_get_double(const json_t *object, const char *where, const char *key,
                                double min, double max, double *out) EMBER_CHECKED;
ember_status em_json_get_bool(const json_t *object, const char *where, const char *key,
                              bool *out) EMBER_CHECKED;
ember_status em_json_get_string(const json_t *object, const char *where, const char *key,
                                const char **out) EMBER_CHECKED; // borrowed

// jansson's allocator is the process's: a program that embeds Ember may use jansson too, and may
// have chosen one. Ember leaves it alone unless this is called, before there is any value; then
// values come from em_alloc. Either way nothing is lost silently when memory ends.
void em_json_use_seam(void);

// What a message has between a place and the key in it: ": " after a file's name, "." after a path.
const char *em_json_joint(const char *where);

// What a message says was found: "an object", "12", "\"text\"", cut to fit; NULL: "nothing".
// Returns `text`.
const char *em_json_text(const json_t *value, char *text, size_t size);

// The name in `names` nearest to `word` (edit distance, at most a third of its length), or NULL.
const char *em_did_you_mean(const char *word, const char *const *names, size_t count);

#endif
