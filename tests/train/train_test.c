// timeout: 900
// Whole runs of a tiny model: it learns, the same however it is computed, and says what is wrong.
#include "train/run.h"

#include "formats/state.h"
#include "models/model.h"

static const char *dir, *ids;

static double last_loss(const char *out)
{
    char *losses = run_losses(out), *at = losses;
    double loss = NAN;
    for (char *end; *at; at = end + 1)
        loss = strtod(at, &end);
    em_free(losses);
    return loss;
}

static void a_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    const char *same = run_ids(dir, "same.safetensors", 150, true), *out = test_path(dir, "heart");
    const char *recipe = run_recipe(dir, "heart.json", same, 0, "\"weight_decay\": 0");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    char *losses = run_losses(out);
    CHECK_NEAR(strtod(losses, NULL), log(RUN_VOCAB), 0.1, "the first loss is that of guessing");
    assert_int_equal(run_count(losses), 150);
    em_free(losses);
    assert_true(last_loss(out) < 0.1);
}

static void the_folder_is_a_model(void **state)
{
    (void)state;
    const char *out = test_path(dir, "folder");
    const char *recipe = run_recipe(dir, "folder.json", ids, 0, "\"steps\": 3");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    static const char *const files[] = {"config.json",
                                        "model.safetensors",
                                        "generation_config.json",
                                        "README.md",
                                        "report.html",
                                        "report.json",
                                        "recipe.json",
                                        "logs/train.jsonl",
                                        "logs/eval.json",
                                        "best/model.safetensors",
                                        "best/config.json",
                                        "training/LATEST",
                                        "training/step-3/MANIFEST.json",
                                        "training/step-3/optimizer.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (!em_path_exists(test_path(out, files[i]))) fail_msg("%s is missing", files[i]);
    struct em_model *m;
    CHECK_OK(em_model_open(out, &m));
    em_model_close(m);
    // It is a start for another run, which begins where this one ended.
    char text[1024];
    snprintf(
        text, sizeof text,
        "{\"model\": \"%s\", \"data\": {\"ids\": \"%s\"}, \"train\": {\"steps\": 1, \"lr\": 0}}",
        out, ids);
    run_ok(
        &(struct run){.recipe = run_write(dir, "next.json", text), .out = test_path(dir, "next")});
    run_same_file(out, test_path(dir, "next"), "model.safetensors");
}

static void accumulation_is_one_large_batch(void **state)
{
    (void)state;
    static const char *const more[] = {"\"steps\": 12, \"dtype\": \"f32\"",
                                       "\"steps\": 12, \"dtype\": \"f32\", \"accumulate\": 3"};
    char *losses[2];
    for (size_t i = 0; i < 2; i++) {
        const char *out = test_path(dir, i ? "parts" : "whole");
        run_ok(&(struct run){.recipe = run_recipe(dir, "parts.json", ids, 0, more[i]), .out = out});
        losses[i] = run_losses(out);
    }
    const char *a = losses[0], *b = losses[1];
    for (size_t i = 0; i < 12; i++) {
        char *x, *y;
        CHECK_NEAR(strtod(a, &x), strtod(b, &y), 1e-5, "step %zu", i + 1);
        a = x + 1;
        b = y + 1;
    }
    em_free(losses[0]);
    em_free(losses[1]);
}

static void recomputation_and_threads_change_nothing(void **state)
{
    (void)state;
    const char *recipe = run_recipe(dir, "same.json", ids, 0.01, "\"steps\": 12");
    const char *plain = test_path(dir, "plain"), *again = test_path(dir, "again"),
               *two = test_path(dir, "two"), *lean = test_path(dir, "lean");
    run_ok(&(struct run){.recipe = recipe, .out = plain, .threads = 1});
    run_ok(&(struct run){.recipe = recipe, .out = again, .threads = 1});
    run_ok(&(struct run){.recipe = recipe, .out = two, .threads = 2});
    run_ok(&(struct run){
        .recipe = recipe, .out = lean, .threads = 2, .set = {"train.recompute=true"}});
    run_same_losses(plain, again);
    run_same_losses(plain, two);
    run_same_losses(plain, lean);
    run_same_file(plain, two, "model.safetensors");
    run_same_file(plain, lean, "model.safetensors");
}

static void going_on_is_as_if_nothing_had_happened(void **state)
{
    (void)state;
    const char *recipe = run_recipe(dir, "on.json", ids, 0.01, "\"steps\": 30, \"save_every\": 7");
    const char *whole = test_path(dir, "on-whole"), *cut = test_path(dir, "on-cut");
    run_ok(&(struct run){.recipe = recipe, .out = whole});
    run_stopped(&(struct run){.recipe = recipe, .out = cut}, 4);
    run_stopped(&(struct run){.out = cut, .resume = true}, 11);
    run_stopped(&(struct run){.recipe = recipe, .out = cut, .resume = true}, 12);
    run_ok(&(struct run){.out = cut, .resume = true});
    run_same_losses(whole, cut);
    run_same_file(whole, cut, "model.safetensors");
    run_same_file(whole, cut, "best/model.safetensors");
    // Nothing is left to do.
    run_ok(&(struct run){.out = cut, .resume = true});
    run_same_losses(whole, cut);
}

static void logs_are_cut_back_to_the_state(void **state)
{
    (void)state;
    const char *recipe = run_recipe(dir, "log.json", ids, 0, "\"steps\": 9, \"save_every\": 4");
    const char *out = test_path(dir, "log");
    run_stopped(&(struct run){.recipe = recipe, .out = out}, 5);
    // As if it had gone on and been killed in the middle of a line.
    struct em_append log;
    CHECK_OK(em_append_open(test_path(out, "logs/train.jsonl"), &log));
    CHECK_OK(em_append_write(&log, "{\"step\":6,\"loss\":99}\n{\"ste", 26));
    em_append_close(&log);
    run_ok(&(struct run){.out = out, .resume = true});
    char *losses = run_losses(out);
    assert_int_equal(run_count(losses), 9);
    assert_null(strstr(losses, "99\n"));
    em_free(losses);
}

static void more_steps_may_follow(void **state)
{
    (void)state;
    const char *recipe = run_recipe(dir, "more.json", ids, 0, "\"steps\": 5");
    const char *out = test_path(dir, "more");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    run_ok(&(struct run){.out = out, .resume = true, .set = {"train.steps=8", "train.lr=0.001"}});
    char *losses = run_losses(out);
    assert_int_equal(run_count(losses), 8);
    em_free(losses);
    run_fails(&(struct run){.out = out, .resume = true, .set = {"train.steps=6"}}, EMBER_E_CONFIG,
              "train.steps is 6, but the run has done 8");
    run_fails(&(struct run){.out = out, .resume = true, .set = {"seed=4"}}, EMBER_E_CONFIG,
              "seed was 3 when this run began and is 4 now");
    run_fails(&(struct run){.out = out, .resume = true, .set = {"model.hidden_size=64"}},
              EMBER_E_CONFIG, "model.hidden_size was 32");
}

static void other_data_are_refused(void **state)
{
    (void)state;
    const char *mine = run_ids(dir, "mine.safetensors", 20, false), *out = test_path(dir, "other");
    run_ok(&(struct run){.recipe = run_recipe(dir, "other.json", mine, 0, "\"steps\": 2"),
                         .out = out});
    (void)run_ids(dir, "mine.safetensors", 20, true);
    run_fails(&(struct run){.out = out, .resume = true, .set = {"train.steps=4"}}, EMBER_E_CONFIG,
              "the data are not those that this run began with");
}

static void a_folder_in_use_is_left_alone(void **state)
{
    (void)state;
    const char *recipe = run_recipe(dir, "use.json", ids, 0, "\"steps\": 2");
    const char *out = test_path(dir, "use");
    CHECK_OK(em_make_directories(out));
    (void)run_write(out, "thesis.txt", "mine");
    run_fails(&(struct run){.recipe = recipe, .out = out}, EMBER_E_STATE, "is not empty");
    assert_false(em_path_exists(test_path(out, ".lock")));
    run_fails(&(struct run){.out = test_path(dir, "nothing"), .resume = true}, EMBER_E_STATE,
              "there is no run to go on with");
    int lock;
    const char *busy = test_path(dir, "busy");
    CHECK_OK(em_make_directories(busy));
    CHECK_OK(em_lock_directory(busy, &lock));
    run_fails(&(struct run){.recipe = recipe, .out = busy}, EMBER_E_STATE, "in use by another run");
    em_unlock_directory(lock);
    run_ok(&(struct run){.recipe = recipe, .out = busy});
}

static void a_dry_run_writes_nothing(void **state)
{
    (void)state;
    const char *out = test_path(dir, "dry");
    ember_train_result result = {0};
    CHECK_OK(run_train(&(struct run){.recipe = run_recipe(dir, "dry.json", ids, 0, ""),
                                     .out = out,
                                     .dry_run = true},
                       &result));
    assert_false(em_path_exists(out));
    static const char *const says[] = {"parameters", "memory", "disk", "400 steps", "time"};
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++)
        if (!strstr(result.text, says[i])) fail_msg("%s is not in %s", says[i], result.text);
    json_t *figures = json_loads(result.json, 0, NULL);
    assert_true(json_integer_value(json_object_get(figures, "parameters")) > 1000);
    assert_true(json_number_value(json_object_get(figures, "step_s")) > 0);
    json_decref(figures);
    ember_train_result_deinit(&result);
}

static void minutes_become_steps(void **state)
{
    (void)state;
    const char *out = test_path(dir, "minutes");
    ember_train_result result = {0};
    const char *recipe = run_recipe(dir, "minutes.json", ids, 0, "\"minutes\": 0.005");
    CHECK_OK(run_train(&(struct run){.recipe = recipe, .out = out}, &result));
    json_t *figures = json_loads(result.json, 0, NULL);
    const json_int_t steps = json_integer_value(json_object_get(figures, "steps"));
    char *losses = run_losses(out);
    assert_int_equal(run_count(losses), steps);
    assert_true(steps >= 1 && steps <= RUN_STEPS);
    em_free(losses);
    json_decref(figures);
    ember_train_result_deinit(&result);
    run_ok(&(struct run){.out = out, .resume = true}); // the number is fixed
    losses = run_losses(out);
    assert_int_equal(run_count(losses), steps);
    em_free(losses);
}

static void batches_end_where_their_file_does(void **state)
{
    (void)state;
    const char *few = run_ids(dir, "few.safetensors", 3, false);
    run_fails(&(struct run){.recipe = run_recipe(dir, "few.json", few, 0, "\"steps\": 4"),
                            .out = test_path(dir, "few")},
              EMBER_E_CONFIG, "has batches for 3");
    run_fails(&(struct run){.recipe = run_recipe(dir, "few2.json", few, 0, "\"batch\": 5"),
                            .out = test_path(dir, "few2")},
              EMBER_E_CONFIG, "train.batch is 5, but the batches of");
}

static void free_block_lists_are_trained(void **state)
{
    (void)state;
    char text[2048];
    const char *out = test_path(dir, "free");
    snprintf(
        text, sizeof text,
        "{\"model\": {\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": 32, "
        "\"blocks\": ["
        "{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"short_conv\", \"width\": 4}, "
        "\"channel\": \"swiglu\"},"
        "{\"repeat\": 3, \"share\": true, \"blocks\": [{\"type\": \"sandwich_norm\", \"sequence\": "
        "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 5}, \"channel\": "
        "{\"type\": \"moe\", \"experts\": 4, \"expert\": {\"type\": \"swiglu\", \"hidden\": 16}, "
        "\"router\": {\"type\": \"sigmoid_topk\", \"k\": 2, \"selection_bias\": true, "
        "\"bias_rate\": 0.01}}}]}]}, \"data\": {\"ids\": \"%s\"}, \"train\": {\"steps\": 60, "
        "\"lr\": 0.01}}",
        RUN_VOCAB, ids);
    run_ok(&(struct run){.recipe = run_write(dir, "free.json", text), .out = out});
    char *losses = run_losses(out);
    assert_true(last_loss(out) < strtod(losses, NULL) - 0.5);
    em_free(losses);
    // The three passes share one bias, which moves once a step.
    struct em_model *m;
    CHECK_OK(em_model_open(out, &m));
    const struct em_param *p = em_params_find(&m->params, "blocks.1.channel.router.bias");
    assert_non_null(p);
    for (size_t e = 0; e < 4; e++)
        assert_true(fabs((double)em_f32(&p->tensor)[e]) < 0.6001);
    em_model_close(m);
}

// ---- numbers that are none ----

// The weights of a short run with element 0 of a tensor, or all of column 0, set to `value`.
static const char *spoilt(const char *name, const char *tensor, bool column, float value)
{
    const char *from = test_path(dir, "spoilt"), *to = test_path(dir, name);
    if (!em_path_exists(from))
        run_ok(&(struct run){.recipe = run_recipe(dir, "spoilt.json", ids, 0, "\"steps\": 1"),
                             .out = from});
    struct em_model *m;
    CHECK_OK(em_model_open(from, &m));
    const struct em_param *p = em_params_find(&m->params, tensor);
    assert_non_null(p);
    const size_t width = p->tensor.dim[p->tensor.ndim - 1];
    for (size_t i = 0; i < (column ? ember_tensor_count(&p->tensor) : 1); i += width)
        em_f32(&p->tensor)[i] = value;
    if (column && m->embedding) { // token 7 alone has this direction
        for (size_t v = 0; v < m->vocabulary; v++)
            em_f32(m->embedding)[v * m->width] = 0;
        for (size_t j = 0; j < m->width; j++)
            em_f32(m->embedding)[7 * m->width + j] = j == 0;
    }
    CHECK_OK(em_make_directories(to));
    CHECK_OK(em_model_save_config(m, to, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(to, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    return to;
}

static const char *recipe_from(const char *name, const char *model, const char *data)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model\": \"%s\", \"data\": {\"ids\": \"%s\"}, \"train\": {\"lr\": 0, \"dtype\": "
             "\"f32\"}}",
             model, data);
    return run_write(dir, name, text);
}

static void a_weight_that_is_no_number_is_named(void **state)
{
    (void)state;
    const char *model = spoilt("nan", "blocks.1.channel.expert.up.weight", false, NAN);
    run_fails(&(struct run){.recipe = recipe_from("nan.json", model, ids),
                            .out = test_path(dir, "nan-out")},
              EMBER_E_NUMERIC, "feed_forward.experts.0.w3.weight has 1 of 768 values");
}

// Slices without token 7, then one with it.
static const char *ids_with_seven_in(size_t slice)
{
    enum { SLICES = 12 };
    static int32_t x[SLICES * 2 * 8];
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = (int32_t)(8 + i % 40);
    x[slice * 16 + 3] = 7;
    const size_t shape[] = {SLICES, 2, 8};
    const struct em_st_output tensor = {
        .name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = x};
    const char *path = test_path(dir, "seven.safetensors");
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &tensor, .count = 1}));
    return path;
}

static void an_overflow_is_found_in_its_step_and_layer(void **state)
{
    (void)state;
    const char *model = spoilt("inf", "blocks.0.sequence.in_proj.weight", true, 1e14f);
    const char *data = ids_with_seven_in(9), *out = test_path(dir, "inf-out");
    // Three gates of 1e14 each: past the largest float, though every weight is finite.
    run_fails(&(struct run){.recipe = recipe_from("inf.json", model, data), .out = out},
              EMBER_E_NUMERIC, "step 10: the loss is not finite: short_conv of layer blocks.0");
    assert_non_null(strstr(ember_last_error(), "the state after step 9 is kept"));
    char *path = NULL;
    uint64_t step;
    CHECK_OK(em_state_find(out, &path, &step));
    assert_int_equal(step, 9);
    em_free(path);
}

// ---- routers ----

static void the_selection_bias_moves_towards_balance(void **state)
{
    (void)state;
    const double rate = 0.01;
    const char *out = test_path(dir, "bias");
    run_ok(&(struct run){.recipe = run_recipe(dir, "bias.json", ids, rate, "\"steps\": 60"),
                         .out = out});
    struct em_model *m;
    CHECK_OK(em_model_open(out, &m));
    const struct em_param *p = em_params_find(&m->params, "blocks.1.channel.router.bias");
    double moved = 0;
    for (size_t e = 0; e < 4; e++) {
        const double steps = (double)em_f32(&p->tensor)[e] / rate;
        CHECK_NEAR(steps, round(steps), 1e-3, "whole steps of the rate, expert %zu", e);
        moved += fabs(steps);
        assert_true(fabs(steps) <= 60);
    }
    assert_true(moved > 0);
    em_model_close(m);
    // The log tells how even the experts became.
    char *log = run_read(out, "logs/train.jsonl", NULL), *at = log;
    double violation[60];
    for (size_t i = 0; i < 60; i++) {
        at = strstr(at, "\"load_max_violation\":");
        assert_non_null(at);
        violation[i] = strtod(at += 21, NULL);
    }
    double first = 0, last = 0;
    for (size_t i = 0; i < 15; i++) {
        first += violation[i] / 15;
        last += violation[45 + i] / 15;
    }
    if (!(last < first)) fail_msg("imbalance %g became %g", first, last);
    em_free(log);
}

static int start(void **state)
{
    dir = test_directory();
    if (run_quietly(state)) return -1;
    ids = run_ids(dir, "ids.safetensors", RUN_STEPS, false);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_learnt_by_heart),
        cmocka_unit_test(the_folder_is_a_model),
        cmocka_unit_test(accumulation_is_one_large_batch),
        cmocka_unit_test(recomputation_and_threads_change_nothing),
        cmocka_unit_test(going_on_is_as_if_nothing_had_happened),
        cmocka_unit_test(logs_are_cut_back_to_the_state),
        cmocka_unit_test(more_steps_may_follow),
        cmocka_unit_test(other_data_are_refused),
        cmocka_unit_test(a_folder_in_use_is_left_alone),
        cmocka_unit_test(a_dry_run_writes_nothing),
        cmocka_unit_test(minutes_become_steps),
        cmocka_unit_test(batches_end_where_their_file_does),
        cmocka_unit_test(free_block_lists_are_trained),
        cmocka_unit_test(a_weight_that_is_no_number_is_named),
        cmocka_unit_test(an_overflow_is_found_in_its_step_and_layer),
        cmocka_unit_test(the_selection_bias_moves_towards_balance),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
