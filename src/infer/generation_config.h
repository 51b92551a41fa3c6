// What a model folder says of generation: end tokens and sampling.
#ifndef EM_INFER_GENERATION_CONFIG_H
#define EM_INFER_GENERATION_CONFIG_H

#include "infer/sampler.h"
#include "models/model.h"
#include "text/tokenizer.h"

struct em_generation_config {
    ember_sampling sampling;
    bool sampling_from_file; // generation_config.json speaks of sampling
    int32_t *end;            // [end_count]: tokens that end a text
    size_t end_count;
};

// End tokens are those of config.json and of generation_config.json; where both are silent, the
// tokenizer's. Sampling is generation_config.json's, read as transformers does: what it does not
// name is off (top_k: 50), and do_sample false is greedy; a file that does not speak of sampling,
// or none, leaves Ember's default. `folder` and `tokenizer` may be NULL.
ember_status em_generation_config_read(const struct em_model *m, const char *folder,
                                       const struct em_tokenizer *tokenizer,
                                       struct em_generation_config *out) EMBER_CHECKED;
ember_status em_generation_config_read_in(const struct em_model *m, const struct em_folder *folder,
                                          const struct em_tokenizer *tokenizer,
                                          struct em_generation_config *out) EMBER_CHECKED;
void em_generation_config_deinit(struct em_generation_config *c);
bool em_generation_ends(const struct em_generation_config *c, int32_t id);

#endif
