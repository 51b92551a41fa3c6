// `ember tokenizer`: what it prints, and its exit status.
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/io.h"
#include "support/check.h"

#define LFM2 EMBER_TESTS_DIR "/golden/tokenizer/lfm2"

// Runs `ember tokenizer ARGUMENTS` in a shell; the output (stderr too, with 2>&1) is the caller's.
static int run(struct em_buf *output, const char *arguments)
{
    char command[2048], bytes[4096];
    snprintf(command, sizeof command, "%s tokenizer %s", EMBER_PROGRAM, arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    em_buf_clear(output);
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, p)) > 0;)
        CHECK_OK(em_buf_add(output, bytes, n));
    const int status = pclose(p);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check_run(int status, const char *output, const char *arguments)
{
    struct em_buf found;
    em_buf_init(&found, 0);
    const int exit = run(&found, arguments);
    if (exit != status)
        fail_msg("%s: exit status %d, expected %d: %s", arguments, exit, status, found.data);
    if (!strstr(found.data ? found.data : "", output))
        fail_msg("%s: printed \"%s\", expected \"%s\" in it", arguments, found.data, output);
    em_buf_deinit(&found);
}

static void encode_and_decode_are_inverse(void **state)
{
    (void)state;
    struct em_buf ids, text;
    em_buf_init(&ids, 0);
    em_buf_init(&text, 0);
    const char *folder = test_directory(), *in = test_path(folder, "in"),
               *out = test_path(folder, "out");
    static const char words[] = "It was the age of\r\n <|im_end|> wisdom\xc3\xa9 \n\n";
    char arguments[1024];
    CHECK_OK(em_write_file(in, words, sizeof words - 1));
    snprintf(arguments, sizeof arguments, "encode " LFM2 " --file %s --no-special", in);
    assert_int_equal(run(&ids, arguments), 0);
    assert_int_equal(ids.data[ids.size - 1], '\n');
    assert_null(memchr(ids.data, '\n', ids.size - 1));
    assert_true(strncmp(ids.data, "1 ", 2) != 0);
    CHECK_OK(em_write_file(out, ids.data, ids.size));
    snprintf(arguments, sizeof arguments, "decode " LFM2 " < %s", out);
    assert_int_equal(run(&text, arguments), 0);
    assert_string_equal(text.data, words); // the final newline included, and none added
    snprintf(arguments, sizeof arguments, "encode " LFM2 "/tokenizer.json < %s", in);
    assert_int_equal(run(&ids, arguments), 0);
    assert_true(strncmp(ids.data, "1 ", 2) == 0);
    assert_non_null(strstr(ids.data, " 4 ")); // <|im_end|>
    CHECK_OK(em_write_file(out, ids.data, ids.size));
    snprintf(arguments, sizeof arguments, "decode " LFM2 " --no-special --file %s", out);
    assert_int_equal(run(&text, arguments), 0);
    assert_string_equal(text.data, "It was the age of\r\n  wisdom\xc3\xa9 \n\n");
    em_buf_deinit(&ids);
    em_buf_deinit(&text);
}

static void no_input_is_an_empty_line(void **state)
{
    (void)state;
    struct em_buf out;
    em_buf_init(&out, 0);
    assert_int_equal(run(&out, "encode " LFM2 " < /dev/null"), 0);
    assert_string_equal(out.data, "\n");
    assert_int_equal(run(&out, "decode " LFM2 " < /dev/null"), 0);
    assert_int_equal(out.size, 0);
    em_buf_deinit(&out);
}

static void train_writes_a_folder(void **state)
{
    (void)state;
    const char *folder = test_directory();
    char arguments[1024];
    snprintf(arguments, sizeof arguments,
             "train --data " EMBER_TESTS_DIR
             "/golden/tokenizer/trained/text.txt --out %s --vocab 300 --json",
             folder);
    check_run(0, "{\"tokens\": 300, \"files\": 1, ", arguments);
    snprintf(arguments, sizeof arguments, "inspect %s", folder);
    check_run(0, "model: byte-level BPE, 300 tokens, 41 merges", arguments);
    snprintf(arguments, sizeof arguments, "inspect %s --json", folder);
    check_run(0, "\"tokens\": 300,", arguments);
    snprintf(arguments, sizeof arguments,
             "train --data " EMBER_TESTS_DIR
             "/golden/tokenizer/trained/text.txt --out %s --vocab 30000 2>&1",
             folder);
    check_run(0, "not the 30000 asked for", arguments); // a line, no error
}

static void what_is_wrong_is_said_in_one_line(void **state)
{
    (void)state;
    check_run(2, "one of train, encode, decode and inspect", "2>&1");
    check_run(2, "there is no \"encod\", did you mean \"encode\"?", "encod 2>&1");
    check_run(2, "X (a folder or a tokenizer.json) is needed", "encode 2>&1");
    check_run(2, "--out is needed", "train --data x 2>&1");
    check_run(2, "did you mean --vocab?", "train --data x --out y --vocob 7 2>&1");
    check_run(2, "--vocab has to be within 259", "train --data x --out y --vocab 7 2>&1");
    check_run(1, "ember: /nonexistent: cannot open", "encode /nonexistent < /dev/null 2>&1");
    check_run(1, "ember: cannot open /nonexistent", "encode " LFM2 " --file /nonexistent 2>&1");
    check_run(1, "id 2 of the input is \"x7\"", "decode " LFM2 " --file - 2>&1 <<'E'\n3 x7\nE\n");
    check_run(1, "id 2 of the input is \"-7\"", "decode " LFM2 " 2>&1 <<'E'\n3 -7\nE\n");
    check_run(1, "id 99999 is not a token", "decode " LFM2 " 2>&1 <<'E'\n99999\nE\n");
    check_run(1, "cannot write to stdout", "inspect " LFM2 " 2>&1 >/dev/full");
    check_run(0, "ember tokenizer encode X [--file FILE] [--no-special]", "--help");
    check_run(0, "default 8192)", "train --help");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_and_decode_are_inverse),
        cmocka_unit_test(no_input_is_an_empty_line),
        cmocka_unit_test(train_writes_a_folder),
        cmocka_unit_test(what_is_wrong_is_said_in_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
