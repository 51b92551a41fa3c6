// ember bench: its options, its output and its refusals.
#include <jansson.h>

#include "cli/program.h"

static void json_is_one_object_and_text_has_the_same_names(void **state)
{
    (void)state;
    const char *const size[] = {"--m", "-m"}; // a letter may have two dashes
    for (size_t i = 0; i < 2; i++) {
        struct program_result r = program_run("bench", "gemm", size[i], "3", "--n=5", "--k", "7",
                                              "--dtype", "f32", "--seconds", "0.01", "--json");
        assert_int_equal(r.exit_status, 0);
        json_t *object = json_loads(r.out, 0, NULL);
        assert_true(json_is_object(object));
        const double flops = json_number_value(json_object_get(object, "gflops")) * 1e9 *
                             json_number_value(json_object_get(object, "median"));
        CHECK_NEAR(flops, 2 * 3 * 5 * 7, 1e-6, "gemm");
        json_decref(object);
        program_free(&r);
    }
    struct program_result r =
        program_run("bench", "train", "--config", EMBER_TESTS_DIR "/golden/models/lfm2/config.json",
                    "--batch", "1", "--seq", "8", "--steps", "1");
    assert_int_equal(r.exit_status, 0);
    const char *const names[] = {"tokens_per_s", "step_s", "peak_bytes", "gflops",  "profile",
                                 "median",       "min",    "max",        "repeats", "threads",
                                 "isa",          "roof",   "linear"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(r.out, names[i])) fail_msg("no %s in: %s", names[i], r.out);
    program_free(&r);
}

static void help_lists_benchmarks_and_their_options(void **state)
{
    (void)state;
    struct program_result r = program_run("bench", "--help");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "bench cross_entropy"));
    program_free(&r);
    r = program_run("bench", "attention", "--help");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "--kv-heads"));
    program_free(&r);
}

static void wrong_usage_has_its_exit_status(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "comes first", "bench");
    CHECK_PROGRAM(2, "comes first", "bench", "--json");
    CHECK_PROGRAM(2, "did you mean \"gemm\"", "bench", "gem");
    CHECK_PROGRAM(2, "--type", "bench", "recurrent", "--batch", "2");
    CHECK_PROGRAM(2, "i9", "bench", "gemm", "--dtype", "i9");
    CHECK_PROGRAM(2, "--config", "bench", "train");
    CHECK_PROGRAM(2, "MODEL", "bench", "decode");
    CHECK_PROGRAM(2, "unexpected", "bench", "gemm", "model");
    CHECK_PROGRAM(2, "--steps", "bench", "train", "--steps", "0");
    CHECK_PROGRAM(1, "nowhere", "bench", "train", "--config", "nowhere.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_one_object_and_text_has_the_same_names),
        cmocka_unit_test(help_lists_benchmarks_and_their_options),
        cmocka_unit_test(wrong_usage_has_its_exit_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
