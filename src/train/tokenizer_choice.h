// Which tokenizer a run has: one that is named, one that comes with a folder, or one that it
// trains.
#ifndef EM_TRAIN_TOKENIZER_CHOICE_H
#define EM_TRAIN_TOKENIZER_CHOICE_H

#include "train/recipe.h"

// The tokenizer of a run, and whether it was trained here. NULL: the data are ids and there is
// none. `folder`: of the model or the state, NULL for a new model; `vocabulary`: what the model's
// config asks for, 0: nothing.
struct em_tokenizer_choice {
    struct em_tokenizer *tokenizer; // owned
    const char *from;               // the folder or file whose files are taken as they are, or NULL
    bool trained;
};
// Whether data.tokenizer names one that needs no file (or nothing at all).
bool em_tokenizer_is_built_in(const char *named);

ember_status em_choose_tokenizer(const struct em_recipe *recipe, const char *folder,
                                 size_t vocabulary, struct em_pool *pool,
                                 struct em_tokenizer_choice *out) EMBER_CHECKED;

#endif
