// labels: unit slow
// timeout: 1800
// The power is cut in the middle of a run, and what was not fsynced is lost, there in part, or
// there without what came before it: the newest state or the one before is whole, the model's own
// files are of one step, and the run goes on to the same end.
#include "train/run_check.h"

static size_t calls_of_a_run(const char *out)
{
    faults_begin(&(struct fault_plan){0});
    const ember_status status = check_run(out, false);
    const size_t calls = faults_calls();
    faults_end();
    em_io_use(&check_quick);
    CHECK_OK(status);
    CHECK_OK(em_remove_tree(out));
    return calls;
}

// States that were committed before the cut: LATEST was put in place after the folder's name lasts.
static uint64_t committed(size_t cut)
{
    uint64_t step = 0;
    for (size_t k = 1; (k = faults_find(k, FAULT_RENAME, "/training/LATEST")) && k < cut; k++)
        step += 2;
    return step;
}

static uint64_t cut_at(const char *out, size_t k, uint64_t seed)
{
    faults_begin(&(struct fault_plan){.power_cut = k});
    const ember_status status = check_run(out, false);
    fault_sweep_case("the power is cut at %s, seed %llu", faults_describe(k),
                     (unsigned long long)seed);
    const uint64_t last = committed(k);
    faults_power_up(seed);
    em_io_use(&check_quick);
    if (status == EMBER_OK) check_done(out); // the cut came behind the last write: all of it lasts
    const uint64_t step = check_folder(out);
    if (step != last && step != last + 2)
        fail_msg("step %llu was committed, step %llu is there", (unsigned long long)last,
                 (unsigned long long)step);
    return step;
}

static void a_power_cut_loses_no_state(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "cut");
    const size_t calls = calls_of_a_run(out), stride = em_test_amount(23, 1),
                 outcomes = em_test_amount(1, 3);
    size_t cuts = 0;
    for (size_t k = 1; k < calls; k += stride)
        for (size_t i = 0; i < outcomes; i++) {
            cut_at(out, k, (cuts % 5 < 2 ? cuts % 5 : 2 + cuts));
            const uint64_t step = check_folder(out);
            if (cuts++ % em_test_amount(4, 8) == 0) check_goes_on(out, step);
            CHECK_OK(em_remove_tree(out));
        }
    print_message("%zu calls, %zu power cuts\n", calls, cuts);
    assert_true(cuts > 40);
    fault_sweep_case("%s", "");
}

// Every call of one save, and of what follows it up to the model's own weights.
static void every_step_of_a_save_may_be_the_last(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "save");
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(check_run(out, false));
    const size_t first = faults_find(1, FAULT_MKDIR, "/training/step-4.tmp"),
                 last = faults_find(first, FAULT_RENAME, "/save/model.safetensors");
    faults_end();
    em_io_use(&check_quick);
    CHECK_OK(em_remove_tree(out));
    assert_true(first && last > first + 50);
    size_t cuts = 0;
    for (size_t k = first; k <= last + 3; k += em_test_amount(3, 1)) {
        for (uint64_t seed = 0; seed < em_test_amount(1, 6); seed++, cuts++) {
            cut_at(out, k, em_test_full() ? seed : k);
            CHECK_OK(em_remove_tree(out));
        }
    }
    print_message("%zu calls of a save, %zu power cuts\n", last + 4 - first, cuts);
    fault_sweep_case("%s", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_power_cut_loses_no_state),
        FAULT_TEST(every_step_of_a_save_may_be_the_last),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
