// A small run of training: its recipe, its data, and what it left.
#ifndef EMBER_TESTS_TRAIN_RUN_H
#define EMBER_TESTS_TRAIN_RUN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/train.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "support/check.h"

#define RUN_MODEL                                                                                  \
    "{\"model_type\": \"lfm2_moe\", \"vocab_size\": %d, \"hidden_size\": 32, "                     \
    "\"num_hidden_layers\": 3, \"layer_types\": [\"conv\", \"full_attention\", \"conv\"], "        \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_dense_layers\": 1, "            \
    "\"intermediate_size\": 48, \"num_experts\": 4, \"num_experts_per_tok\": 2, "                  \
    "\"moe_intermediate_size\": 24, \"max_position_embeddings\": 128, "                            \
    "\"expert_bias_update_rate\": %g}"

enum { RUN_VOCAB = 61, RUN_STEPS = 400, RUN_BATCH = 4, RUN_SEQ = 12 };

static inline const char *run_write(const char *dir, const char *name, const char *text)
{
    const char *path = test_path(dir, name);
    CHECK_OK(em_write_file(path, text, strlen(text)));
    return path;
}

// Batches of a source with structure: each token follows from the one before, with some noise.
// `same`: every step has the same batch.
static inline const char *run_ids(const char *dir, const char *name, size_t steps, bool same)
{
    const size_t n = steps * RUN_BATCH * RUN_SEQ;
    int32_t *ids = em_alloc(n * sizeof *ids);
    assert_non_null(ids);
    struct em_rng rng;
    em_rng_seed(&rng, 5, 0);
    for (size_t i = 0; i < n; i++) {
        if (same && i >= RUN_BATCH * RUN_SEQ)
            ids[i] = ids[i - RUN_BATCH * RUN_SEQ];
        else if (i % RUN_SEQ == 0 || em_rng_below(&rng, 5) == 0)
            ids[i] = (int32_t)em_rng_below(&rng, RUN_VOCAB);
        else
            ids[i] = (ids[i - 1] * 7 + 3) % RUN_VOCAB;
    }
    const char *path = test_path(dir, name);
    const size_t shape[] = {steps, RUN_BATCH, RUN_SEQ};
    const struct em_st_output tensor = {
        .name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = ids};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &tensor, .count = 1}));
    em_free(ids);
    return path;
}

// A recipe over such batches; `more` are further members of "train".
static inline const char *run_recipe(const char *dir, const char *name, const char *ids,
                                     double bias_rate, const char *more)
{
    char model[1024], text[2048];
    snprintf(model, sizeof model, RUN_MODEL, RUN_VOCAB, bias_rate);
    snprintf(text, sizeof text,
             "{\"model\": %s, // a comment\n \"data\": {\"ids\": \"%s\"},\n"
             " \"train\": {\"lr\": 0.01, \"warmup\": 5%s%s,},\n \"seed\": 3}",
             model, ids, *more ? ", " : "", more);
    return run_write(dir, name, text);
}

// Text with words and lines, the same for the same seed.
static inline const char *run_text(const char *dir, const char *name, uint64_t seed, size_t bytes)
{
    static const char *const words[] = {"the ", "state ", "of ",   "a ",     "sequence ", "is ",
                                        "a ",   "value ", "and\n", "tokens", " follow ",  "it. "};
    char *text = em_alloc(bytes + 16);
    size_t n = 0;
    struct em_rng rng;
    assert_non_null(text);
    em_rng_seed(&rng, seed, 1);
    while (n < bytes) {
        const char *word = words[em_rng_below(&rng, 6) + seed % 2 * 6];
        memcpy(text + n, word, strlen(word));
        n += strlen(word);
    }
    const char *path = test_path(dir, name);
    CHECK_OK(em_write_file(path, text, bytes));
    em_free(text);
    return path;
}

struct run {
    const char *recipe, *out;
    const char *set[8]; // ends with NULL
    unsigned threads;
    bool resume, dry_run;
};

static inline ember_status run_train(const struct run *r, ember_train_result *result)
{
    size_t n = 0;
    while (n < 8 && r->set[n])
        n++;
    return ember_train(&(ember_train_options){.runtime = {.threads = r->threads},
                                              .recipe = r->recipe,
                                              .out = r->out,
                                              .set = r->set,
                                              .n_set = n,
                                              .resume = r->resume,
                                              .dry_run = r->dry_run},
                       result);
}

static inline void run_ok(const struct run *r)
{
    ember_train_result result = {0};
    CHECK_OK(run_train(r, &result));
    ember_train_result_deinit(&result);
}

static inline void run_fails(const struct run *r, ember_status status, const char *text)
{
    ember_train_result result = {0};
    CHECK_FAILS(run_train(r, &result), status, text);
    assert_null(result.text);
}

// A file of the run's folder; owned.
static inline char *run_read(const char *out, const char *name, size_t *size)
{
    struct em_buf b = {0};
    char *path = em_path_join(out, name);
    assert_non_null(path);
    CHECK_OK(em_read_file(path, 0, &b));
    em_free(path);
    if (size) *size = b.size;
    return em_buf_take(&b);
}

static inline json_t *run_json(const char *out, const char *name)
{
    size_t size;
    json_t *value;
    char *text = run_read(out, name, &size);
    CHECK_OK(em_json_parse(name, text, size, 0, &value));
    em_free(text);
    return value;
}

// Leaves of a log's lines their losses, exactly as they are written: "1.25\n0.75\n".
static inline void run_keep_losses(char *log)
{
    char *at = log, *to = log;
    while ((at = strstr(at, "\"loss\":"))) {
        at += strlen("\"loss\":");
        const size_t n = strcspn(at, ",}");
        memmove(to, at, n);
        at += n;
        to += n;
        *to++ = '\n';
    }
    *to = '\0';
}

// The losses of logs/train.jsonl. Owned.
static inline char *run_losses(const char *out)
{
    char *log = run_read(out, "logs/train.jsonl", NULL);
    run_keep_losses(log);
    return log;
}

static inline size_t run_count(const char *losses)
{
    size_t n = 0;
    for (; *losses; losses++)
        n += *losses == '\n';
    return n;
}

static inline void run_same_losses(const char *a, const char *b)
{
    char *x = run_losses(a), *y = run_losses(b);
    assert_true(run_count(x) > 0);
    assert_string_equal(x, y);
    em_free(x);
    em_free(y);
}

static inline void run_same_file(const char *a, const char *b, const char *name)
{
    size_t n, m;
    char *x = run_read(a, name, &n), *y = run_read(b, name, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    em_free(x);
    em_free(y);
}

// Asks for a stop once the progress line says step `at`.
struct run_stop {
    unsigned at;
};
static inline void run_watch(void *context, enum em_log_level level, const char *line)
{
    const struct run_stop *stop = context;
    unsigned step;
    (void)level;
    if (stop && sscanf(line, "step %u/", &step) == 1 && step >= stop->at) em_interrupt_set(true);
}
static inline void run_stopped(const struct run *r, unsigned step)
{
    struct run_stop stop = {step};
    em_log_to(run_watch, &stop);
    em_progress_every(0);
    run_fails(r, EMBER_E_INTERRUPTED, "stopped");
    em_interrupt_set(false);
    em_log_to(run_watch, NULL);
}

static inline int run_quietly(void **state)
{
    (void)state;
    em_log_to(run_watch, NULL);
    return ember_start() == EMBER_OK ? 0 : -1;
}

#endif
