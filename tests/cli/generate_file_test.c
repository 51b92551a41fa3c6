// ember generate --file: answers in order, the same as alone, durable and resumed.
#include "cli/program.h"
#include "infer/small_model.h"

static const char *model;

static const char *write_text(const char *folder, const char *name, const char *text)
{
    const char *path = test_path(folder, name);
    CHECK_OK(em_write_file(path, text, strlen(text)));
    return path;
}

// Prompts of several lengths, more than run at a time; every third by ids.
enum { PROMPTS = 21 };
static const char *write_prompts(const char *folder)
{
    struct em_buf text = {0};
    for (int i = 0; i < PROMPTS; i++) {
        if (i % 3 == 2)
            CHECK_OK(em_buf_printf(&text, "{\"prompt_ids\": [1, %d, 70], \"id\": {\"n\": %d}}\n\n",
                                   60 + i, i));
        else
            CHECK_OK(em_buf_printf(&text, "{\"prompt\": \"%.*s\"%s}\r\n", 1 + i % 7, "abcdefg",
                                   i % 4 ? "" : ", \"seed\": 5"));
    }
    const char *path = write_text(folder, "prompts.jsonl", text.data);
    em_buf_deinit(&text);
    return path;
}

static void answers_come_in_order_and_are_those_of_each_alone(void **state)
{
    (void)state;
    const char *folder = test_directory(), *prompts = write_prompts(folder),
               *answers = test_path(folder, "answers.jsonl");
    struct program_result r = program_run("generate", model, "--file", prompts, "--out", answers,
                                          "-n", "12", "--seed", "40", "--ids");
    assert_int_equal(r.exit_status, 0);
    assert_string_equal(r.out, "");
    assert_non_null(strstr(r.err, "seed 40"));
    program_free(&r);
    assert_false(em_path_exists(test_path(folder, "answers.jsonl.partial")));
    char *all = program_read(answers), *line = all;
    for (int i = 0; i < PROMPTS; i++) {
        char *end = strchr(line, '\n'), seed[24];
        json_t *a;
        assert_non_null(end);
        CHECK_OK(em_json_parse("answer", line, (size_t)(end - line), 0, &a));
        line = end + 1;
        assert_int_equal(json_integer_value(json_object_get(a, "index")), i);
        const char *prompt = json_string_value(json_object_get(a, "prompt"));
        const json_int_t used = json_integer_value(json_object_get(a, "seed"));
        if (i % 3 == 2) {
            assert_null(prompt);
            assert_int_equal(json_integer_value(json_object_get(json_object_get(a, "id"), "n")), i);
        }
        assert_int_equal(used, i % 3 != 2 && i % 4 == 0 ? 5 : 40 + i);
        snprintf(seed, sizeof seed, "%lld", (long long)used);
        char ids[64];
        snprintf(ids, sizeof ids, "1 %d 70", 60 + i);
        struct program_result alone =
            program_run("generate", model, prompt ? "-p" : "--prompt-ids", prompt ? prompt : ids,
                        "-n", "12", "--ids", "--seed", seed);
        assert_int_equal(alone.exit_status, 0);
        const json_t *list = json_object_get(a, "ids");
        assert_int_equal(json_array_size(list),
                         json_integer_value(json_object_get(a, "tokens")) +
                             json_integer_value(json_object_get(a, "prompt_tokens")));
        char *at = alone.out;
        for (size_t k = 0; k < json_array_size(list); k++)
            assert_int_equal(json_integer_value(json_array_get(list, k)), strtol(at, &at, 10));
        assert_string_equal(at, "\n");
        assert_true(json_is_string(json_object_get(a, "text")));
        program_free(&alone);
        json_decref(a);
    }
    assert_string_equal(line, "");
    free(all);
}

// What an earlier run left of its answers, with a torn line at the end, is gone on from.
static void a_stopped_job_goes_on_where_it_was(void **state)
{
    (void)state;
    const char *folder = test_directory(), *prompts = write_prompts(folder),
               *whole = test_path(folder, "whole.jsonl"), *out = test_path(folder, "out.jsonl"),
               *partial = test_path(folder, "out.jsonl.partial");
    // A stop at once: nothing is answered, but the job has begun.
    const pid_t child = program_start(
        (const char *const[]){"generate", model, "--file", prompts, "--out", out, "-n", "12", NULL},
        NULL, folder);
    while (!em_path_exists(partial) && !em_path_exists(out))
        usleep(200);
    kill(child, SIGKILL);
    struct program_result r = program_wait(child, folder);
    program_free(&r);
    if (em_path_exists(out)) return; // it was faster
    // Begun or not, it ends with the answers of a job that nobody stopped.
    r = program_run("generate", model, "--file", prompts, "--out", out, "-n", "12");
    assert_int_equal(r.exit_status, 0);
    char seed[32];
    assert_int_equal(sscanf(r.err, "seed %31[0-9]", seed), 1);
    program_free(&r);
    r = program_run("generate", model, "--file", prompts, "--out", whole, "-n", "12", "--seed",
                    seed);
    assert_int_equal(r.exit_status, 0);
    program_free(&r);
    char *a = program_read(out), *b = program_read(whole);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void a_torn_partial_file_is_cut_and_continued(void **state)
{
    (void)state;
    const char *folder = test_directory(), *prompts = write_prompts(folder),
               *out = test_path(folder, "out.jsonl"), *kept = test_path(folder, "kept"),
               *partial = test_path(folder, "out.jsonl.partial");
    // A job whose last step fails keeps its partial file: OUT is a folder that is not empty.
    CHECK_OK(em_make_directories(test_path(out, "x")));
    struct program_result r =
        program_run("generate", model, "--file", prompts, "--out", out, "-n", "12", "--seed", "9");
    assert_int_equal(r.exit_status, 1);
    assert_non_null(strstr(r.err, "out.jsonl"));
    program_free(&r);
    char *all = program_read(partial);
    CHECK_OK(em_write_file(kept, all, strlen(all)));
    CHECK_OK(em_remove_tree(out));
    // The header and seven answers, then half of one; and one that counts wrong.
    char *end = all;
    for (int i = 0; i < 8; i++)
        end = strchr(end, '\n') + 1;
    static const char *const tails[] = {"{\"index\": 7, \"te", "{\"index\": 9}\n{\"index\": 8}\n",
                                        "", "garbage\n"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct em_buf text = {0};
        CHECK_OK(em_buf_add(&text, all, (size_t)(end - all)));
        CHECK_OK(em_buf_puts(&text, tails[i]));
        CHECK_OK(em_write_file(partial, text.data, text.size));
        em_buf_deinit(&text);
        r = program_run("generate", model, "--file", prompts, "--out", out, "-n", "12");
        assert_int_equal(r.exit_status, 0);
        assert_non_null(strstr(r.err, "seed 9"));
        assert_non_null(strstr(r.err, "goes on after 7 of 21 answers"));
        program_free(&r);
        char *answers = program_read(out);
        assert_string_equal(answers, strchr(all, '\n') + 1);
        free(answers);
    }
    // Another job does not touch it.
    CHECK_OK(em_write_file(partial, all, strlen(all)));
    CHECK_PROGRAM(1, "holds answers of another job", "generate", model, "--file", prompts, "--out",
                  out, "-n", "13");
    CHECK_PROGRAM(1, "holds answers of another job", "generate", model, "--file", prompts, "--out",
                  out, "-n", "12", "--seed", "10");
    CHECK_PROGRAM(1, "holds answers of another job", "generate", model, "--file", prompts, "--out",
                  out, "-n", "12", "--stop", "x");
    char *again = program_read(partial);
    assert_string_equal(again, all);
    free(again);
    free(all);
}

static void what_is_wrong_with_prompts_names_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"", "p.jsonl: there is no prompt"},
        {"{\"prompt\": \"a\"}\n\n{\"promt\": \"a\"}\n",
         "p.jsonl:3: \"promt\" is not known; did you mean \"prompt\"?"},
        {"{\"prompt\": \"a\"}\n{\"id\": 1}\n", "p.jsonl:2: one of prompt and prompt_ids"},
        {"{\"prompt\": \"a\", \"prompt_ids\": [3]}\n", "p.jsonl:1: one of prompt and prompt_ids"},
        {"{\"prompt\": 3}\n", "p.jsonl:1: prompt has to be a string"},
        {"{\"prompt_ids\": [3, -1]}\n",
         "p.jsonl:1: prompt_ids[1] has to be a token id, from 0 to 2147483647, found -1"},
        {"{\"prompt_ids\": [3, 259]}\n", "p.jsonl:1: token 259 at place 1 is outside"},
        {"{\"prompt_ids\": []}\n", "p.jsonl:1: there is no token to start from"},
        {"{\"prompt\": \"a\", \"seed\": -2}\n", "p.jsonl:1: seed has to be"},
        {"[1]\n", "p.jsonl:1: a line has to be an object"},
        {"{\"prompt\": \n", "p.jsonl:1:1:"},
    };
    const char *folder = test_directory();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *prompts = write_text(folder, "p.jsonl", wrong[i].text);
        CHECK_PROGRAM(1, wrong[i].message, "generate", model, "--file", prompts, "--out",
                      test_path(folder, "out"));
        (void)unlink(test_path(folder, "out.partial"));
    }
    CHECK_PROGRAM(1, "nowhere.jsonl", "generate", model, "--file",
                  test_path(folder, "nowhere.jsonl"), "--out", test_path(folder, "out"));
    CHECK_PROGRAM(2, "--file and --out belong together", "generate", model, "--file", "x");
    CHECK_PROGRAM(2, "one of -p, --prompt-ids and --file", "generate", model, "--file", "x",
                  "--out", "y", "-p", "z");
}

static int setup(void **state)
{
    (void)state;
    model = small_folder("model");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_in_order_and_are_those_of_each_alone),
        cmocka_unit_test(a_stopped_job_goes_on_where_it_was),
        cmocka_unit_test(a_torn_partial_file_is_cut_and_continued),
        cmocka_unit_test(what_is_wrong_with_prompts_names_the_line),
    };
    return cmocka_run_group_tests_name("generate_file", tests, setup, NULL);
}
