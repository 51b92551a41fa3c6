// Readers that go away while the program works: training does not end because nobody looks.
#include "base/io.h"
#include "cli/program.h"
#include "train/run.h"

// Runs a shell's line that sees the program as $ember; its exit status.
static int shell(const char *format, const char *a, const char *b, const char *c)
{
    char line[4096];
    const int n = snprintf(line, sizeof line, "ember='%s'; a='%s' b='%s' c='%s'; %s", EMBER_PROGRAM,
                           a, b, c, format);
    assert_true(n > 0 && (size_t)n < sizeof line);
    const int status = system(line);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void training_goes_on_without_its_readers(void **state)
{
    (void)state;
    const char *dir = test_directory(), *ids = run_ids(dir, "ids.safetensors", 6, false),
               *recipe = run_recipe(dir, "recipe.json", ids, 0.001, "\"steps\": 6"),
               *out = test_path(dir, "run"), *status = test_path(dir, "status");
    // Both of its readers have gone before it starts. What stdout should have had is a failure to
    // tell by the status, but the model is there.
    shell("{ sleep 0.5; \"$ember\" train \"$a\" --out \"$b\"; echo $? >\"$c\"; } 2>&1 | true",
          recipe, out, status);
    char *text = program_read(status);
    assert_string_equal(text, "1\n");
    free(text);
    assert_true(em_path_exists(test_path(out, "model.safetensors")));
    assert_true(em_path_exists(test_path(out, "report.html")));
    // Only its log's.
    out = test_path(dir, "second");
    shell("{ sleep 0.5; \"$ember\" train \"$a\" --out \"$b\" 2>&1 >/dev/null; echo $? >\"$c\"; } | "
          "true",
          recipe, out, status);
    text = program_read(status);
    assert_string_equal(text, "0\n");
    free(text);
    assert_true(em_path_exists(test_path(out, "model.safetensors")));
}

static void a_full_disk_for_figures_is_a_failure(void **state)
{
    (void)state;
    const char *model = EMBER_TESTS_DIR "/golden/models/lfm2_moe";
    assert_int_equal(shell("\"$ember\" inspect \"$a\" >/dev/full 2>/dev/null", model, "", ""), 1);
    assert_int_equal(shell("\"$ember\" plan \"$a\" --json >/dev/full 2>/dev/null", model, "", ""),
                     1);
    assert_int_equal(shell("\"$ember\" train --help >/dev/full 2>/dev/null", "", "", ""), 1);
    assert_int_equal(shell("\"$ember\" generate \"$a\" --prompt-ids 3 --ids -n 4 >/dev/full "
                           "2>/dev/null",
                           model, "", ""),
                     1);
    assert_int_equal(shell("\"$ember\" inspect \"$a\" >&- 2>/dev/null", model, "", ""), 1);
    assert_int_equal(shell("\"$ember\" inspect \"$a\" >/dev/null 2>&-", model, "", ""), 0);
    // Without stdin there is no prompt, and no file takes its place.
    assert_int_equal(shell("\"$ember\" generate \"$a\" -p - <&- >/dev/null 2>&1", model, "", ""),
                     1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_goes_on_without_its_readers),
        cmocka_unit_test(a_full_disk_for_figures_is_a_failure),
    };
    return cmocka_run_group_tests_name("pipes", tests, NULL, NULL);
}
