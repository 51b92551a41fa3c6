// labels: unit slow
// timeout: 1800
// Every kind of file operation of a run fails in turn, in seven ways; the disk may be full from
// there on. A run then fails with path and reason, or ends as it should; its states stay, and what
// it leaves goes on to the same end.
#include "train/run_check.h"

#include <errno.h>

enum way { NO_SPACE, BAD_DISK, QUOTA, INTERRUPTED, HALF, FULL, GONE, WAYS };
static const char *const way_name[WAYS] = {
    "ENOSPC", "EIO", "EDQUOT", "EINTR", "half of it", "full from there", "gone from there"};
static const int way_error[WAYS] = {ENOSPC, EIO, EDQUOT, EINTR, 0, ENOSPC, EIO};

static struct fault_plan plan_of(enum way way, size_t k)
{
    struct fault_plan plan = {.fail_call = k, .error = way_error[way]};
    if (way == HALF) plan.only_half = true;
    if (way == GONE) plan.for_good = true;
    if (way == FULL) plan = (struct fault_plan){.full_from = k};
    return plan;
}

static bool must_go_on(enum way way, enum fault_call kind)
{
    if (way == HALF) return true;
    return way == INTERRUPTED &&
           (kind == FAULT_OPEN || kind == FAULT_READ || kind == FAULT_PREAD ||
            kind == FAULT_WRITE || kind == FAULT_FSYNC || kind == FAULT_CLOSE ||
            kind == FAULT_FTRUNCATE || kind == FAULT_STATVFS || kind == FAULT_FLOCK);
}

static size_t cases, told;

// One run into `out` with a fault; what it says and leaves is checked.
static void fail_at(const char *out, size_t k, enum way way, uint64_t before, bool go_on)
{
    const struct fault_plan plan = plan_of(way, k);
    faults_begin(&plan);
    const ember_status status = check_run(out, true);
    const bool struck = faults_struck();
    const enum fault_call kind = faults_kind(k);
    char what[400];
    snprintf(what, sizeof what, "%s: %s", faults_describe(k), way_name[way]);
    fault_sweep_case("%s: %s (%s)", what, ember_status_name(status),
                     status == EMBER_OK ? "" : ember_last_error());
    faults_end();
    em_io_use(&check_quick);
    cases++;
    if (status == EMBER_OK) {
        check_done(out);
        if (struck && (way == FULL || way == GONE) && kind == FAULT_WRITE)
            fail_msg("%s: was not noticed", what);
    } else {
        told++;
        if (must_go_on(way, kind)) fail_msg("%s: was not gone on from", what);
        if (status != EMBER_E_IO || !strstr(ember_last_error(), strerror(way_error[way])) ||
            !strchr(ember_last_error(), '/'))
            fail_msg("%s: the message lacks path or reason: %s", what, ember_last_error());
    }
    const uint64_t step = check_folder(out);
    if (step < before)
        fail_msg("%s: the state of step %llu is lost", what, (unsigned long long)before);
    if (go_on) check_goes_on(out, step);
}

static size_t calls_from(const char *template, const char *out)
{
    if (template) fault_copy_tree(template, out);
    faults_begin(&(struct fault_plan){0});
    const ember_status status = check_run(out, true);
    const size_t calls = faults_calls();
    faults_end();
    em_io_use(&check_quick);
    CHECK_OK(status);
    check_done(out);
    CHECK_OK(em_remove_tree(out));
    return calls;
}

static void sweep(const char *name, const char *template, uint64_t before, size_t stride)
{
    const char *out = test_path(check.dir, "failed");
    const size_t calls = calls_from(template, out);
    cases = told = 0;
    if (em_test_full()) stride = 1;
    for (size_t k = 1, turn = 0; k <= calls; k += stride, turn++)
        for (enum way way = 0; way < WAYS; way++) {
            if (!em_test_full() && way != (turn + before) % WAYS) continue;
            CHECK_OK(em_remove_tree(out));
            if (template) fault_copy_tree(template, out);
            em_io_use(&check_quick);
            fail_at(out, k, way, before, em_test_full() || turn % 4 == 0);
        }
    print_message("%s: %zu calls, %zu cases, %zu of them told\n", name, calls, cases, told);
    assert_true(told > cases / 4);
    fault_sweep_case("%s", "");
}

static void a_run_tells_of_every_failed_call(void **state)
{
    (void)state;
    sweep("a run", NULL, 0, 25);
}

// Stopped at its second state: recovery, reading, and removing old states fail too.
static void a_resumed_run_tells_of_every_failed_call(void **state)
{
    (void)state;
    const char *template = test_path(check.dir, "stopped");
    struct run_stop stop = {4};
    em_log_to(run_watch, &stop);
    em_progress_every(0);
    CHECK_FAILS(check_run(template, false), EMBER_E_INTERRUPTED, "stopped");
    em_interrupt_set(false);
    em_log_to(check_listen, NULL);
    const uint64_t step = check_folder(template);
    assert_int_equal(step, 4);
    sweep("a resumed run", template, step, 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_run_tells_of_every_failed_call),
        FAULT_TEST(a_resumed_run_tells_of_every_failed_call),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
