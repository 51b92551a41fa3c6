// labels: unit slow
// timeout: 600
// `ember train` as a program: exit statuses, signals, and whether its forecast of memory is true.
#include "train/run.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *dir, *recipe;

// The arguments, ended by NULL. stdout goes to the file "stdout".
static pid_t spawn_program(const char *const *argv)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    const int out = open(test_path(dir, "stdout"), O_WRONLY | O_CREAT | O_TRUNC, 0666),
              null = open("/dev/null", O_WRONLY);
    if (out >= 0) (void)dup2(out, STDOUT_FILENO);
    if (null >= 0) (void)dup2(null, STDERR_FILENO);
    execv(EMBER_PROGRAM, (char *const *)(uintptr_t)argv);
    _exit(127);
}

// The arguments after "train", ended by NULL.
static pid_t spawn(const char *const *words)
{
    const char *argv[32] = {"ember", "train", recipe, "--quiet"};
    size_t n = 4;
    while (*words)
        argv[n++] = *words++;
    return spawn_program(argv);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int exit_status(pid_t child, struct rusage *usage)
{
    int status;
    assert_int_equal(wait4(child, &status, 0, usage), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void exit_statuses_are_those_of_the_contract(void **state)
{
    (void)state;
    const char *out = test_path(dir, "statuses");
    assert_int_equal(exit_status(spawn(WORDS("--out", out, "--dry-run")), NULL), 0);
    assert_false(em_path_exists(out));
    assert_int_equal(exit_status(spawn(WORDS("--out", out, "--set", "train.lrr=1")), NULL), 2);
    assert_int_equal(exit_status(spawn(WORDS("--out", out, "--set", "train.lr=99")), NULL), 1);
    assert_int_equal(exit_status(spawn(WORDS("--out", out, "--preset", "tiny-moe")), NULL), 2);
    assert_int_equal(exit_status(spawn(WORDS("--backend", "cuda")), NULL), 2);
}

static void a_signal_saves_and_ends_with_three(void **state)
{
    (void)state;
    const char *whole = test_path(dir, "signal-whole"), *cut = test_path(dir, "signal-cut");
    static const int signals[] = {SIGINT, SIGTERM};
    assert_int_equal(exit_status(spawn(WORDS("--out", whole)), NULL), 0);
    for (size_t i = 0; i < 2; i++) {
        const pid_t child = spawn(WORDS("--out", cut, "--resume"));
        char *log = em_path_join(cut, "logs/train.jsonl");
        struct stat s;
        const off_t before = stat(log, &s) == 0 ? s.st_size : 0;
        while (stat(log, &s) != 0 || s.st_size <= before)
            usleep(500);
        em_free(log);
        assert_int_equal(kill(child, signals[i]), 0);
        assert_int_equal(exit_status(child, NULL), 3);
    }
    assert_int_equal(exit_status(spawn(WORDS("--out", cut, "--resume")), NULL), 0);
    run_same_losses(whole, cut);
    run_same_file(whole, cut, "model.safetensors");
}

// Sanitizers take memory of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static double total_memory(const json_t *figures)
{
    return json_number_value(json_object_get(json_object_get(figures, "memory_bytes"), "total"));
}

static void memory_is_as_foretold(void **state)
{
    (void)state;
    if (SANITIZED) skip();
    static const char *const variants[][2] = {
        {"train.recompute=false", "train.dtype=auto"},
        {"train.recompute=true", "train.dtype=auto"},
        {"train.accumulate=4", "train.dtype=f32"},
        {"train.seq=2048", "train.batch=1"},
        {"model.vocab_size=16384", "model.num_dense_layers=3"},
    };
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const char *const *v = variants[i];
        const char *words[32] = {"--json",
                                 "--set",
                                 "model.hidden_size=192",
                                 "--set",
                                 "model.intermediate_size=512",
                                 "--set",
                                 "model.moe_intermediate_size=256",
                                 "--set",
                                 "train.seq=256",
                                 "--set",
                                 "train.steps=2",
                                 "--set",
                                 v[0],
                                 "--set",
                                 v[1],
                                 "--threads",
                                 "1",
                                 "--out",
                                 test_path(dir, v[0])};
        size_t n = 0;
        while (words[n])
            n++;
        words[n] = "--dry-run";
        assert_int_equal(exit_status(spawn(words), NULL), 0);
        json_t *figures = run_json(dir, "stdout");
        const double foretold = total_memory(figures);
        json_decref(figures);
        words[n] = NULL;
        struct rusage usage;
        assert_int_equal(exit_status(spawn(words), &usage), 0);
        CHECK_NEAR(foretold / (1024.0 * (double)usage.ru_maxrss), 1, 0.05, "%s, %.0f MiB", v[0],
                   foretold / 1048576);
        // The run says so itself.
        figures = run_json(dir, "stdout");
        const json_t *measured = json_object_get(figures, "measured");
        CHECK_NEAR(json_number_value(json_object_get(measured, "memory_bytes")) /
                       (1024.0 * (double)usage.ru_maxrss),
                   1, 0.01, "%s", v[0]);
        json_decref(figures);
    }
}

// The model of the widest vocabulary that was just trained.
static void memory_of_inference_is_as_foretold(void **state)
{
    (void)state;
    if (SANITIZED) skip();
    const char *model = test_path(dir, "model.vocab_size=16384");
    assert_int_equal(exit_status(spawn_program(WORDS("ember", "plan", model, "--batch", "1",
                                                     "--seq", "128", "--json", "--threads", "1")),
                                 NULL),
                     0);
    json_t *figures = run_json(dir, "stdout");
    const double foretold = total_memory(json_object_get(figures, "inference"));
    json_decref(figures);
    struct rusage usage;
    assert_int_equal(
        exit_status(spawn_program(WORDS("ember", "generate", model, "--prompt-ids", "5 6 7", "-n",
                                        "125", "--ids", "--temperature", "1", "--threads", "1")),
                    &usage),
        0);
    CHECK_NEAR(foretold / (1024.0 * (double)usage.ru_maxrss), 1, 0.05, "%.1f MiB",
               foretold / 1048576);
}

static int start(void **state)
{
    dir = test_directory();
    if (run_quietly(state)) return -1;
    const char *text = run_text(dir, "text.txt", 2, 200000);
    char model[1024], whole[2048];
    snprintf(model, sizeof model, RUN_MODEL, 2048, 0.001);
    snprintf(whole, sizeof whole,
             "{\"model\": %s, \"data\": {\"sources\": [\"%s\"], \"tokenizer\": \"bytes\"}, "
             "\"train\": {\"steps\": 100, \"batch\": 8, \"seq\": 32, \"lr\": 0.01, "
             "\"final_eval_tokens\": 512, \"eval_tokens\": 256}}",
             model, text);
    recipe = run_write(dir, "recipe.json", whole);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_statuses_are_those_of_the_contract),
        cmocka_unit_test(a_signal_saves_and_ends_with_three),
        cmocka_unit_test(memory_is_as_foretold),
        cmocka_unit_test(memory_of_inference_is_as_foretold),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
