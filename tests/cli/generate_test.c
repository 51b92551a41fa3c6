// ember generate: its output, its refusals and their exit statuses.
#include "cli/program.h"
#include "infer/small_model.h"

static const char *text_model, *long_model, *endless_model;
static const char *const ids_model = EMBER_TESTS_DIR "/golden/models/lfm2";

static void ids_come_on_one_line_with_the_prompt(void **state)
{
    (void)state;
    struct program_result r = program_run("generate", ids_model, "--prompt-ids", "3 17 5", "--ids",
                                          "-n", "5", "--temperature", "0", "--dtype", "f32");
    assert_int_equal(r.exit_status, 0);
    assert_true(strncmp(r.err, "seed ", 5) == 0);
    assert_true(strncmp(r.out, "3 17 5 ", 7) == 0);
    size_t numbers = 0;
    char *end;
    for (char *at = r.out; *at && *at != '\n'; at = end, numbers++)
        assert_in_range(strtol(at, &end, 10), 0, 63);
    assert_int_equal(numbers, 8);
    assert_string_equal(strchr(r.out, '\n'), "\n");
    // Any number of threads, and --quiet, which leaves stderr empty.
    struct program_result s =
        program_run("generate", "--quiet", "--threads", "3", ids_model, "--prompt-ids=3,17,5",
                    "--ids", "-n", "5", "--temperature=0", "--dtype", "f32");
    assert_string_equal(s.out, r.out);
    assert_string_equal(s.err, "");
    program_free(&r);
    program_free(&s);
}

static void the_seed_that_is_printed_gives_the_same_text_again(void **state)
{
    (void)state;
    struct program_result r =
        program_run("generate", text_model, "-p", "Once", "-n", "30", "--ids");
    char seed[32];
    assert_int_equal(r.exit_status, 0);
    assert_int_equal(sscanf(r.err, "seed %31[0-9]", seed), 1);
    struct program_result s =
        program_run("generate", text_model, "-p", "Once", "-n", "30", "--ids", "--seed", seed);
    assert_string_equal(s.out, r.out);
    program_free(&s);
    s = program_run_with((const char *const[]){"generate", text_model, "-p", "-", "-n", "30",
                                               "--ids", "--seed", seed, NULL},
                         "Once");
    assert_string_equal(s.out, r.out);
    program_free(&s);
    s = program_run("generate", text_model, "-p", "Once", "-n", "30", "--ids", "--seed", "1");
    struct program_result t =
        program_run("generate", text_model, "-p", "Once", "-n", "30", "--ids", "--seed", "2");
    assert_string_not_equal(s.out, t.out);
    program_free(&r);
    program_free(&s);
    program_free(&t);
}

static void stop_strings_are_not_shown(void **state)
{
    (void)state;
    // A text with a letter after its first byte: most random ones have one.
    struct program_result r;
    char seed[16], stop[2] = {0};
    for (int i = 1;; i++) {
        assert_true(i < 30);
        snprintf(seed, sizeof seed, "%d", i);
        r = program_run("generate", text_model, "-p", "ab", "-n", "40", "--seed", seed);
        assert_int_equal(r.exit_status, 0);
        for (size_t k = 1; r.out[0] && r.out[k] && !stop[0]; k++)
            if (r.out[k] > ' ' && r.out[k] < 127 && r.out[k] != '-') stop[0] = r.out[k];
        if (stop[0]) break;
        program_free(&r);
    }
    struct program_result s = program_run("generate", text_model, "-p", "ab", "-n", "40", "--seed",
                                          seed, "--stop", "never, I hope", stop);
    const size_t expected = (size_t)(strchr(r.out, stop[0]) - r.out);
    assert_int_equal(strncmp(s.out, r.out, expected), 0);
    assert_null(strchr(s.out, stop[0]));
    assert_true(strlen(s.out) <= expected + 1);
    program_free(&r);
    program_free(&s);
}

static void a_full_context_is_told(void **state)
{
    (void)state;
    struct program_result r = program_run("generate", long_model, "--prompt-ids", "3 4", "--ids",
                                          "-n", "4000", "--seed", "7");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.err, "context of 2000 tokens is full"));
    program_free(&r);
    char prompt[201] = {0};
    memset(prompt, 'a', 200);
    CHECK_PROGRAM(1, "the prompt has 201 tokens, and the context of", "generate", text_model, "-p",
                  prompt);
}

static void what_is_wrong_is_said_with_its_exit_status(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "MODEL", "generate", "-p", "x");
    CHECK_PROGRAM(2, "one of -p, --prompt-ids and --file", "generate", ids_model);
    CHECK_PROGRAM(2, "one of -p, --prompt-ids and --file", "generate", ids_model, "-p", "x",
                  "--prompt-ids", "1");
    CHECK_PROGRAM(2, "did you mean --temperature?", "generate", ids_model, "--temprature", "0");
    CHECK_PROGRAM(2, "--top-p has to be within 0 and 1", "generate", ids_model, "--top-p", "2");
    CHECK_PROGRAM(2, "--sampler-order has to be llama or hf", "generate", ids_model, "-p", "x",
                  "--sampler-order", "vllm");
    CHECK_PROGRAM(2, "--prompt-ids needs token ids, not \"x\"", "generate", ids_model,
                  "--prompt-ids", "3 x");
    CHECK_PROGRAM(2, "--session is not in this build", "generate", ids_model, "-p", "x",
                  "--session", "s");
    CHECK_PROGRAM(2, "--draft is not in this build", "generate", ids_model, "-p", "x", "--draft",
                  "d");
    CHECK_PROGRAM(1, "no tokenizer.json", "generate", ids_model, "-p", "x");
    CHECK_PROGRAM(1, "token 64 at place 1 is outside the vocabulary of 64", "generate", ids_model,
                  "--prompt-ids", "3 64");
    CHECK_PROGRAM(1, "no token to start from", "generate", ids_model, "--prompt-ids", "");
    CHECK_PROGRAM(1, "/nowhere", "generate", "/nowhere", "-p", "x");
    CHECK_PROGRAM(1, "not GGUF files", "generate", "/nowhere/model.gguf", "-p", "x");
}

static void an_interrupt_stops_with_status_3(void **state)
{
    (void)state;
    const char *folder = test_directory();
    const pid_t child =
        program_start((const char *const[]){"generate", endless_model, "--prompt-ids", "3", "--ids",
                                            "-n", "90000000", "--backend", "reference", NULL},
                      NULL, folder);
    for (bool begun = false; !begun; usleep(1000)) { // until a token has come
        char *out = program_read(test_path(folder, "stdout"));
        begun = *out != 0;
        free(out);
    }
    assert_int_equal(kill(child, SIGINT), 0);
    struct program_result r = program_wait(child, folder);
    assert_int_equal(r.exit_status, 3);
    assert_int_equal(r.out[strlen(r.out) - 1], '\n');
    program_free(&r);
}

// Without a tokenizer and end tokens.
static const char *make_endless(const char *name, json_t *context)
{
    const char *path = test_path(test_directory(), name), *config = test_path(path, "config.json");
    json_t *c;
    struct em_model *m = small_model();
    CHECK_OK(em_make_directories(path));
    CHECK_OK(em_model_save_config(m, path, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(path, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    CHECK_OK(em_json_read(config, 0, 0, &c));
    assert_int_equal(json_object_set_new(c, "eos_token_id", json_null()), 0);
    assert_int_equal(json_object_set_new(c, "max_position_embeddings", context), 0);
    CHECK_OK(em_json_write(config, c, 2));
    json_decref(c);
    return path;
}

static int setup(void **state)
{
    (void)state;
    text_model = small_folder("text");
    long_model = make_endless("long", json_integer(2000));
    endless_model = make_endless("endless", json_null());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_come_on_one_line_with_the_prompt),
        cmocka_unit_test(the_seed_that_is_printed_gives_the_same_text_again),
        cmocka_unit_test(stop_strings_are_not_shown),
        cmocka_unit_test(a_full_context_is_told),
        cmocka_unit_test(what_is_wrong_is_said_with_its_exit_status),
        cmocka_unit_test(an_interrupt_stops_with_status_3),
    };
    return cmocka_run_group_tests_name("generate", tests, setup, NULL);
}
