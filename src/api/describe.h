// Shared by what describes things: a JSON value is made first, and text from it, so that both say
// the same.
#ifndef EM_API_DESCRIBE_H
#define EM_API_DESCRIBE_H

#include "base/buf.h"
#include "base/json.h"

// Puts a value (stolen; NULL is out of memory) into an object or at a list's end.
ember_status em_put(json_t *object, const char *key, json_t *value) EMBER_CHECKED;
ember_status em_put_size(json_t *object, const char *key, size_t value) EMBER_CHECKED;
ember_status em_put_text(json_t *object, const char *key, const char *value) EMBER_CHECKED;
ember_status em_push(json_t *list, json_t *value) EMBER_CHECKED;
// An empty object or list under a key (NULL: at a list's end), borrowed.
ember_status em_put_object(json_t *parent, const char *key, json_t **object) EMBER_CHECKED;
ember_status em_put_list(json_t *parent, const char *key, json_t **list) EMBER_CHECKED;

// Members that are known to be there.
size_t em_size_of(const json_t *object, const char *key);
const char *em_text_of(const json_t *object, const char *key);

// `object` (stolen; NULL: `status` says why) as the public functions return it: JSON, or what
// `print` makes of it.
ember_status em_describe(ember_status status, json_t *object, bool json,
                         ember_status (*print)(const json_t *object, struct em_buf *out),
                         char **text) EMBER_CHECKED;

// Of the registry's description, with everything in it.
ember_status em_print_markdown(const json_t *root, struct em_buf *out) EMBER_CHECKED;

// "1,234,567" and "1.5 MiB", in `text`, which is returned.
const char *em_count_text(size_t n, char text[32]);
const char *em_bytes_text(double bytes, char text[32]);

#endif
