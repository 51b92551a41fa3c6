// labels: unit slow
// timeout: 1800
// Every kind of file operation and every allocation fails in turn. A run then fails with a message,
// or ends as it should; what it leaves goes on to the same end.
#include "support/fault_io.h"
#include "train/run.h"

#include <errno.h>

static const char *dir, *recipe, *whole;

// Runs that are not about the disk do not wait for it.
static int no_fsync(int fd)
{
    (void)fd;
    return 0;
}
static struct em_io quick;

enum { RUNS = 25 }; // faults of each kind, spread over a run

static void check_goes_on(const char *out, const char *what, size_t k)
{
    ember_train_result result = {0};
    const ember_status status =
        run_train(&(struct run){.recipe = recipe, .out = out, .resume = true}, &result);
    if (status != EMBER_OK) fail_msg("after %s at %zu: %s", what, k, ember_last_error());
    ember_train_result_deinit(&result);
    run_same_losses(whole, out);
    run_same_file(whole, out, "model.safetensors");
    CHECK_OK(em_remove_tree(out));
}

// Runs with a fault, and checks what it says.
static void run_with(const struct fault_plan *plan, const char *out, const char *what, size_t k)
{
    ember_train_result result = {0};
    faults_begin(plan);
    const ember_status status =
        run_train(&(struct run){.recipe = recipe, .out = out, .resume = true}, &result);
    const bool struck = faults_struck();
    if (plan->power_cut)
        faults_power_up(k);
    else
        faults_end();
    em_io_use(&quick);
    if (status == EMBER_OK && plan->for_good && struck)
        fail_msg("%s at %zu: a full disk was not noticed", what, k);
    if (status != EMBER_OK && !*ember_last_error()) fail_msg("%s at %zu: no message", what, k);
    ember_train_result_deinit(&result);
}

static size_t calls_of_a_run(void)
{
    const char *out = test_path(dir, "count");
    faults_begin(&(struct fault_plan){0});
    run_ok(&(struct run){.recipe = recipe, .out = out});
    const size_t calls = faults_calls();
    faults_end();
    em_io_use(&quick);
    CHECK_OK(em_remove_tree(out));
    return calls;
}

static void a_failed_call_is_told_and_gone_on_from(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EDQUOT};
    const size_t calls = calls_of_a_run(), stride = calls / RUNS + 1;
    const char *out = test_path(dir, "failed");
    for (size_t k = 1; k <= calls; k += stride) {
        run_with(&(struct fault_plan){.fail_call = k, .error = errors[k % 3]}, out, "a call", k);
        check_goes_on(out, "a failed call", k);
    }
}

static void a_full_disk_is_noticed(void **state)
{
    (void)state;
    const char *out = test_path(dir, "full");
    for (size_t k = 1; k <= 30; k += 4) {
        const struct fault_plan plan = {
            .fail_of = {[FAULT_WRITE] = k}, .for_good = true, .error = ENOSPC};
        run_with(&plan, out, "a full disk", k);
        check_goes_on(out, "a full disk", k);
    }
}

static void a_power_cut_loses_little(void **state)
{
    (void)state;
    const size_t calls = calls_of_a_run(), stride = calls / RUNS + 1;
    const char *out = test_path(dir, "cut");
    for (size_t k = 2; k <= calls; k += stride) {
        run_with(&(struct fault_plan){.power_cut = k}, out, "a power cut", k);
        check_goes_on(out, "a power cut", k);
    }
}

static void memory_may_end_anywhere(void **state)
{
    (void)state;
    const char *out = test_path(dir, "memory");
    const size_t before = em_alloc_count();
    run_ok(&(struct run){.recipe = recipe, .out = out, .threads = 1});
    const size_t calls = em_alloc_count() - before;
    CHECK_OK(em_remove_tree(out));
    for (size_t k = 1; k <= calls; k += calls / (3 * RUNS) + 1) {
        ember_train_result result = {0};
        em_alloc_fail_at(k, 0);
        const ember_status status = run_train(
            &(struct run){.recipe = recipe, .out = out, .resume = true, .threads = 1}, &result);
        em_alloc_fail_at(0, 0);
        ember_train_result_deinit(&result);
        if (status != EMBER_OK && !*ember_last_error()) fail_msg("allocation %zu: no message", k);
        check_goes_on(out, "out of memory", k);
    }
}

static int start(void **state)
{
    dir = test_directory();
    quick = *em_io_system();
    quick.fsync = no_fsync;
    em_io_use(&quick);
    if (run_quietly(state)) return -1;
    const char *ids = run_ids(dir, "ids.safetensors", 6, false);
    recipe = run_recipe(dir, "recipe.json", ids, 0.01, "\"save_every\": 2");
    whole = test_path(dir, "whole");
    run_ok(&(struct run){.recipe = recipe, .out = whole});
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_call_is_told_and_gone_on_from),
        cmocka_unit_test(a_full_disk_is_noticed),
        cmocka_unit_test(a_power_cut_loses_little),
        cmocka_unit_test(memory_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
