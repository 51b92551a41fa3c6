// Recipes: which source of a value wins, what is refused and how it is said.
#include "train/recipe.h"

#include <unistd.h>

#include "train/run.h"

static const char *dir;

static const char model_text[] =
    "{\"model_type\": \"lfm2\", \"hidden_size\": 32, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"num_hidden_layers\": 2, \"layer_types\": [\"conv\", "
    "\"full_attention\"], \"vocab_size\": 300, \"intermediate_size\": 64}";

static const char *recipe_of(const char *name, const char *data, const char *train)
{
    char text[2048];
    snprintf(text, sizeof text, "{\"model\": %s, \"data\": %s, \"train\": %s}", model_text, data,
             train);
    return run_write(dir, name, text);
}

static ember_status open_with(const char *file, const char *preset, const char *const *set,
                              struct em_recipe *r)
{
    size_t n = 0;
    while (set && set[n])
        n++;
    return em_recipe_open(
        &(struct em_recipe_request){.file = file, .preset = preset, .set = set, .set_count = n}, r);
}

#define SETS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void defaults_and_flat_options(void **state)
{
    (void)state;
    struct em_recipe r;
    const char *path = recipe_of("flat.json", "\"text\"",
                                 "{\"lr\": 0.5, \"beta2\": 0.99, \"schedule\": \"wsd\", "
                                 "\"decay_ratio\": 0.3, // why not\n}");
    CHECK_OK(open_with(path, NULL, NULL, &r));
    CHECK_NEAR(r.train.lr, 0.5, 0, "lr");
    CHECK_NEAR(r.train.clip, 1, 0, "clip");
    assert_int_equal(r.train.seq, 512);
    assert_string_equal(r.optimizer->name, "adamw");
    assert_string_equal(r.schedule->name, "wsd");
    CHECK_NEAR(((const double *)r.optimizer_options)[2], 0.99, 0, "beta2");
    CHECK_NEAR(((const double *)r.schedule_options)[1], 0.3, 0, "decay_ratio");
    assert_int_equal(r.source_count, 1);
    assert_int_equal(r.sources[0].path[0], '/'); // kept absolute
    em_recipe_close(&r);
}

static void set_wins_over_recipe_and_recipe_over_preset(void **state)
{
    (void)state;
    struct em_recipe r;
    const char *path = run_write(dir, "over.json",
                                 "{\"model\": \"tiny-moe\", \"data\": [\"a\", {\"path\": \"b\", "
                                 "\"weight\": 2}], \"train\": {\"batch\": 3, \"seq\": 64}}");
    CHECK_OK(open_with(path, NULL, SETS("train.seq=32", "data.sources.1.weight=5"), &r));
    assert_int_equal(r.train.batch, 3);
    assert_int_equal(r.train.seq, 32);
    assert_true(r.train.minutes > 0); // the preset's
    CHECK_NEAR(r.sources[1].weight, 5, 0, "weight");
    assert_string_equal(json_string_value(json_object_get(r.model, "model_type")), "lfm2_moe");
    em_recipe_close(&r);
    // One length replaces the other, wherever it comes from.
    CHECK_OK(open_with(path, NULL, SETS("train.steps=7"), &r));
    assert_int_equal(r.train.steps, 7);
    CHECK_NEAR(r.train.minutes, 0, 0, "minutes");
    em_recipe_close(&r);
    const char *data[] = {"x", "y", "z"}, *set[] = {"seed=4"};
    const struct em_recipe_request flags = {.preset = "tiny-moe",
                                            .data = data,
                                            .data_count = 3,
                                            .set = set,
                                            .set_count = 1,
                                            .seed_given = true,
                                            .seed = 9,
                                            .dtype = EM_TRAIN_F32};
    CHECK_OK(em_recipe_open(&flags, &r));
    assert_int_equal(r.source_count, 3);
    assert_int_equal(r.seed, 9);
    assert_int_equal(r.train.dtype, EM_TRAIN_F32);
    em_recipe_close(&r);
}

static void unknown_paths_are_wrong_usage(void **state)
{
    (void)state;
    struct em_recipe r;
    static const struct {
        const char *set, *says;
    } cases[] = {
        {"train.leaning_rate=1", "no leaning_rate"},
        {"train.warmpu=1", "did you mean \"warmup\"?"},
        {"train.batch.x=1", "no x"},
        {"data.sources.3.weight=1", "a list of 1"},
        {"data.sources.0.wieght=1", "did you mean \"weight\"?"},
        {"model.hiden_size=64", "did you mean \"hidden_size\"?"},
        {"traim.lr=1", "did you mean \"train\"?"},
        {"train.lr", "path.to.key=value"},
        {"=3", "path.to.key=value"},
        {"train..lr=1", "no (nothing)"},
    };
    const char *path = recipe_of("usage.json", "[\"text\"]", "{}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_FAILS(open_with(path, NULL, SETS(cases[i].set), &r), EMBER_E_USAGE, cases[i].says);
    CHECK_OK(open_with(path, NULL,
                       SETS("model.hidden_size=64", "train.optimizer.beta1=0.8",
                            "train.schedule=constant", "train.lr=2e-3"),
                       &r));
    assert_int_equal(json_integer_value(json_object_get(r.model, "hidden_size")), 64);
    CHECK_NEAR(((const double *)r.optimizer_options)[1], 0.8, 0, "beta1");
    em_recipe_close(&r);
}

static void bad_values_name_file_path_and_range(void **state)
{
    (void)state;
    struct em_recipe r;
    static const struct {
        const char *data, *train, *says;
    } cases[] = {
        {"\"t\"", "{\"lr\": 11}", "bad.json: train.lr is 11; it has to be within 0 and 10"},
        {"\"t\"", "{\"lr\": \"fast\"}", "bad.json: train.lr has to be a number, not a string"},
        {"\"t\"", "{\"btach\": 3}", "bad.json: train.btach is not known; did you mean \"batch\"?"},
        {"\"t\"", "{\"beta1\": 2}", "bad.json: train.optimizer.beta1 is 2"},
        {"\"t\"", "{\"optimizer\": \"adma\"}", "train.optimizer: no optimizer is called \"adma\""},
        {"\"t\"", "{\"schedule\": {\"type\": \"cosine\", \"decay_ratio\": 1}}",
         "train.schedule.decay_ratio is not known"},
        {"\"t\"", "{\"steps\": 3, \"minutes\": 3}", "steps and minutes exclude each other"},
        {"\"t\"", "{\"batch\": 2, \"accumulate\": 3}", "train.accumulate is 3"},
        {"\"t\"", "{\"dtype\": \"f16\"}", "it has to be one of auto|f32|bf16"},
        {"{}", "{}", "data is needed"},
        {"{\"sources\": [\"a\"], \"ids\": \"b\"}", "{}",
         "sources, ids and tensors exclude each other"},
        {"{\"sources\": [{\"name\": \"a\"}]}", "{}", "data.sources[0].path is needed"},
        {"{\"sources\": [3]}", "{}", "data.sources[0] has to be a path"},
        {"{\"held_out\": 2}", "{}", "data.held_out is 2; it has to be within 0 and 0.9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = recipe_of("bad.json", cases[i].data, cases[i].train);
        CHECK_FAILS(open_with(path, NULL, NULL, &r), EMBER_E_CONFIG, cases[i].says);
    }
    const char *path = run_write(dir, "none.json", "{\"data\": \"t\"}");
    CHECK_FAILS(open_with(path, NULL, NULL, &r), EMBER_E_CONFIG, "model is needed");
    path = run_write(dir, "name.json", "{\"model\": \"tiny-meo\", \"data\": \"t\"}");
    CHECK_FAILS(open_with(path, NULL, NULL, &r), EMBER_E_CONFIG, "did you mean \"tiny-moe\"?");
    path = run_write(dir, "top.json", "{\"model\": \"tiny-moe\", \"data\": \"t\", \"sede\": 1}");
    CHECK_FAILS(open_with(path, NULL, NULL, &r), EMBER_E_CONFIG, "did you mean \"seed\"?");
    path = run_write(dir, "list.json", "[1]");
    CHECK_FAILS(open_with(path, NULL, NULL, &r), EMBER_E_CONFIG, "has to be an object");
}

static void free_block_lists_can_be_set_deep(void **state)
{
    (void)state;
    struct em_recipe r;
    const char *path = run_write(
        dir, "free.json",
        "{\"model\": {\"model_type\": \"ember\", \"hidden_size\": 32, \"vocab_size\": 300, "
        "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"short_conv\"}, "
        "\"channel\": {\"type\": \"moe\", \"experts\": 4}}]}, \"data\": \"t\"}");
    CHECK_OK(open_with(path, NULL,
                       SETS("model.blocks.0.channel.experts=6", "model.blocks.0.sequence.width=5",
                            "model.tie_word_embeddings=false"),
                       &r));
    const json_t *block = json_array_get(json_object_get(r.model, "blocks"), 0);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(block, "channel"), "experts")), 6);
    em_recipe_close(&r);
    CHECK_FAILS(open_with(path, NULL, SETS("model.blocks.0.channel.expertz=6"), &r), EMBER_E_USAGE,
                "did you mean \"experts\"?");
    CHECK_FAILS(open_with(path, NULL, SETS("model.blocks.1.type=x"), &r), EMBER_E_USAGE,
                "a list of 1");
}

static void going_on_changes_little(void **state)
{
    (void)state;
    struct em_recipe r, more;
    const char *path = recipe_of("first.json", "[\"t\"]", "{\"steps\": 10, \"lr\": 0.1}");
    CHECK_OK(open_with(path, NULL, NULL, &r));
    const char *set[] = {"train.steps=20", "train.lr=0.2"};
    struct em_recipe_request q = {.set = set, .set_count = 2};
    CHECK_OK(em_recipe_resume(&q, r.json, &more));
    assert_int_equal(more.train.steps, 20);
    em_recipe_close(&more);
    q = (struct em_recipe_request){.file = path};
    CHECK_OK(em_recipe_resume(&q, r.json, &more));
    em_recipe_close(&more);
    // What docs/configs.md has in its table.
    static const char *const allowed[] = {"train.minutes=3",
                                          "train.warmup=3",
                                          "train.min_lr_ratio=0.2",
                                          "train.clip=2",
                                          "train.beta1=0.8",
                                          "train.weight_decay=0",
                                          "train.schedule=wsd",
                                          "train.dtype=f32",
                                          "train.optimizer.beta2=0.9",
                                          "train.eval_every=3",
                                          "train.save_every=3",
                                          "train.save_minutes=1",
                                          "train.recompute=true",
                                          "train.log_every=3",
                                          "train.accumulate=2",
                                          "data.cache=/other",
                                          "data.sources.0.path=/moved/t"};
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        q = (struct em_recipe_request){.set = &allowed[i], .set_count = 1};
        CHECK_OK(em_recipe_resume(&q, r.json, &more));
        assert_int_equal(more.new_length, i == 0);
        em_recipe_close(&more);
    }
    static const char *const refused[] = {"train.batch=4",
                                          "train.seq=8",
                                          "model.hidden_size=64",
                                          "data.vocab=500",
                                          "seed=5",
                                          "data.held_out=0.1",
                                          "data.mix=0",
                                          "data.eos=false",
                                          "data.tokenizer=bytes",
                                          "train.eval_tokens=512",
                                          "data.text_key=body",
                                          "train.final_eval_tokens=512",
                                          "data.format=lines",
                                          "data.sources.0.weight=2"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        q = (struct em_recipe_request){.set = &refused[i], .set_count = 1};
        CHECK_FAILS(em_recipe_resume(&q, r.json, &more), EMBER_E_CONFIG, "when this run began");
    }
    const char *data[] = {"t", "other"};
    q = (struct em_recipe_request){.data = data, .data_count = 2};
    CHECK_FAILS(em_recipe_resume(&q, r.json, &more), EMBER_E_CONFIG, "data.sources");
    em_recipe_close(&r);
}

static void every_key_is_documented(void **state)
{
    (void)state;
    static const ember_option *const tables[] = {em_train_settings_table, em_data_settings_table,
                                                 em_source_table, em_group_table};
    struct em_buf page = {0};
    CHECK_OK(em_read_file(EMBER_SOURCE_DIR "/docs/configs.md", 0, &page));
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        for (const ember_option *o = tables[i]; o->name; o++) {
            char coded[64], quoted[64];
            snprintf(coded, sizeof coded, "`%s`", o->name);
            snprintf(quoted, sizeof quoted, "\"%s\"", o->name);
            if (!strstr(page.data, coded) && !strstr(page.data, quoted))
                fail_msg("%s is not in docs/configs.md", o->name);
        }
    em_buf_deinit(&page);
}

static int start(void **state)
{
    dir = test_directory();
    return run_quietly(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_flat_options),
        cmocka_unit_test(set_wins_over_recipe_and_recipe_over_preset),
        cmocka_unit_test(unknown_paths_are_wrong_usage),
        cmocka_unit_test(bad_values_name_file_path_and_range),
        cmocka_unit_test(free_block_lists_can_be_set_deep),
        cmocka_unit_test(going_on_changes_little),
        cmocka_unit_test(every_key_is_documented),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
