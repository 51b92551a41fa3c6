// `ember forward` as a program: what it exits with, and what it leaves behind.
#include "program.h"

#include "base/io.h"

#define MODEL EMBER_TESTS_DIR "/golden/models/lfm2"
#define IN MODEL "/in.safetensors"

static void a_pass_ends_with_0_and_an_answer(void **state)
{
    (void)state;
    const char *out = test_path(test_directory(), "out.safetensors");
    CHECK_PROGRAM(0, "", "forward", MODEL, "--in", IN, "--out", out);
    assert_true(em_path_exists(out));
    CHECK_PROGRAM(0, "", "forward", MODEL, "--in", IN, "--out", out, "--grad", "--backend",
                  "reference", "--threads", "1");
    CHECK_PROGRAM(0, "", "forward", MODEL, "--in", IN, "--out", out, "--chunk", "3");
}

static void wrong_usage_is_2(void **state)
{
    (void)state;
    const char *out = test_path(test_directory(), "out.safetensors");
    CHECK_PROGRAM(2, "--out is needed", "forward", MODEL, "--in", IN);
    CHECK_PROGRAM(2, "--in and --out are needed", "forward", MODEL);
    CHECK_PROGRAM(2, "MODEL", "forward", "--in", IN, "--out", out);
    CHECK_PROGRAM(2, "--grad and --chunk exclude each other", "forward", MODEL, "--in", IN, "--out",
                  out, "--grad", "--chunk", "2");
    CHECK_PROGRAM(2, "--chunk has to be within 1", "forward", MODEL, "--in", IN, "--out", out,
                  "--chunk", "0");
    CHECK_PROGRAM(2, "did you mean --chunk", "forward", MODEL, "--in", IN, "--out", out, "--chunks",
                  "2");
    CHECK_PROGRAM(2, "--backend has to be reference or cpu, not gpu", "forward", MODEL, "--in", IN,
                  "--out", out, "--backend", "gpu");
    CHECK_PROGRAM(2, "--threads needs a whole number", "forward", MODEL, "--in", IN, "--out", out,
                  "--threads", "1.5");
    CHECK_PROGRAM(2, "unexpected", "forward", MODEL, MODEL, "--in", IN, "--out", out);
    assert_false(em_path_exists(out));
}

static void a_failure_is_1_and_leaves_the_answer_as_it_was(void **state)
{
    (void)state;
    const char *folder = test_directory(), *out = test_path(folder, "out.safetensors");
    struct em_buf text;
    CHECK_OK(em_write_file(out, "old", 3));
    CHECK_PROGRAM(1, "/nowhere", "forward", "/nowhere", "--in", IN, "--out", out);
    CHECK_PROGRAM(1, "absent.safetensors", "forward", MODEL, "--in",
                  test_path(folder, "absent.safetensors"), "--out", out);
    CHECK_PROGRAM(1, "config.json", "forward", folder, "--in", IN, "--out", out);
    CHECK_PROGRAM(1, "has no tensor input_ids", "forward", MODEL, "--in",
                  MODEL "/model.safetensors", "--out", out);
    CHECK_PROGRAM(1, "/no/such/folder", "forward", MODEL, "--in", IN, "--out",
                  "/no/such/folder/out.safetensors");
    em_buf_init(&text, 0);
    CHECK_OK(em_read_file(out, 0, &text));
    assert_int_equal(text.size, 3);
    em_buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_ends_with_0_and_an_answer),
        cmocka_unit_test(wrong_usage_is_2),
        cmocka_unit_test(a_failure_is_1_and_leaves_the_answer_as_it_was),
    };
    return cmocka_run_group_tests_name("cli/forward", tests, NULL, NULL);
}
