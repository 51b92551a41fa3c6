// A small random model for tests: in memory, or as a folder with a tokenizer of bytes.
#ifndef EMBER_TESTS_SMALL_MODEL_H
#define EMBER_TESTS_SMALL_MODEL_H

#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "models/model.h"
#include "support/check.h"
#include "text/tokenizer.h"

#include <ember/runtime.h>

// Convolution and attention, a mixture of experts behind the second block; the vocabulary is that
// of the byte tokenizer. Random weights are wide, so that the model has an opinion.
static const char small_config[] =
    "{\"model_type\": \"lfm2_moe\", \"vocab_size\": 259, \"hidden_size\": 32,"
    " \"intermediate_size\": 48, \"moe_intermediate_size\": 24, \"num_hidden_layers\": 3,"
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_dense_layers\": 1,"
    " \"num_experts\": 4, \"num_experts_per_tok\": 2, \"norm_topk_prob\": true,"
    " \"use_expert_bias\": true, \"conv_L_cache\": 3, \"norm_eps\": 1e-5,"
    " \"layer_types\": [\"conv\", \"full_attention\", \"conv\"], \"initializer_range\": 0.3,"
    " \"max_position_embeddings\": 96, \"bos_token_id\": 1, \"eos_token_id\": 2,"
    " \"pad_token_id\": 0, \"tie_word_embeddings\": true}";

static inline struct em_model *small_model(void)
{
    json_t *config;
    struct em_model *m;
    CHECK_OK(ember_start());
    CHECK_OK(em_json_parse("config.json", small_config, strlen(small_config), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 11, NULL);
    return m;
}

// "FOLDER/name" with config.json, model.safetensors, tokenizer.json.
static inline const char *small_folder(const char *name)
{
    const char *path = test_path(test_directory(), name);
    struct em_model *m = small_model();
    struct em_tokenizer *t;
    CHECK_OK(em_make_directories(path));
    CHECK_OK(em_model_save_config(m, path, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(path, "model.safetensors"), EM_ST_F32));
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_tokenizer_save(t, path));
    em_tokenizer_close(t);
    em_model_close(m);
    return path;
}

#endif
