// What is struck by faults: a tiny model's folder with everything that a folder may have, its text,
// and a file to look at afterwards.
#ifndef EMBER_TESTS_FAULTS_FIXTURE_H
#define EMBER_TESTS_FAULTS_FIXTURE_H

#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include <ember/runtime.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "formats/weights.h"
#include "models/model.h"
#include "support/check.h"
#include "text/tokenizer.h"

// Convolution, attention and a mixture of experts; the byte tokenizer's vocabulary.
#define FIXTURE_CONFIG                                                                             \
    "{\"model_type\": \"lfm2_moe\", \"vocab_size\": 259, \"hidden_size\": 16,"                     \
    " \"intermediate_size\": 16, \"moe_intermediate_size\": 8, \"num_hidden_layers\": 3,"          \
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"num_dense_layers\": 1,"            \
    " \"num_experts\": 2, \"num_experts_per_tok\": 1, \"conv_L_cache\": 3,"                        \
    " \"layer_types\": [\"conv\", \"full_attention\", \"conv\"], \"initializer_range\": 0.3,"      \
    " \"max_position_embeddings\": 64, \"bos_token_id\": 1, \"eos_token_id\": 2,"                  \
    " \"pad_token_id\": 0, \"tie_word_embeddings\": true}"

static inline void fixture_hear(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

// Runs that are not about the disk do not wait for it.
static inline int fixture_no_fsync(int fd)
{
    (void)fd;
    return 0;
}

static inline int fixture_quietly(void **state)
{
    static struct em_io quick;
    (void)state;
    // Thousands of short runs: memory that is given back is kept for the next one.
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    quick = *em_io_system();
    quick.fsync = fixture_no_fsync;
    em_io_use(&quick);
    em_log_to(fixture_hear, NULL);
    return ember_start() == EMBER_OK ? 0 : -1;
}

static inline const char *fixture_write(const char *folder, const char *name, const char *text)
{
    const char *path = test_path(folder, name);
    CHECK_OK(em_write_file(path, text, strlen(text)));
    return path;
}

static inline struct em_model *fixture_model(const char *text)
{
    json_t *config;
    struct em_model *m;
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 11, NULL);
    return m;
}

static inline const char *fixture_shard(size_t i)
{
    static const char *const names[] = {"model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    return names[i];
}

// Every second tensor of one file into each of two, and the index of both.
static inline void fixture_cut_into_shards(const char *folder, const char *whole)
{
    struct em_weights *w;
    json_t *map = json_object();
    CHECK_OK(em_weights_open(whole, &w));
    struct em_st_output *output = em_calloc(em_weights_count(w), sizeof *output);
    for (size_t shard = 0; shard < 2; shard++) {
        size_t n = 0;
        for (size_t i = shard; i < em_weights_count(w); i += 2) {
            const struct em_st_tensor *t = em_weights_at(w, i);
            output[n++] = (struct em_st_output){t->name, t->shape, t->data, t->rank, t->dtype};
            assert_int_equal(json_object_set_new(map, t->name, json_string(fixture_shard(shard))),
                             0);
        }
        CHECK_OK(em_safetensors_write(test_path(folder, fixture_shard(shard)),
                                      &(struct em_st_write){.tensors = output, .count = n}));
    }
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    CHECK_OK(em_json_write(test_path(folder, "model.safetensors.index.json"), index, 1));
    json_decref(index);
    em_free(output);
    em_weights_close(w);
}

// FOLDER/NAME: config.json, two shards and their index, tokenizer.json, tokenizer_config.json,
// generation_config.json.
static inline const char *fixture_folder(const char *folder, const char *name)
{
    const char *path = test_path(folder, name), *whole = test_path(folder, "whole.safetensors");
    struct em_model *m = fixture_model(FIXTURE_CONFIG);
    struct em_tokenizer *t;
    CHECK_OK(em_make_directories(path));
    CHECK_OK(em_model_save_config(m, path, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, whole, EM_ST_F32));
    fixture_cut_into_shards(path, whole);
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_tokenizer_save(t, path));
    fixture_write(path, "generation_config.json",
                  "{\"eos_token_id\": [2, 7], \"temperature\": 0.9, \"top_k\": 30,"
                  " \"top_p\": 0.9, \"repetition_penalty\": 1.1}");
    em_tokenizer_close(t);
    em_model_close(m);
    return path;
}

// Words and lines that follow from the seed.
static inline const char *fixture_text(const char *folder, const char *name, unsigned seed,
                                       size_t bytes)
{
    static const char *const words[] = {"the ",      "state ",   "of ",     "a ",
                                        "sequence ", "is ",      "what ",   "value ",
                                        "and\n",     "tokens\n", "follow ", "it. "};
    struct em_buf b = {0};
    while (b.size < bytes) {
        seed = seed * 1664525u + 1013904223u;
        CHECK_OK(em_buf_puts(&b, words[(seed >> 16) % 12]));
    }
    const char *path = test_path(folder, name);
    CHECK_OK(em_write_file(path, b.data, bytes));
    em_buf_deinit(&b);
    return path;
}

// The file is this, byte for byte. Looking at it must not be what fails, so it takes no memory of
// Ember's.
static inline void fixture_check_file(const char *path, const char *text)
{
    char found[4096];
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is gone", path);
    const size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[n] = 0;
    assert_string_equal(found, text);
}

#endif
