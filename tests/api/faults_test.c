// timeout: 900
// What a failing disk and a power cut may do to the files that the library writes for its users:
// model folders, tokenizers, token caches, results of forward passes, answers. And what reading
// them gives when the disk fails.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/infer.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "formats/hash.h"
#include "formats/safetensors.h"
#include "infer/forward_file.h"
#include "infer/small_model.h"
#include "support/fault_sweep.h"
#include "text/bpe_train.h"

static struct em_model *model[3]; // of versions 1 and 2
static struct em_tokenizer *tokenizer[3];
static const char *folder; // a whole model, of version 2
static ember_model *opened;

static void drop(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

// "DIR/NAME", good until the fourth call after it.
static const char *in(const char *dir, const char *name)
{
    static char path[4][1024];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static uint64_t file_hash(const char *path)
{
    struct em_file_hash hash;
    CHECK_OK(em_hash_file(path, false, &hash));
    return hash.xxh3;
}

// ---- a model's folder ----

static ember_status save_model(const char *dir, int version)
{
    EM_TRY(em_tokenizer_save(tokenizer[1], dir));
    EM_TRY(em_model_save_config(model[version], dir, EM_ST_F32));
    return em_model_save_weights(model[version], in(dir, "model.safetensors"), EM_ST_F32);
}

static void model_before(const char *dir)
{
    CHECK_OK(save_model(dir, 1));
}

static ember_status model_call(const char *dir)
{
    return save_model(dir, 2);
}

static uint64_t weights_of(const struct em_model *m)
{
    return em_hash_bytes(m->memory, m->memory_bytes);
}

static int model_version(const char *dir)
{
    struct em_model *m;
    struct em_tokenizer *t;
    CHECK_OK(em_model_open(dir, &m));
    CHECK_OK(em_tokenizer_open(dir, &t));
    assert_true(em_tokenizer_hash(t) == em_tokenizer_hash(tokenizer[1]));
    const uint64_t hash = weights_of(m);
    em_tokenizer_close(t);
    em_model_close(m);
    if (hash == weights_of(model[1])) return 1;
    if (hash != weights_of(model[2])) fail_msg("the weights are of no version");
    return 2;
}

static void a_model_folder_survives_its_disk(void **state)
{
    (void)state;
    static const struct fault_scenario s = {"model folder", model_before, model_call, model_version,
                                            NULL};
    fault_sweep_calls(&s, 20);
    fault_sweep_power(&s, 2);
}

// ---- a tokenizer ----

static void tokenizer_before(const char *dir)
{
    CHECK_OK(em_tokenizer_save(tokenizer[1], dir));
}

static ember_status tokenizer_call(const char *dir)
{
    return em_tokenizer_save(tokenizer[2], dir);
}

static int tokenizer_version(const char *dir)
{
    struct em_tokenizer *t;
    CHECK_OK(em_tokenizer_open(dir, &t));
    const uint64_t hash = em_tokenizer_hash(t);
    assert_int_equal(em_tokenizer_bos(t), 1);
    em_tokenizer_close(t);
    if (hash == em_tokenizer_hash(tokenizer[1])) return 1;
    if (hash != em_tokenizer_hash(tokenizer[2])) fail_msg("the tokenizer is of no version");
    return 2;
}

static void a_tokenizer_survives_its_disk(void **state)
{
    (void)state;
    static const struct fault_scenario s = {"tokenizer", tokenizer_before, tokenizer_call,
                                            tokenizer_version, NULL};
    fault_sweep_calls(&s, 40);
    fault_sweep_power(&s, 3);
}

// ---- a token cache: the text has changed since ----

static ember_status open_text(const char *dir, struct em_dataset *d)
{
    const struct em_source source = {.path = in(dir, "text.jsonl"), .name = "text"};
    return em_dataset_open(
        &source, 1,
        &(struct em_dataset_options){
            .tokenizer = tokenizer[1], .cache = in(dir, "cache"), .tidy = true, .held_out = 0.1},
        d);
}

static void put_text(const char *dir, const char *word)
{
    struct em_buf b = {0};
    for (int i = 0; i < 60; i++)
        CHECK_OK(em_buf_printf(&b, "{\"text\": \"%s %d and so on\"}\n", word, i));
    CHECK_OK(em_write_file(in(dir, "text.jsonl"), b.data, b.size));
    em_buf_deinit(&b);
}

static uint64_t text_hash; // of the new text's tokens

static void cache_before(const char *dir)
{
    struct em_dataset d;
    put_text(dir, "new");
    CHECK_OK(open_text(dir, &d));
    text_hash = em_dataset_hash(&d);
    em_dataset_close(&d);
    CHECK_OK(em_remove_tree(in(dir, "cache")));
    put_text(dir, "old");
    CHECK_OK(open_text(dir, &d));
    assert_true(text_hash != em_dataset_hash(&d));
    em_dataset_close(&d);
    put_text(dir, "new");
}

static ember_status cache_call(const char *dir)
{
    struct em_dataset d;
    EM_TRY(open_text(dir, &d));
    const bool same = em_dataset_hash(&d) == text_hash;
    em_dataset_close(&d);
    return same ? EMBER_OK : em_fail(EMBER_E_INTERNAL, "%s: other tokens", dir);
}

// What is there under the new text's name is whole, or it would be made anew.
static int cache_version(const char *dir)
{
    static char *old_name;
    char **names;
    size_t count;
    bool has_new = false;
    CHECK_OK(em_list_directory(in(dir, "cache"), &names, &count));
    if (!old_name) { // the first call: before anything fails
        assert_int_equal(count, 1);
        old_name = strdup(names[0]);
    }
    for (size_t i = 0; i < count; i++)
        if (!fault_is_temporary(names[i]) && strcmp(names[i], old_name) != 0) has_new = true;
    em_names_free(names, count);
    if (!has_new) return 1;
    struct em_dataset d;
    CHECK_OK(open_text(dir, &d));
    assert_false(d.domains[0].cache.made);
    assert_true(em_dataset_hash(&d) == text_hash);
    em_dataset_close(&d);
    return 2;
}

static void a_token_cache_survives_its_disk(void **state)
{
    (void)state;
    static const struct fault_scenario s = {"token cache", cache_before, cache_call, cache_version,
                                            NULL};
    fault_sweep_calls(&s, 50);
    fault_sweep_power(&s, 2);
}

// ---- the result of a forward pass ----

static void put_ids(const char *path, int32_t first)
{
    const size_t shape[] = {1, 6};
    const int32_t ids[6] = {first, 70, 71, 72, 73, 74};
    const struct em_st_output t = {"input_ids", shape, ids, 2, EM_ST_I32};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &t, .count = 1}));
}

static ember_status forward(const char *dir, const char *input)
{
    return em_forward_file(model[1], in(dir, input), in(dir, "out.safetensors"),
                           &(struct em_forward_job){.backend = EM_CPU});
}

static uint64_t result_hash[3];

static void forward_before(const char *dir)
{
    put_ids(in(dir, "1.safetensors"), 60);
    put_ids(in(dir, "2.safetensors"), 61);
    CHECK_OK(forward(dir, "2.safetensors"));
    result_hash[2] = file_hash(in(dir, "out.safetensors"));
    CHECK_OK(forward(dir, "1.safetensors"));
    result_hash[1] = file_hash(in(dir, "out.safetensors"));
    assert_true(result_hash[1] != result_hash[2]);
}

static ember_status forward_call(const char *dir)
{
    return forward(dir, "2.safetensors");
}

static int forward_version(const char *dir)
{
    const uint64_t hash = file_hash(in(dir, "out.safetensors"));
    if (hash != result_hash[1] && hash != result_hash[2]) fail_msg("the result is of no version");
    return hash == result_hash[1] ? 1 : 2;
}

static void a_forward_result_survives_its_disk(void **state)
{
    (void)state;
    static const struct fault_scenario s = {"forward result", forward_before, forward_call,
                                            forward_version, NULL};
    fault_sweep_calls(&s, 40);
    fault_sweep_power(&s, 4);
}

// ---- answers to a file of prompts ----

enum { PROMPTS = 4 };

static ember_status answers_call(const char *dir)
{
    const ember_request like = {.max_tokens = 3};
    return ember_generate_file(
        opened, in(dir, "prompts.jsonl"), in(dir, "answers.jsonl"),
        &(ember_generate_file_options){.like = &like, .seed = 7, .ids = true});
}

static void answers_before(const char *dir)
{
    struct em_buf b = {0};
    for (int i = 0; i < PROMPTS; i++)
        CHECK_OK(em_buf_printf(&b, "{\"prompt\": \"text %d\"}\n", i));
    CHECK_OK(em_write_file(in(dir, "prompts.jsonl"), b.data, b.size));
    em_buf_deinit(&b);
    CHECK_OK(answers_call(dir));
    result_hash[2] = file_hash(in(dir, "answers.jsonl"));
    CHECK_OK(em_write_file(in(dir, "answers.jsonl"), "old answers\n", 12));
    result_hash[1] = file_hash(in(dir, "answers.jsonl"));
}

static int answers_version(const char *dir)
{
    const uint64_t hash = file_hash(in(dir, "answers.jsonl"));
    if (hash != result_hash[1] && hash != result_hash[2]) fail_msg("the answers are of no version");
    return hash == result_hash[1] ? 1 : 2;
}

static void answers_survive_their_disk(void **state)
{
    (void)state;
    static const struct fault_scenario s = {"answers", answers_before, answers_call,
                                            answers_version, ".partial"};
    fault_sweep_calls(&s, 60);
    fault_sweep_power(&s, 4);
}

// ---- reading ----

static ember_status add_id(void *context, int32_t id)
{
    uint64_t *hash = context;
    *hash = em_hash64(*hash, (uint64_t)id, 1);
    return EMBER_OK;
}

// With a tokenizer that cannot be read a model opens, but reads no text: generating tells.
static ember_status read_model(uint64_t *read)
{
    ember_model *m;
    EM_TRY(ember_model_open(folder, &(ember_model_options){.runtime = {.threads = 1}}, &m));
    const ember_request r = {.text = "abc",
                             .n_text = 3,
                             .max_tokens = 8,
                             .seed = 1,
                             .on_token = add_id,
                             .context = read};
    const ember_status status = ember_generate(m, &r, 1);
    ember_model_close(m);
    return status;
}

static ember_status read_weights(uint64_t *read)
{
    struct em_model *m;
    EM_TRY(em_model_open(folder, &m));
    *read = weights_of(m);
    em_model_close(m);
    return EMBER_OK;
}

static ember_status read_tokenizer(uint64_t *read)
{
    struct em_tokenizer *t;
    EM_TRY(em_tokenizer_open(folder, &t));
    *read = em_tokenizer_hash(t) + (uint64_t)em_tokenizer_eos(t);
    em_tokenizer_close(t);
    return EMBER_OK;
}

static void reading_fails_or_is_right(void **state)
{
    (void)state;
    fault_sweep_reads(&(struct fault_reader){"opening weights", read_weights, folder});
    fault_sweep_reads(&(struct fault_reader){"opening a tokenizer", read_tokenizer, folder});
    fault_sweep_reads(&(struct fault_reader){"opening a model", read_model, folder});
}

static ember_status one_text(void *context, const char **text, size_t *n)
{
    int *left = context;
    *text = *left ? "the sequence of the state and the state of the sequence" : NULL;
    *n = *text ? strlen(*text) : 0;
    if (*left) --*left;
    return EMBER_OK;
}

static int start(void **state)
{
    (void)state;
    em_log_to(drop, NULL);
    int left = 3;
    for (int i = 1; i <= 2; i++) {
        model[i] = small_model();
        em_model_init(model[i], (uint64_t)i, NULL);
    }
    CHECK_OK(em_tokenizer_bytes(&tokenizer[1]));
    CHECK_OK(em_bpe_train(&(struct em_bpe_train_options){.vocab = 270},
                          (struct em_text_source){one_text, &left}, &tokenizer[2]));
    folder = test_path(test_directory(), "model");
    CHECK_OK(em_make_directories(folder));
    CHECK_OK(save_model(folder, 2));
    CHECK_OK(ember_model_open(folder, &(ember_model_options){.runtime = {.threads = 1}}, &opened));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ember_model_close(opened);
    for (int i = 1; i <= 2; i++) {
        em_model_close(model[i]);
        em_tokenizer_close(tokenizer[i]);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_model_folder_survives_its_disk),
        FAULT_TEST(a_tokenizer_survives_its_disk),
        FAULT_TEST(a_token_cache_survives_its_disk),
        FAULT_TEST(a_forward_result_survives_its_disk),
        FAULT_TEST(answers_survive_their_disk),
        FAULT_TEST(reading_fails_or_is_right),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
