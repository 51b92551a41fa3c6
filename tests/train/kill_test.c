// labels: unit slow
// timeout: 1800
// A run that is killed again and again, a third of the times inside a save, goes on each time from
// its last whole state and ends with the losses and the weights of a run that nobody disturbed.
// EMBER_KILLS is the number of kills, 20 by default.
#include "train/run.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

static const char *dir, *recipe;

static pid_t spawn(const char *out)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    const int null = open("/dev/null", O_WRONLY);
    if (null >= 0) (void)dup2(null, STDOUT_FILENO);
    execl(EMBER_PROGRAM, "ember", "train", recipe, "--out", out, "--resume", "--quiet", "--threads",
          "1", (char *)NULL);
    _exit(127);
}

// A save that a kill has cut leaves its temporary.
static bool inside_a_save(const char *out)
{
    char **names = NULL;
    size_t count = 0;
    bool inside = false;
    char *path = em_path_join(out, "training");
    if (em_path_is_directory(path)) CHECK_OK(em_list_directory(path, &names, &count));
    for (size_t i = 0; i < count; i++)
        inside = inside || strstr(names[i], ".tmp");
    em_names_free(names, count);
    em_free(path);
    return inside;
}

// Waits until a state is being written; false when the run ends before, which `status` then tells.
static bool wait_for_save(const char *out, pid_t child, int *status)
{
    while (!inside_a_save(out)) {
        const pid_t ended = waitpid(child, status, WNOHANG);
        if (ended == child) return false;
        usleep(200);
    }
    return true;
}

static void wait_ended(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("the run ended with %x", status);
}

static bool is_done(int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status)) fail_msg("the run ended with %x", status);
    return WIFEXITED(status);
}

// Starts or continues the run in `out` and kills it; true when it was done before.
static bool run_and_kill(const char *out, struct em_rng *rng, bool aim, double seconds)
{
    const pid_t child = spawn(out);
    int status;
    if (aim) {
        if (!wait_for_save(out, child, &status)) return is_done(status);
        usleep((useconds_t)em_rng_below(rng, 8000));
    } else {
        usleep((useconds_t)(em_rng_uniform(rng) * seconds * 1e6));
    }
    assert_int_equal(kill(child, SIGKILL), 0); // a zombie may be killed too
    assert_int_equal(waitpid(child, &status, 0), child);
    return is_done(status);
}

static void killed_runs_end_like_whole_ones(void **state)
{
    (void)state;
    const char *text = getenv("EMBER_KILLS"), *whole = test_path(dir, "whole");
    const size_t wanted = text ? (size_t)strtoul(text, NULL, 10) : 20;
    size_t kills = 0, inside = 0, runs = 0;
    struct em_rng rng;
    em_rng_seed(&rng, 11, 0);
    const double start = em_clock_seconds();
    wait_ended(spawn(whole));
    const double seconds = em_clock_seconds() - start;
    while (kills < wanted || inside < wanted / 3) {
        char name[32];
        snprintf(name, sizeof name, "run-%zu", runs++);
        const char *out = test_path(dir, name);
        // A run is killed up to seven times, then let go to its end.
        for (size_t i = 0; i < 7 && (kills < wanted || inside < wanted / 3); i++) {
            if (run_and_kill(out, &rng, inside * 3 <= kills, seconds)) break;
            kills++;
            inside += inside_a_save(out);
            assert_true(kills < 20 * wanted + 100);
        }
        wait_ended(spawn(out));
        run_same_losses(whole, out);
        run_same_file(whole, out, "model.safetensors");
        run_same_file(whole, out, "best/model.safetensors");
        run_same_file(whole, out, "logs/eval.jsonl");
        CHECK_OK(em_remove_tree(out));
    }
    print_message("%zu kills, %zu of them inside a save, in %zu runs\n", kills, inside, runs);
}

static int start(void **state)
{
    dir = test_directory();
    if (run_quietly(state)) return -1;
    const char *text = run_text(dir, "text.txt", 2, 40000);
    char model[1024], whole[2048];
    snprintf(model, sizeof model, RUN_MODEL, 259, 0.001);
    snprintf(whole, sizeof whole,
             "{\"model\": %s, \"data\": {\"sources\": [\"%s\"], \"tokenizer\": \"bytes\"}, "
             "\"train\": {\"steps\": 60, \"batch\": 4, \"seq\": 32, \"lr\": 0.01, \"save_every\": "
             "7, \"eval_every\": 11, \"eval_tokens\": 256}}",
             model, text);
    recipe = run_write(dir, "recipe.json", whole);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed_runs_end_like_whole_ones)};
    return cmocka_run_group_tests(tests, start, NULL);
}
