#ifndef EM_MODELS_MODEL_PRIV_H
#define EM_MODELS_MODEL_PRIV_H

#include "models/model.h"

ember_status em_model_name_tensors(struct em_model *m) EMBER_CHECKED;
const ember_option *em_form_options(void);

#endif
