// Training on float sequences with labels: images of two kinds, a model with one output each, and
// what is held out.
#include "train/run.h"

#include <ember/forward.h>
#include <ember/runtime.h>

enum { SIDE = 4, PIXELS = SIDE * SIDE, STEPS = 60, BATCH = 8, HELD = 25 };

static const char *dir;

// Noise with a bright row (0) or a bright column (1). `rank` 4: for training; 3: for a forward
// pass.
static const char *images(const char *name, size_t steps, size_t batch, uint64_t seed,
                          int32_t *labels, size_t rank)
{
    const size_t rows = steps * batch, four[] = {steps, batch, PIXELS, 1}, *shape = four + 4 - rank;
    float *x = em_alloc(rows * PIXELS * sizeof *x);
    struct em_rng rng;
    assert_non_null(x);
    em_rng_seed(&rng, seed, 0);
    for (size_t r = 0; r < rows; r++) {
        const size_t where = em_rng_below(&rng, SIDE);
        labels[r] = (int32_t)em_rng_below(&rng, 2);
        for (size_t i = 0; i < PIXELS; i++) {
            const bool bright = (labels[r] ? i % SIDE : i / SIDE) == where;
            x[r * PIXELS + i] = (float)bright + 0.01f * (float)em_rng_below(&rng, 20);
        }
    }
    const struct em_st_output tensors[] = {
        {.name = "inputs", .shape = shape, .rank = rank, .dtype = EM_ST_F32, .data = x},
        {.name = "labels", .shape = four, .rank = 2, .dtype = EM_ST_I32, .data = labels}};
    const char *path = test_path(dir, name);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = 2}));
    em_free(x);
    return path;
}

static const char *recipe(const char *name, const char *data, const char *held)
{
    char text[1500];
    snprintf(text, sizeof text,
             "{\"model\": {\"model_type\": \"vmamba\", \"imgsize\": %d, \"in_chans\": 1, "
             "\"num_classes\": 2, \"patch_size\": 1, \"depths\": [1], \"dims\": 8, "
             "\"ssm_d_state\": 1, \"forward_type\": \"v05_noz\", \"mlp_ratio\": 0, "
             "\"drop_path_rate\": 0},\n"
             "\"data\": {\"tensors\": \"%s\", \"tensors_held_out\": \"%s\"},\n"
             "\"train\": {\"steps\": %d, \"lr\": 0.02, \"schedule\": \"constant\", \"dtype\": "
             "\"f32\", \"eval_every\": 20}, \"seed\": 1}",
             (int)SIDE, data, held, (int)STEPS);
    return run_write(dir, name, text);
}

// Images of which the model's largest output is the label.
static size_t right(const char *model, const char *in, const int32_t *labels)
{
    const char *out = test_path(dir, "out.safetensors");
    struct em_safetensors *f;
    float y[HELD][2];
    size_t n = 0;
    CHECK_OK(ember_forward_file(model, in, out, NULL));
    CHECK_OK(em_safetensors_open(out, &f));
    const struct em_st_tensor *t = em_safetensors_find(f, "outputs");
    assert_non_null(t);
    assert_int_equal(t->elements, HELD * 2);
    memcpy(y, t->data, sizeof y);
    for (size_t i = 0; i < HELD; i++)
        n += (y[i][1] > y[i][0]) == labels[i];
    em_safetensors_close(f);
    return n;
}

static json_t *held_out(const ember_train_result *result)
{
    json_t *json = json_loads(result->json, 0, NULL);
    json_t *scored = json_incref(json_object_get(json, "held_out"));
    assert_non_null(scored);
    json_decref(json);
    return scored;
}

static void images_are_told_apart(void **state)
{
    (void)state;
    static int32_t labels[STEPS * BATCH], held[HELD], again[HELD];
    const char *data = images("data", STEPS, BATCH, 1, labels, 4),
               *test = images("test", 1, HELD, 2, held, 4),
               *in = images("in", 1, HELD, 2, again, 3);
    const char *whole = test_path(dir, "whole"), *cut = test_path(dir, "cut");
    ember_train_result result = {0};
    struct run r = {.recipe = recipe("recipe.json", data, test), .out = whole};
    CHECK_OK(run_train(&r, &result));
    assert_non_null(strstr(result.text, "held out: loss "));
    json_t *scored = held_out(&result);
    assert_int_equal(json_integer_value(json_object_get(scored, "places")), HELD);
    const size_t hits = (size_t)json_integer_value(json_object_get(scored, "right"));
    assert_true(hits >= HELD - 1);
    assert_int_equal(hits, right(whole, in, held));
    json_decref(scored);
    ember_train_result_deinit(&result);
    char *log = run_read(whole, "logs/eval.jsonl", NULL);
    assert_int_equal(run_count(log), STEPS / 20);
    assert_non_null(strstr(log, "\"accuracy\":"));
    em_free(log);
    // A run that was cut off and goes on learns and finds the same.
    run_ok(&(struct run){.recipe = r.recipe, .out = cut, .set = {"train.steps=20"}});
    r = (struct run){.out = cut, .set = {"train.steps=60"}, .resume = true};
    CHECK_OK(run_train(&r, &result));
    scored = held_out(&result);
    assert_int_equal(json_integer_value(json_object_get(scored, "right")), hits);
    json_decref(scored);
    ember_train_result_deinit(&result);
    run_same_losses(whole, cut);
    run_same_file(whole, cut, "best/model.safetensors");
}

enum { WORDS = 12, PLACES = 6, QUERY = 0 };

// Words, then QUERY, whose label is the first word; -100 elsewhere.
static const char *recall(const char *name, size_t steps, size_t batch, uint64_t seed)
{
    static int32_t ids[STEPS * 4 * BATCH * PLACES], labels[STEPS * 4 * BATCH * PLACES];
    const size_t shape[] = {steps, batch, PLACES};
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    for (size_t i = 0; i < steps * batch * PLACES; i++) {
        const size_t t = i % PLACES;
        ids[i] = t == PLACES - 1 ? QUERY : 1 + (int32_t)em_rng_below(&rng, WORDS - 1);
        labels[i] = t == PLACES - 1 ? ids[i - t] : -100;
    }
    const struct em_st_output tensors[] = {
        {.name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = ids},
        {.name = "labels", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = labels}};
    const char *path = test_path(dir, name);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = 2}));
    return path;
}

static void tokens_learn_the_labels_of_places(void **state)
{
    (void)state;
    char text[1500];
    const char *data = recall("recall", STEPS * 4, BATCH, 1), *test = recall("ask", 2, HELD, 2);
    snprintf(text, sizeof text,
             "{\"model\": {\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": 32, "
             "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"gru\"}, "
             "\"channel\": null}]},\n"
             "\"data\": {\"tensors\": \"%s\", \"tensors_held_out\": \"%s\"},\n"
             "\"train\": {\"steps\": %d, \"lr\": 0.02, \"schedule\": \"constant\", \"dtype\": "
             "\"f32\", \"eval_every\": 20, \"stop_right\": 0.95}, \"seed\": 1}",
             (int)WORDS, data, test, (int)STEPS * 4);
    ember_train_result result = {0};
    struct run r = {.recipe = run_write(dir, "recall.json", text),
                    .out = test_path(dir, "recall-out")};
    CHECK_OK(run_train(&r, &result));
    json_t *scored = held_out(&result);
    assert_int_equal(json_integer_value(json_object_get(scored, "places")), 2 * HELD);
    assert_true(json_integer_value(json_object_get(scored, "right")) >= 2 * HELD - 2);
    json_decref(scored);
    ember_train_result_deinit(&result);
    char *log = run_read(r.out, "logs/train.jsonl", NULL); // it ended where that was reached
    assert_true(run_count(log) < STEPS * 4 && run_count(log) % 20 == 0);
    em_free(log);
}

// Sequences in which the words are counted: the label is whether word 1 is there, the targets the
// shares of words 1 and 2.
static const char *counts(const char *name, size_t steps, size_t batch, bool values)
{
    static int32_t ids[STEPS * 4 * BATCH * PLACES], labels[STEPS * 4 * BATCH];
    static float targets[STEPS * 4 * BATCH * 2];
    const size_t shape[] = {steps, batch, PLACES}, made[] = {steps, batch, 2};
    struct em_rng rng;
    em_rng_seed(&rng, steps, 0);
    for (size_t r = 0; r < steps * batch; r++) {
        size_t ones = 0, twos = 0;
        for (size_t t = 0; t < PLACES; t++) {
            const int32_t id = 1 + (int32_t)em_rng_below(&rng, WORDS - 1);
            ids[r * PLACES + t] = id;
            ones += id == 1;
            twos += id == 2;
        }
        labels[r] = ones > 0;
        targets[2 * r] = (float)ones / PLACES;
        targets[2 * r + 1] = (float)twos / PLACES;
    }
    const struct em_st_output tensors[] = {
        {.name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = ids},
        values
            ? (struct em_st_output){.name = "targets",
                                    .shape = made,
                                    .rank = 3,
                                    .dtype = EM_ST_F32,
                                    .data = targets}
            : (struct em_st_output){
                  .name = "labels", .shape = shape, .rank = 2, .dtype = EM_ST_I32, .data = labels}};
    const char *path = test_path(dir, name);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = 2}));
    return path;
}

static json_t *learn_counts(bool values, const char *pool, const char *out)
{
    char text[1500];
    snprintf(
        text, sizeof text,
        "{\"model\": {\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": 16, "
        "\"language_model\": false, \"output_size\": 2, \"head_bias\": true, \"pool\": \"%s\", "
        "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"gru\", \"channel\": null}]},\n"
        "\"data\": {\"tensors\": \"%s\", \"tensors_held_out\": \"%s\"},\n"
        "\"train\": {\"steps\": %d, \"lr\": 0.02, \"schedule\": \"constant\", \"dtype\": "
        "\"f32\"}, \"seed\": 1}",
        (int)WORDS, pool, counts("counts", STEPS * 4, BATCH, values),
        counts("count", 2, HELD, values), (int)STEPS * 4);
    ember_train_result result = {0};
    struct run r = {.recipe = run_write(dir, "counts.json", text), .out = test_path(dir, out)};
    CHECK_OK(run_train(&r, &result));
    json_t *scored = held_out(&result);
    ember_train_result_deinit(&result);
    return scored;
}

static void tokens_learn_labels_and_values_of_sequences(void **state)
{
    (void)state;
    json_t *scored = learn_counts(false, "mean", "classes-out");
    assert_int_equal(json_integer_value(json_object_get(scored, "places")), 2 * HELD);
    assert_true(json_integer_value(json_object_get(scored, "right")) >= 2 * HELD - 4);
    json_decref(scored);
    // Of values that differ by a sixth and more; a constant guess errs by 0.013 on average.
    static const char *const pools[] = {"mean", "none"};
    for (size_t i = 0; i < 2; i++) {
        scored = learn_counts(true, pools[i], pools[i]);
        assert_true(json_number_value(json_object_get(scored, "loss")) < 0.002);
        json_decref(scored);
    }
    char *card = run_read(test_path(dir, "mean"), "README.md", NULL);
    assert_null(strstr(card, "ember generate"));
    em_free(card);
}

static void labels_of_places_are_checked(void **state)
{
    (void)state;
    static int32_t ids[PLACES], labels[PLACES];
    const size_t shape[] = {1, 1, PLACES};
    const char *out = test_path(dir, "refused"), *path = test_path(dir, "labels");
    const struct em_st_output tensors[] = {
        {.name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = ids},
        {.name = "labels", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = labels}};
    static const struct {
        int32_t id, label;
        const char *says;
    } wrong[] = {{0, -100, "labels of slice 0 are all -100"},
                 {0, -1, "labels[0] is -1; it has to be 0 to 11, or -100"},
                 {0, WORDS, "labels[0] is 12"},
                 {WORDS, 1, "input_ids[0] is 12; it has to be 0 to 11"}};
    char text[1500];
    snprintf(text, sizeof text,
             "{\"model\": {\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": 8, "
             "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"gru\"}, "
             "\"channel\": null}]}, \"data\": {\"tensors\": \"%s\"}, \"train\": {\"steps\": 1}}",
             (int)WORDS, path);
    const char *name = run_write(dir, "labels.json", text);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (size_t t = 0; t < PLACES; t++)
            ids[t] = wrong[i].id, labels[t] = wrong[i].label;
        CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = 2}));
        run_fails(&(struct run){.recipe = name, .out = out}, EMBER_E_RANGE, wrong[i].says);
    }
}

static void what_is_held_out_is_checked(void **state)
{
    (void)state;
    static int32_t labels[BATCH];
    const char *data = images("small", 1, BATCH, 3, labels, 4), *out = test_path(dir, "refused");
    run_fails(
        &(struct run){.recipe = recipe("ids.json", "", data), .out = out, .set = {"data.ids=x"}},
        EMBER_E_CONFIG, "data.tensors_held_out needs data.tensors");
    run_fails(
        &(struct run){.recipe = recipe("absent.json", data, test_path(dir, "absent")), .out = out},
        EMBER_E_IO, "absent");
    for (size_t i = 0; i < BATCH; i++)
        labels[i] = 0;
    const size_t shape[] = {1, BATCH, PIXELS, 1}, values[] = {1, BATCH, PIXELS, 2},
                 one[] = {1, BATCH, 2};
    static float x[BATCH * PIXELS * 2];
    struct em_st_output tensors[] = {
        {.name = "inputs", .shape = shape, .rank = 4, .dtype = EM_ST_F32, .data = x},
        {.name = "targets", .shape = values, .rank = 4, .dtype = EM_ST_F32, .data = x}};
    const char *other = test_path(dir, "values"), *whole = test_path(dir, "sequence-values");
    CHECK_OK(em_safetensors_write(other, &(struct em_st_write){.tensors = tensors, .count = 2}));
    tensors[1].shape = one;
    tensors[1].rank = 3;
    CHECK_OK(em_safetensors_write(whole, &(struct em_st_write){.tensors = tensors, .count = 2}));
    run_fails(&(struct run){.recipe = recipe("other.json", data, whole), .out = out},
              EMBER_E_CONFIG, "has to have labels");
    run_fails(&(struct run){.recipe = recipe("places.json", other, ""), .out = out}, EMBER_E_CONFIG,
              "the model makes one output of a sequence");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_are_told_apart),
        cmocka_unit_test(tokens_learn_the_labels_of_places),
        cmocka_unit_test(tokens_learn_labels_and_values_of_sequences),
        cmocka_unit_test(labels_of_places_are_checked),
        cmocka_unit_test(what_is_held_out_is_checked),
    };
    if (ember_start() != EMBER_OK) return 1;
    dir = test_directory();
    return cmocka_run_group_tests_name("train/tensors", tests, NULL, NULL);
}
