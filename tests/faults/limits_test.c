// labels: unit slow
// timeout: 900
// The program with less and less address space: it ends well, or with one line and exit status 1,
// never by a signal, and what it leaves can be gone on with.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults/fixture.h"
#include "support/full.h"

// A sanitizer reserves terabytes of addresses for itself.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS 0
#else
#define LIMITS 1
#endif

static const char *dir, *model, *recipe;

// 128 + signal where one ended it. What it says on stderr goes into `says`.
static int run(const char *const *argument, size_t bytes, char *says, size_t size)
{
    const char *err = test_path(dir, "stderr");
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int null = open("/dev/null", O_RDWR),
                  to = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const struct rlimit limit = {bytes, bytes};
        if (null < 0 || to < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(to, 2) < 0)
            _exit(126);
        if (bytes && setrlimit(RLIMIT_AS, &limit) != 0) _exit(126);
        execv(EMBER_PROGRAM, (char *const *)(uintptr_t)argument);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    FILE *f = fopen(err, "rb");
    assert_non_null(f);
    const size_t n = fread(says, 1, size - 1, f);
    says[n] = 0;
    fclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The least that the program itself starts with: below that the system's loader speaks, not Ember.
static size_t least(void)
{
    static const char *const version[] = {"ember", "--version", NULL};
    char says[4096];
    size_t low = 1 << 20, high = (size_t)1 << 30;
    assert_int_equal(run(version, high, says, sizeof says), 0);
    while (high - low > 64 << 10) {
        const size_t middle = low + (high - low) / 2;
        *(run(version, middle, says, sizeof says) == 0 ? &high : &low) = middle;
    }
    return high;
}

static void over_sizes(const char *what, const char *const *argument, const char *const *again,
                       const char *out)
{
    const size_t base = least(), steps = em_test_amount(20, 200);
    size_t enough = base, refused = 0;
    char says[8192];
    do {
        enough += 8 << 20;
        if (out) CHECK_OK(em_remove_tree(out));
    } while (run(argument, enough, says, sizeof says) != 0 && enough < (size_t)4 << 30);
    for (size_t i = 0; i < steps; i++) {
        const size_t bytes = base + (enough - base) * i / (steps - 1);
        if (out) CHECK_OK(em_remove_tree(out));
        const int status = run(argument, bytes, says, sizeof says);
        if (status != 0 && status != 1)
            fail_msg("%s with %zu bytes: exit status %d, \"%s\"", what, bytes, status, says);
        const char *newline = strchr(says, '\n');
        if (status == 1 && (!newline || newline[1] || strncmp(says, "ember: ", 7) != 0))
            fail_msg("%s with %zu bytes: more or less than a line: \"%s\"", what, bytes, says);
        refused += status == 1;
        if (status == 1 && again && run(again, 0, says, sizeof says) != 0)
            fail_msg("%s after %zu bytes: \"%s\"", what, bytes, says);
    }
    print_message("%s: %zu of %zu sizes from %zu to %zu KiB are too small\n", what, refused, steps,
                  base >> 10, enough >> 10);
    assert_true(refused > 0 && refused < steps);
}

static void training_runs_out_of_addresses(void **state)
{
    (void)state;
    const char *out = test_path(dir, "out");
    const char *const train[] = {"ember",   "train",     recipe, "--out", out,
                                 "--quiet", "--threads", "2",    NULL},
                      *const again[] = {"ember",   "train",     recipe, "--out",    out,
                                        "--quiet", "--threads", "2",    "--resume", NULL};
    over_sizes("train", train, again, out);
}

static void generation_runs_out_of_addresses(void **state)
{
    (void)state;
    const char *const generate[] = {"ember",     "generate", model,    "-p", "the state",
                                    "-n",        "8",        "--seed", "1",  "--quiet",
                                    "--threads", "2",        NULL};
    over_sizes("generate", generate, NULL, NULL);
}

static int start(void **state)
{
    if (fixture_quietly(state)) return -1;
    dir = test_directory();
    model = fixture_folder(dir, "model");
    char json[2048];
    snprintf(json, sizeof json,
             "{\"model\": " FIXTURE_CONFIG ", \"data\": {\"sources\": [\"%s\"],"
             " \"tokenizer\": \"bytes\"}, \"train\": {\"steps\": 3, \"batch\": 2, \"seq\": 8,"
             " \"save_every\": 1, \"final_eval_tokens\": 32, \"eval_tokens\": 32}}",
             fixture_text(dir, "text.txt", 1, 2000));
    recipe = fixture_write(dir, "recipe.json", json);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_runs_out_of_addresses),
        cmocka_unit_test(generation_runs_out_of_addresses),
    };
    if (!LIMITS) {
        print_message("an address space that is limited needs a build without sanitizers\n");
        return 0;
    }
    return cmocka_run_group_tests_name("faults/limits", tests, start, NULL);
}
