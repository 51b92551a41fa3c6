// labels: unit slow
// timeout: 3600
// A run that is killed again and again, inside its saves, at any file operation and at any time,
// goes on each time from its last whole state and ends with the losses and the weights of a run
// that nobody disturbed. EMBER_KILLS is the number of kills.
#include "train/run_check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum aim { SAVE, CALL, TIME, AIMS };

// The run in a process of its own, by threads that begin there.
static pid_t start(const char *out, const struct fault_plan *plan)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    faults_begin(plan);
    const ember_status status = check_run(out, true);
    if (status != EMBER_OK) fprintf(stderr, "%s\n", ember_last_error());
    _exit(status == EMBER_OK ? 0 : 1);
}

// Whether it was killed; else it was done, and not by a failure.
static bool was_killed(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the run ended with status %x", status);
    return false;
}

// Calls of a whole run, of one save with the model's own files after it, and seconds of a run.
struct run_size {
    size_t calls, save;
    double seconds;
};

static struct run_size measure(const char *out)
{
    struct run_size size;
    const double begin = em_clock_seconds();
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(check_run(out, false));
    size.calls = faults_calls();
    size.seconds = em_clock_seconds() - begin;
    const size_t first = faults_find(1, FAULT_MKDIR, "/training/step-4.tmp");
    size.save = faults_find(first, FAULT_RENAME, "/measured/model.safetensors") + 4 - first;
    faults_end();
    em_io_use(&check_quick);
    assert_true(first && size.save > 50 && size.save < size.calls);
    CHECK_OK(em_remove_tree(out));
    return size;
}

static bool run_and_kill(const char *out, const struct run_size *size, enum aim aim,
                         struct em_rng *rng)
{
    struct fault_plan plan = {0};
    if (aim == SAVE) {
        plan = (struct fault_plan){.after = "/training/step-",
                                   .nth = 1,
                                   .kill_call = 1 + (size_t)em_rng_below(rng, size->save)};
        fault_sweep_case("killed at call %zu of save %zu", plan.kill_call, plan.nth);
    } else if (aim == CALL) {
        plan.kill_call = 1 + (size_t)em_rng_below(rng, size->calls);
        fault_sweep_case("killed at call %zu", plan.kill_call);
    }
    const pid_t child = start(out, &plan);
    if (aim == TIME) {
        const double seconds = em_rng_uniform(rng) * size->seconds;
        fault_sweep_case("killed after %.4f s", seconds);
        usleep((useconds_t)(seconds * 1e6));
        assert_int_equal(kill(child, SIGKILL), 0); // a zombie may be killed too
    }
    return was_killed(child);
}

static void killed_runs_end_like_whole_ones(void **state)
{
    (void)state;
    const char *text = getenv("EMBER_KILLS");
    const size_t wanted = text ? (size_t)strtoul(text, NULL, 10) : em_test_amount(40, 1000);
    const struct run_size size = measure(test_path(check.dir, "measured"));
    size_t kills[AIMS] = {0}, all = 0, runs = 0;
    struct em_rng rng;
    em_rng_seed(&rng, 11, 0);
    while (all < wanted) {
        char name[32];
        snprintf(name, sizeof name, "run-%zu", runs++);
        const char *out = test_path(check.dir, name);
        uint64_t step = 0;
        // Killed up to seven times, then let go to its end.
        for (size_t i = 0; i < 7 && all < wanted; i++) {
            const enum aim aim = 10 * kills[SAVE] < 4 * (all + 1) ? SAVE
                                 : kills[CALL] < kills[TIME]      ? CALL
                                                                  : TIME;
            const bool killed = run_and_kill(out, &size, aim, &rng);
            const uint64_t now = em_path_exists(out) ? check_folder(out) : 0;
            if (now < step) fail_msg("the state of step %llu is lost", (unsigned long long)step);
            step = now;
            if (!killed) break;
            kills[aim]++;
            all++;
            assert_true(runs < 20 * wanted + 100);
        }
        check_goes_on(out, step);
        CHECK_OK(em_remove_tree(out));
    }
    print_message("%zu kills: %zu inside saves, %zu at any call, %zu at any time, in %zu runs\n",
                  all, kills[SAVE], kills[CALL], kills[TIME], runs);
    assert_true(10 * kills[SAVE] >= 3 * all);
    fault_sweep_case("%s", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {FAULT_TEST(killed_runs_end_like_whole_ones)};
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
