// `ember train`: from a recipe to a model's folder.
#ifndef EM_TRAIN_TRAINER_H
#define EM_TRAIN_TRAINER_H

#include "base/buf.h"
#include "models/model.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

// Continues a prompt with the model, for the report's samples; joined by api/, as generation lives
// in another room. Appends the continuation to `out`.
typedef ember_status em_train_generate(void *context, const struct em_model *model,
                                       const struct em_tokenizer *tokenizer, const char *prompt,
                                       size_t bytes, struct em_buf *out);

// All borrowed.
struct em_train_job {
    struct em_recipe_request recipe;
    const char *out; // the run's folder; NULL: runs/NAME of the recipe or preset
    bool resume, dry_run;
    enum em_backend backend;
    struct em_pool *pool;
    em_train_generate *generate; // NULL: no samples
    void *generate_context;
};

struct em_train_result {
    struct em_buf text; // for people
    json_t *json;
};
void em_train_result_deinit(struct em_train_result *result);

// EMBER_E_INTERRUPTED: stopped by request, with everything saved.
ember_status em_train(const struct em_train_job *job, struct em_train_result *result) EMBER_CHECKED;

#endif
