// ember plan: its figures are those that training takes, and what it refuses.
#include "cli/program.h"
#include "formats/safetensors.h"
#include "infer/small_model.h"

static json_t *json_of(struct program_result r)
{
    json_t *o;
    if (r.exit_status) print_error("%s\n", r.err);
    assert_int_equal(r.exit_status, 0);
    CHECK_OK(em_json_parse("stdout", r.out, strlen(r.out), 0, &o));
    program_free(&r);
    return o;
}

static json_int_t at(const json_t *o, const char *group, const char *key)
{
    const json_t *v = json_object_get(json_object_get(o, group), key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

// A recipe with a model of all that is special: a mixture, recomputation, parts.
static const char *write_recipe(const char *folder, const char *train)
{
    const char *text = test_path(folder, "text.txt"), *recipe = test_path(folder, "recipe.json");
    struct em_buf b = {0};
    for (int i = 0; i < 400; i++)
        CHECK_OK(em_buf_printf(&b, "line %d of a text to learn from.\n", i * i));
    CHECK_OK(em_write_file(text, b.data, b.size));
    em_buf_clear(&b);
    CHECK_OK(em_buf_printf(&b,
                           "{\"model\": %s, \"data\": {\"tokenizer\": \"bytes\", \"sources\": "
                           "[{\"path\": \"%s\"}]}, \"train\": {\"steps\": 3%s}} // a recipe\n",
                           small_config, text, train));
    CHECK_OK(em_write_file(recipe, b.data, b.size));
    em_buf_deinit(&b);
    return recipe;
}

static void check_against_training(const char *train)
{
    static const char *const kinds[] = {"weights", "gradients",   "optimizer",
                                        "packed",  "activations", "scratch"};
    const char *folder = test_directory(), *recipe = write_recipe(folder, train);
    json_t *plan = json_of(program_run("plan", recipe, "--json", "--threads", "2")),
           *run = json_of(program_run("train", recipe, "--out", test_path(folder, "run"),
                                      "--dry-run", "--json", "--threads", "2"));
    json_int_t total = 0;
    const json_t *training = json_object_get(plan, "training"),
                 *memory = json_object_get(training, "memory_bytes");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const json_int_t foreseen = json_integer_value(json_object_get(memory, kinds[i]));
        if (foreseen != at(run, "memory_bytes", kinds[i])) print_error("%s: %s\n", train, kinds[i]);
        assert_int_equal(foreseen, at(run, "memory_bytes", kinds[i]));
        // Weights that are used once a step are packed where they are used, in the scratch.
        const bool in_scratch = !strcmp(kinds[i], "packed") && !strstr(train, "accumulate");
        assert_true(in_scratch ? foreseen == 0 : foreseen > 0);
        total += foreseen;
    }
    total += json_integer_value(json_object_get(memory, "program"));
    assert_int_equal(json_integer_value(json_object_get(memory, "total")), total);
    assert_int_equal(at(plan, "model", "parameters"),
                     json_integer_value(json_object_get(run, "parameters")));
    assert_int_equal(at(plan, "model", "active_parameters"),
                     json_integer_value(json_object_get(run, "active_parameters")));
    assert_string_equal(json_string_value(json_object_get(training, "dtype")),
                        json_string_value(json_object_get(run, "dtype")));
    json_decref(plan);
    json_decref(run);
}

static void figures_are_those_that_training_takes(void **state)
{
    (void)state;
    check_against_training(", \"batch\": 4, \"seq\": 32");
    check_against_training(", \"batch\": 5, \"seq\": 17, \"accumulate\": 2, \"dtype\": \"f32\"");
    check_against_training(", \"batch\": 6, \"seq\": 40, \"recompute\": true");
}

static void operations_follow_from_the_parameters(void **state)
{
    (void)state;
    // Two operations a parameter and token, and twice that backward; the rest is attention.
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/bench/configs/lfm2-30m", EMBER_SOURCE_DIR);
    json_t *o = json_of(program_run("plan", folder, "--json", "--seq", "64", "--batch", "2"));
    const double active = (double)at(o, "model", "active_parameters");
    const json_t *flops = json_object_get(json_object_get(o, "training"), "flops_per_token"),
                 *made = json_object_get(json_object_get(o, "inference"), "flops_per_token");
    CHECK_NEAR(json_real_value(json_object_get(flops, "forward")) / (2 * active), 1, 0.05,
               "forward");
    CHECK_NEAR(json_real_value(json_object_get(flops, "backward")) / (4 * active), 1, 0.05,
               "backward");
    CHECK_NEAR(json_real_value(json_object_get(made, "made")) / (2 * active), 1, 0.05, "made");
    // Two key-value heads of 64 in three layers, keys and values, f32; conv states of 2 x 512 in 5.
    const json_t *inference = json_object_get(o, "inference");
    assert_int_equal(json_integer_value(json_object_get(inference, "state_bytes_per_token")),
                     3 * 2 * 2 * 64 * 4);
    assert_int_equal(json_integer_value(json_object_get(inference, "state_bytes_per_sequence")),
                     5 * 2 * 512 * 4);
    assert_int_equal(at(inference, "memory_bytes", "state"),
                     2 * (5 * 2 * 512 * 4 + 64 * 3 * 2 * 2 * 64 * 4));
    json_decref(o);
}

// Images: what a recipe of float sequences takes, and a batch of whole images.
static void models_of_vectors_are_planned(void **state)
{
    (void)state;
    static const size_t shape[] = {1, 3, 64, 1};
    static const float x[3 * 64];
    static const int32_t labels[3];
    const struct em_st_output tensors[] = {
        {.name = "inputs", .shape = shape, .rank = 4, .dtype = EM_ST_F32, .data = x},
        {.name = "labels", .shape = shape, .rank = 2, .dtype = EM_ST_I32, .data = labels}};
    const char *folder = test_directory(), *data = test_path(folder, "images"),
               *recipe = test_path(folder, "images.json");
    struct em_buf b = {0};
    CHECK_OK(em_safetensors_write(data, &(struct em_st_write){.tensors = tensors, .count = 2}));
    CHECK_OK(em_buf_printf(&b,
                           "{\"model\": {\"model_type\": \"vmamba\", \"imgsize\": 8, \"in_chans\": "
                           "1, \"depths\": [1, 1], \"dims\": 16}, \"data\": {\"tensors\": \"%s\"}, "
                           "\"train\": {\"steps\": 1}}",
                           data));
    CHECK_OK(em_write_file(recipe, b.data, b.size));
    em_buf_deinit(&b);
    json_t *plan = json_of(program_run("plan", recipe, "--batch", "3", "--json")),
           *run = json_of(program_run("train", recipe, "--out", test_path(folder, "images-run"),
                                      "--dry-run", "--json"));
    assert_int_equal(at(plan, "training", "seq"), 64);
    static const char *const kinds[] = {"weights", "gradients", "optimizer", "activations",
                                        "scratch"};
    const json_t *memory = json_object_get(json_object_get(plan, "training"), "memory_bytes");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        assert_int_equal(json_integer_value(json_object_get(memory, kinds[i])),
                         at(run, "memory_bytes", kinds[i]));
    json_decref(plan);
    json_decref(run);
}

static void subjects_are_presets_configs_and_models(void **state)
{
    (void)state;
    const char *folder = small_folder("planned"), *text = test_path(folder, "text.txt");
    struct program_result r = program_run("plan", "tiny-moe");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "model       lfm2_moe, 6 blocks deep, width 256"));
    assert_non_null(strstr(r.out, "training    16 x 256 tokens a step"));
    program_free(&r);
    json_t *a = json_of(program_run("plan", folder, "--json")),
           *b = json_of(program_run("plan", test_path(folder, "config.json"), "--json"));
    // A folder has a tokenizer, which takes memory too; all else is the same.
    json_t *in_folder = json_object_get(json_object_get(a, "inference"), "memory_bytes"),
           *of_config = json_object_get(json_object_get(b, "inference"), "memory_bytes");
    assert_true(json_integer_value(json_object_get(in_folder, "program")) >
                json_integer_value(json_object_get(of_config, "program")));
    assert_int_equal(json_object_set(in_folder, "program", json_object_get(of_config, "program")),
                     0);
    assert_int_equal(json_object_set(in_folder, "total", json_object_get(of_config, "total")), 0);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    // A model with a tokenizer counts a text's tokens.
    char bytes[3000];
    memset(bytes, 'a', sizeof bytes);
    CHECK_OK(em_write_file(text, bytes, sizeof bytes));
    a = json_of(
        program_run("plan", folder, "--json", "--batch", "2", "--seq", "100", "--data", text));
    const json_int_t train = at(a, "data", "train"), held_out = at(a, "data", "held_out");
    assert_in_range(train + held_out, 2900, 3001);
    assert_int_equal(at(a, "data", "steps"), (train + 199) / 200);
    json_decref(a);
    r = program_run("plan", "tiny-moe", "--data", text);
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, " bytes to train on"));
    program_free(&r);
}

static void what_is_wrong_is_said_with_its_exit_status(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "a config, a recipe, a preset or a model", "plan");
    CHECK_PROGRAM(2, "--devices 2 is not in this build", "plan", "tiny-moe", "--devices", "2");
    CHECK_PROGRAM(2, "--seq has to be within", "plan", "tiny-moe", "--seq", "1");
    CHECK_PROGRAM(1, "no preset of that name (tiny-moe)", "plan", "tiny-mo");
    CHECK_PROGRAM(1, "not GGUF files", "plan", "model.gguf");
    CHECK_PROGRAM(1, "nowhere.txt", "plan", "tiny-moe", "--data", "nowhere.txt");
    CHECK_PROGRAM(1, "a program needs 1 to 2147483647 tokens", "plan", "tiny-moe", "--batch",
                  "1000000", "--seq", "16000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_that_training_takes),
        cmocka_unit_test(operations_follow_from_the_parameters),
        cmocka_unit_test(models_of_vectors_are_planned),
        cmocka_unit_test(subjects_are_presets_configs_and_models),
        cmocka_unit_test(what_is_wrong_is_said_with_its_exit_status),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
