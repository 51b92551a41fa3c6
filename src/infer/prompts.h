// Prompts from a file of JSON lines, for batches.
#ifndef EM_INFER_PROMPTS_H
#define EM_INFER_PROMPTS_H

#include "base/arena.h"
#include "base/json.h"

// {"prompt": text} or {"prompt_ids": [id, ..]}; with "id" (any value, copied into the answer) and
// "seed" if wanted.
struct em_prompt {
    const char *name; // "FILE:LINE"
    const char *text; // NULL: ids
    size_t n_text;
    const int32_t *ids;
    size_t n_ids;
    const json_t *line; // the whole object
    bool seeded;
    uint64_t seed;
};

struct em_prompts {
    struct em_prompt *prompt; // [count]
    size_t count, capacity;
    uint64_t hash; // of the file's bytes
    struct em_arena arena;
};

// Empty lines are passed over. EMBER_E_FORMAT names line and key: not JSON, neither or both of
// prompt and prompt_ids, a key that is not known.
ember_status em_prompts_read(const char *path, struct em_prompts *out) EMBER_CHECKED;
// The same from memory; `name` is the file's in messages.
ember_status em_prompts_parse(const char *name, const char *text, size_t size,
                              struct em_prompts *out) EMBER_CHECKED;
void em_prompts_deinit(struct em_prompts *p);

#endif
