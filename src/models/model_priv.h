#ifndef EM_MODELS_MODEL_PRIV_H
#define EM_MODELS_MODEL_PRIV_H

#include "models/model.h"

struct em_rng;

// Writes a parameter's start, `range` being the standard deviation of a normal one.
void em_param_init(struct em_param *p, double range, struct em_rng *rng);

// `weights` may be NULL; it tells whether names have the family's prefix.
ember_status em_model_name_tensors(struct em_model *m,
                                   const struct em_weights *weights) EMBER_CHECKED;
// The name that stands for `name` where that is a copy of it (em_family.copies), in text[size];
// NULL: it is none.
const char *em_model_copied_name(const struct em_model *m, const char *name, char *text,
                                 size_t size);
// The name of the i-th copy of a tensor that this model's files hold, in the arena; NULL: there is
// none. EMBER_E_NOMEM through *status.
const char *em_model_copy_of(struct em_arena *arena, const struct em_model *m, const char *name,
                             size_t i, ember_status *status);
const ember_option *em_form_options(void);

// Fails with EMBER_E_CONFIG when a config's record names a plug-in that is not loaded; another
// version is a line.
ember_status em_model_check_plugins(const json_t *config, const char *where) EMBER_CHECKED;
// Writes the record into `config`, or takes an old one away.
ember_status em_model_record_plugins(const struct em_model *m, json_t *config) EMBER_CHECKED;

#endif
