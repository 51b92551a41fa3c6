// What a model folder says of end tokens and sampling.
#include <string.h>

#include "infer/generation_config.h"
#include "infer/small_model.h"

// With this generation_config.json (NULL: none) and config.json's eos_token_id.
static ember_status read_both(const char *file, const char *eos, struct em_generation_config *c)
{
    const char *folder = test_path(test_directory(), file ? "with" : "without"),
               *path = test_path(folder, "generation_config.json");
    struct em_model *m = small_model();
    json_t *v = NULL;
    CHECK_OK(em_make_directories(folder));
    if (file) CHECK_OK(em_write_file(path, file, strlen(file)));
    json_object_del(m->config, "eos_token_id");
    if (eos) {
        CHECK_OK(em_json_parse("eos", eos, strlen(eos), 0, &v));
        json_object_update(m->config, v);
    }
    json_decref(v);
    const ember_status status = em_generation_config_read(m, folder, NULL, c);
    em_model_close(m);
    return status;
}

static void check_end(const char *file, const char *eos, const int32_t *expected, size_t n)
{
    struct em_generation_config c;
    CHECK_OK(read_both(file, eos, &c));
    assert_int_equal(c.end_count, n);
    if (n) assert_memory_equal(c.end, expected, n * sizeof *expected);
    em_generation_config_deinit(&c);
}

static void end_tokens_are_those_of_both_files(void **state)
{
    (void)state;
    check_end(NULL, NULL, NULL, 0);
    check_end(NULL, "{\"eos_token_id\": 2}", (int32_t[]){2}, 1);
    check_end(NULL, "{\"eos_token_id\": [7, 2, 7]}", (int32_t[]){7, 2}, 2);
    check_end("{\"eos_token_id\": [2, 9]}", "{\"eos_token_id\": 2}", (int32_t[]){2, 9}, 2);
    check_end("{\"eos_token_id\": 9}", "{\"eos_token_id\": null}", (int32_t[]){9}, 1);
}

static void without_any_the_tokenizer_is_asked(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    struct em_tokenizer *t;
    struct em_generation_config c;
    CHECK_OK(em_tokenizer_bytes(&t));
    json_object_del(m->config, "eos_token_id");
    CHECK_OK(em_generation_config_read(m, NULL, t, &c));
    assert_int_equal(c.end_count, 1);
    assert_true(em_generation_ends(&c, em_tokenizer_eos(t)));
    assert_false(em_generation_ends(&c, 5));
    em_generation_config_deinit(&c);
    em_tokenizer_close(t);
    em_model_close(m);
}

static void check_sampling(const char *file, ember_sampling expected)
{
    struct em_generation_config c;
    CHECK_OK(read_both(file, NULL, &c));
    CHECK_NEAR(c.sampling.temperature, expected.temperature, 0, "%s", file);
    CHECK_NEAR(c.sampling.top_p, expected.top_p, 0, "%s", file);
    CHECK_NEAR(c.sampling.min_p, expected.min_p, 0, "%s", file);
    CHECK_NEAR(c.sampling.repeat_penalty, expected.repeat_penalty, 0, "%s", file);
    assert_int_equal(c.sampling.top_k, expected.top_k);
    em_generation_config_deinit(&c);
}

static void sampling_is_the_files_or_embers_default(void **state)
{
    (void)state;
    const ember_sampling preset = {
        .temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1};
    check_sampling(NULL, preset);
    check_sampling("{\"bos_token_id\": 1, \"temperature\": null}", preset);
    check_sampling(
        "{\"do_sample\": true, \"temperature\": 0.3, \"min_p\": 0.15, "
        "\"repetition_penalty\": 1.05}",
        (ember_sampling){
            .temperature = 0.3, .top_k = 50, .top_p = 1, .min_p = 0.15, .repeat_penalty = 1.05});
    check_sampling("{\"top_k\": 0, \"top_p\": 0.5}",
                   (ember_sampling){.temperature = 1, .top_p = 0.5, .repeat_penalty = 1});
    check_sampling("{\"do_sample\": false, \"temperature\": 0.3}",
                   (ember_sampling){.top_k = 50, .top_p = 1, .repeat_penalty = 1});
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *eos, *message;
    } wrong[] = {
        {"[]", NULL, "generation_config.json: has to be an object"},
        {"{\"eos_token_id\": 259}", NULL, "eos_token_id 259 is outside the vocabulary of 259"},
        {"{\"eos_token_id\": \"</s>\"}", NULL, "eos_token_id has to be a token id"},
        {NULL, "{\"eos_token_id\": [2, 300]}", "config.json: eos_token_id 300 is outside"},
        {"{\"temperature\": -1}", NULL, "temperature: expected"},
        {"{\"top_p\": \"half\"}", NULL, "top_p: expected"},
        {"{\"do_sample\": 1}", NULL, "do_sample: expected"},
    };
    struct em_generation_config c;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_FAILS(read_both(wrong[i].file, wrong[i].eos, &c), EMBER_E_CONFIG, wrong[i].message);
    CHECK_FAILS(read_both("{", NULL, &c), EMBER_E_FORMAT, "generation_config.json:1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(end_tokens_are_those_of_both_files),
        cmocka_unit_test(without_any_the_tokenizer_is_asked),
        cmocka_unit_test(sampling_is_the_files_or_embers_default),
        cmocka_unit_test(wrong_files_are_refused),
    };
    return cmocka_run_group_tests_name("generation_config", tests, NULL, NULL);
}
