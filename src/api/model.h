// Inside of the public ember_model.
#ifndef EM_API_MODEL_H
#define EM_API_MODEL_H

#include <ember/model.h>

#include "api/library.h"
#include "infer/engine.h"
#include "infer/generation_config.h"
#include "text/tokenizer.h"

struct ember_model {
    struct em_runtime runtime;
    struct em_model *model;
    struct em_tokenizer *tokenizer; // NULL: there is none, or none that can be read:
    ember_status tokenizer_status;
    char *tokenizer_problem;
    struct em_encoder *encoder; // made at the first use
    struct em_generation_config generation;
    struct em_engine *engine; // for one conversation; made at the first use
    struct em_engine *batch;  // for several
};

// Fails with the reason why there is no tokenizer.
ember_status em_api_need_tokenizer(const ember_model *model) EMBER_CHECKED;
// model->encoder is there, and the tokenizer.
ember_status em_api_need_encoder(ember_model *model) EMBER_CHECKED;
// The ids of a prompt's text, appended.
ember_status em_api_encode(ember_model *model, const char *text, size_t n,
                           struct em_ids *ids) EMBER_CHECKED;
// An engine for n conversations, or for as many as one pass takes. Borrowed.
ember_status em_api_engine(ember_model *model, size_t n, struct em_engine **engine) EMBER_CHECKED;

#endif
