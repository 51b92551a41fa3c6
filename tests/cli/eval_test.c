// ember eval: its table, its JSON and its refusals.
#include <math.h>

#include "cli/program.h"
#include "formats/safetensors.h"
#include "infer/small_model.h"

static const char *model, *first, *second;

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static json_t *json_of(struct program_result *r)
{
    json_t *o;
    assert_int_equal(r->exit_status, 0);
    CHECK_OK(em_json_parse("stdout", r->out, strlen(r->out), 0, &o));
    program_free(r);
    return o;
}

static void figures_belong_together(void **state)
{
    (void)state;
    struct program_result r =
        program_run("eval", model, "--data", first, second, "--json", "--dtype", "f32");
    json_t *o = json_of(&r);
    const json_t *files = json_object_get(o, "files"), *total = json_object_get(o, "total");
    double nats = 0, bytes = 0, tokens = 0;
    assert_int_equal(json_array_size(files), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *f = json_array_get(files, i);
        const double each = number(f, "nats_per_token");
        assert_string_equal(json_string_value(json_object_get(f, "file")), i ? second : first);
        CHECK_NEAR(number(f, "perplexity"), exp(each), 1e-6, "file %zu", i);
        CHECK_NEAR(number(f, "bits_per_byte"),
                   each * number(f, "tokens") / (log(2) * number(f, "bytes")), 1e-6, "file %zu", i);
        nats += each * number(f, "tokens");
        tokens += number(f, "tokens");
        bytes += number(f, "bytes");
    }
    // Every byte is a token, and a BOS is in front.
    CHECK_NEAR(number(json_array_get(files, 0), "tokens"), 200, 0, "first");
    CHECK_NEAR(number(json_array_get(files, 1), "bytes"), 77, 0, "second");
    CHECK_NEAR(number(total, "nats_per_token"), nats / tokens, 1e-6, "total");
    CHECK_NEAR(number(total, "bits_per_byte"), nats / (log(2) * bytes), 1e-6, "total");
    json_decref(o);
    // The table has the same, as text.
    r = program_run("eval", model, "--data", first, second, "--dtype", "f32");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "nats/token   perplexity  bits/byte\n"));
    char *line = strchr(r.out, '\n') + 1;
    assert_int_equal(strtol(line, NULL, 10), 200);
    assert_non_null(strstr(line, "total\n"));
    program_free(&r);
}

static void windows_are_chosen(void **state)
{
    (void)state;
    struct program_result r = program_run("eval", model, "--data", first, "--json");
    json_t *o = json_of(&r);
    // The model's context is 96.
    CHECK_NEAR(number(json_object_get(o, "total"), "windows"), 3, 0, "as the model says");
    json_decref(o);
    r = program_run("eval", model, "--data", first, "--json", "--context", "10");
    o = json_of(&r);
    CHECK_NEAR(number(json_object_get(o, "total"), "windows"), 20, 0, "as asked for");
    json_decref(o);
    r = program_run("eval", model, "--data", first, "--json", "--context", "20", "--llama-windows");
    o = json_of(&r);
    CHECK_NEAR(number(json_object_get(o, "total"), "windows"), 10, 0, "llama");
    CHECK_NEAR(number(json_object_get(o, "total"), "tokens"), 90, 0, "llama");
    json_decref(o);
    r = program_run("eval", model, "--data", first, "--json", "--context", "100");
    assert_non_null(strstr(r.err, "longer than the model's context of 96"));
    json_decref(json_of(&r));
}

// Labels that no sequence of tokens lacks: the model's own, to the last place.
static void tensors_have_loss_and_accuracy(void **state)
{
    (void)state;
    static int32_t ids[2 * 3 * 5], labels[2 * 3 * 5];
    static const size_t shape[] = {2, 3, 5};
    for (size_t i = 0; i < 30; i++) {
        ids[i] = (int32_t)(7 * i % 259);
        labels[i] = i % 5 == 2 ? -100 : (int32_t)(i % 3);
    }
    const char *path = test_path(test_directory(), "tensors.safetensors");
    CHECK_OK(em_safetensors_write(
        path, &(struct em_st_write){.tensors = (const struct em_st_output[]){{.name = "input_ids",
                                                                              .shape = shape,
                                                                              .rank = 3,
                                                                              .dtype = EM_ST_I32,
                                                                              .data = ids},
                                                                             {.name = "labels",
                                                                              .shape = shape,
                                                                              .rank = 3,
                                                                              .dtype = EM_ST_I32,
                                                                              .data = labels}},
                                    .count = 2}));
    struct program_result r = program_run("eval", model, "--data", path, path, "--json");
    json_t *o = json_of(&r);
    const json_t *file = json_array_get(json_object_get(o, "files"), 1),
                 *total = json_object_get(o, "total");
    assert_string_equal(json_string_value(json_object_get(file, "measure")), "cross_entropy");
    CHECK_NEAR(number(file, "sequences"), 6, 0, "sequences");
    CHECK_NEAR(number(file, "places"), 24, 0, "places");
    CHECK_NEAR(number(file, "accuracy"), number(file, "right") / 24, 1e-9, "accuracy");
    CHECK_NEAR(number(total, "places"), 48, 0, "in both");
    CHECK_NEAR(number(total, "loss"), number(file, "loss"), 1e-9, "the same twice");
    assert_true(number(file, "loss") > 0);
    json_decref(o);
    r = program_run("eval", model, "--data", path, path);
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "   sequences       places         loss   accuracy\n"));
    assert_non_null(strstr(r.out, "total\n"));
    program_free(&r);
    CHECK_PROGRAM(2, "calls of their own", "eval", model, "--data", path, first);
    CHECK_PROGRAM(2, "windows are for texts", "eval", model, "--data", path, "--context", "4");
    CHECK_PROGRAM(1, "nowhere.safetensors", "eval", model, "--data", "nowhere.safetensors");
}

static void what_is_wrong_is_said_with_its_exit_status(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "--data is needed", "eval", model);
    CHECK_PROGRAM(2, "MODEL (a model's folder) is needed", "eval", "--data", first);
    CHECK_PROGRAM(2, "there is no option --contxt, did you mean --context?", "eval", model,
                  "--contxt", "3");
    CHECK_PROGRAM(1, "no tokenizer.json", "eval", EMBER_TESTS_DIR "/golden/models/lfm2", "--data",
                  first);
    CHECK_PROGRAM(1, "nowhere.txt", "eval", model, "--data", "nowhere.txt");
    CHECK_PROGRAM(1, "nowhere.txt", "eval", model, "--llama-windows", "--data", "nowhere.txt");
    CHECK_PROGRAM(1, "has 78 tokens, and windows of 96 need at least two", "eval", model,
                  "--llama-windows", "--data", second);
}

static int setup(void **state)
{
    (void)state;
    char text[200];
    model = small_folder("model");
    first = test_path(test_directory(), "first.txt");
    second = test_path(test_directory(), "second.txt");
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "The quick brown fox. "[i % 21];
    CHECK_OK(em_write_file(first, text, 200));
    CHECK_OK(em_write_file(second, text, 77));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_belong_together),
        cmocka_unit_test(windows_are_chosen),
        cmocka_unit_test(tensors_have_loss_and_accuracy),
        cmocka_unit_test(what_is_wrong_is_said_with_its_exit_status),
    };
    return cmocka_run_group_tests_name("eval", tests, setup, NULL);
}
