// timeout: 600
// The example plug-in in the program: its recipe trains, its model generates, and without the
// plug-in everything says what is missing.
#include "base/io.h"
#include "cli/program.h"
#include "train/run.h"

static const char *const recipe = EMBER_SOURCE_DIR "/examples/plugin/recipe.json";
static const char *folder; // of the model that the first test trains

static double first_and_last(const char *run, double *last)
{
    FILE *f = fopen(test_path(run, "logs/train.jsonl"), "r");
    assert_non_null(f);
    char line[8192];
    double first = -1, loss;
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "\"loss\":");
        if (!strstr(line, "\"step\":") || !at || sscanf(at + 7, "%lf", &loss) != 1) continue;
        if (first < 0) first = loss;
        *last = loss;
    }
    fclose(f);
    return first;
}

static void a_model_of_its_parts_trains(void **state)
{
    (void)state;
    const char *dir = test_directory(), *text = run_text(dir, "text.txt", 1, 20000);
    double last = 0;
    folder = test_path(dir, "model");
    struct program_result r =
        program_run("train", recipe, "--data", text, "--out", test_path(dir, "refused"));
    assert_int_equal(r.exit_status, 1);
    assert_non_null(strstr(r.err, "recipe.json: model: blocks[0].channel: no channel_mixer is "
                                  "called \"low_rank_glu\" (there are: "));
    assert_non_null(strstr(r.err, "; a plug-in's has to be loaded with --plugin FILE.so\n"));
    program_free(&r);
    CHECK_PROGRAM(0, "step 60/60", "train", recipe, "--data", text, "--out", folder, "--plugin",
                  EMBER_EXAMPLE_PLUGIN);
    const double first = first_and_last(folder, &last);
    if (!(first > 5 && last > 0 && last < first - 1))
        fail_msg("the loss went from %g to %g", first, last);
}

static void the_folder_needs_the_plugin(void **state)
{
    (void)state;
    static const char missing[] = "the model has parts of the plug-in \"example\" 1.0, which is "
                                  "not loaded: give it with --plugin FILE.so\n";
    struct program_result r = program_run("generate", folder, "-p", "the ", "-n", "8", "--plugin",
                                          EMBER_EXAMPLE_PLUGIN, "--ids");
    assert_int_equal(r.exit_status, 0);
    assert_true(strlen(r.out) > 16);
    program_free(&r);
    r = program_run("inspect", folder, "--plugin", EMBER_EXAMPLE_PLUGIN, "--plugin",
                    EMBER_EXAMPLE_PLUGIN);
    assert_non_null(strstr(r.out, "4 experts of 4,032, 2 a token"));
    program_free(&r);
    r = program_run("generate", folder, "-p", "the ");
    assert_int_equal(r.exit_status, 1);
    assert_non_null(strstr(r.err, missing));
    assert_string_equal(r.out, "");
    program_free(&r);
    CHECK_PROGRAM(1, missing, "inspect", folder);
    CHECK_PROGRAM(1, missing, "plan", folder);
    CHECK_PROGRAM(1, missing, "train", "--resume", "--out", folder);
}

static void other_versions_are_told(void **state)
{
    (void)state;
    const char *config = test_path(folder, "config.json");
    struct em_buf text = {0};
    CHECK_OK(em_read_file(config, 0, &text));
    char *version = strstr(text.data, "\"version\": \"1.0\"");
    assert_non_null(version);
    version[12] = '0';
    CHECK_OK(em_write_file(config, text.data, text.size));
    static const char line[] =
        "written with version 0.0 of the plug-in \"example\", opened with 1.0\n";
    static const char *const commands[] = {"inspect", "plan"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct program_result r =
            program_run(commands[i], folder, "--plugin", EMBER_EXAMPLE_PLUGIN);
        assert_int_equal(r.exit_status, 0);
        const char *told = strstr(r.err, line);
        assert_non_null(told);
        assert_null(strstr(told + 1, line)); // once
        program_free(&r);
    }
    em_buf_deinit(&text);
}

static void a_bad_plugin_is_one_line(void **state)
{
    (void)state;
    struct program_result r = program_run("info", "--plugin", recipe);
    assert_int_equal(r.exit_status, 1);
    char line[4096];
    snprintf(line, sizeof line, "ember: %s: not a shared object\n", recipe);
    assert_string_equal(r.err, line);
    assert_string_equal(r.out, "");
    program_free(&r);
    CHECK_PROGRAM(2, "--plugin needs a value: FILE.so", "info", "--plugin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_of_its_parts_trains),
        cmocka_unit_test(the_folder_needs_the_plugin),
        cmocka_unit_test(other_versions_are_told),
        cmocka_unit_test(a_bad_plugin_is_one_line),
    };
    return cmocka_run_group_tests_name("cli/plugin", tests, NULL, NULL);
}
