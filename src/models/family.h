// Model families: what a config.json's model_type means, in terms of a free block list, and what
// its parameters are called in files.
#ifndef EM_MODELS_FAMILY_H
#define EM_MODELS_FAMILY_H

#include "base/arena.h"
#include "base/json.h"
#include "formats/weights.h"

// A pattern of names: '#' is the block's index, '@' an expert's. A parameter whose experts are
// stacked has '@' in `theirs` only (each expert is a tensor of its own there).
struct em_name {
    const char *ours, *theirs;
    int shape; // enum em_file_shape; tables that say false and true mean the first two
};

// How files have the dimensions that a parameter has here.
enum em_file_shape {
    EM_AS_IT_IS,
    EM_DEPTHWISE,    // [D, L] here, [D, 1, L] there
    EM_ONE_IN_FRONT, // [..] here, [1, ..] there
    EM_TWO_IN_FRONT  // [..] here, [1, 1, ..] there
};

struct em_family {
    const char *name; // model_type
    const char *help;
    const char *architecture;    // what transformers calls the causal model; NULL: none
    const struct em_name *names; // ends with NULL; NULL: names are ours
    const char *prefix;          // of most names in files, which some files leave out; NULL: none
    // Tensors that share memory in the original: a copy's pattern ('@' is any number), and the name
    // that stands for them. Ends with NULL; NULL: none.
    const struct em_name *copies;
    // The number of the i-th copy that the original's files hold in a block, beside what stands for
    // them; 0: no more. NULL: written folders hold none.
    size_t (*copy_number)(const json_t *form, size_t block, size_t i);
    const char *const
        *keys; // known keys of config.json; others are noted. NULL: the family checks itself
    // The model as a free block list (see docs/configs.md). `where` is the config's name, `weights`
    // may be NULL.
    ember_status (*translate)(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form);
    // Names that no pattern says, because they depend on the form: of the parameter at `path`, in
    // the arena; NULL: ours is kept (or memory has run out, with *status said). NULL: names alone.
    const char *(*name_of)(struct em_arena *arena, const json_t *form,
                           const struct em_weights *weights, const char *path,
                           ember_status *status);
    // What a written config.json has to carry besides, also where other programs have no default;
    // NULL: nothing. Changes `config`; `form` is the model as it is, which counts where they
    // differ.
    ember_status (*complete)(json_t *config, const json_t *form);
};

extern const struct em_family *const em_families[];
extern const size_t em_families_count;
const struct em_family *em_family_find(const char *model_type);
ember_status em_models_register(void) EMBER_CHECKED; // into the registry

// ---- for families ----

// Flat readers with defaults; `where` names the config in messages.
struct em_reader {
    const json_t *config;
    const char *where;
    ember_status status; // the first failure; later reads do nothing
};
size_t em_read_size(struct em_reader *r, const char *key, size_t preset, size_t min, size_t max);
double em_read_double(struct em_reader *r, const char *key, double preset, double min, double max);
bool em_read_bool(struct em_reader *r, const char *key, bool preset);
const char *em_read_string(struct em_reader *r, const char *key, const char *preset);
bool em_read_has(const struct em_reader *r, const char *key); // there, and not null

// {"hidden_size", "vocab_size", "tie_word_embeddings", ..} of a form, and its empty "blocks".
json_t *em_form_new(struct em_reader *r, size_t width, size_t vocabulary, bool tied,
                    double norm_eps, ptrdiff_t frozen_row);
// Puts value (stolen; NULL is out of memory) under key; records failures in the reader.
void em_form_set(struct em_reader *r, json_t *object, const char *key, json_t *value);
void em_form_add_block(struct em_reader *r, json_t *form, json_t *block); // stolen
#endif
