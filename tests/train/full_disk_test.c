// timeout: 1800
// A real file system without room: it fills up while a run is between two saves. The run says so
// and stops, its states are whole, and with room again it goes on to the end of an undisturbed one.
#include "train/run_check.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

enum { DISK_MIB = 16 };

static const char *disk;    // where the small file system is mounted
static const char *no_disk; // why there is none, or NULL
static const char *filler;  // the file that takes its room
static size_t left;         // bytes that it leaves
static unsigned fill_at;    // the step after which it is written
static bool filled;

static bool put(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY);
    if (fd < 0) return false;
    const bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    return close(fd) == 0 && done;
}

// Mount points of this process alone: as root of a user namespace, or as root.
static bool own_mounts(void)
{
    char line[64];
    const unsigned user = geteuid(), group = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) {
        snprintf(line, sizeof line, "0 %u 1", user);
        if (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", line)) return false;
        snprintf(line, sizeof line, "0 %u 1", group);
        if (!put("/proc/self/gid_map", line)) return false;
    } else if (user != 0 || unshare(CLONE_NEWNS) != 0) {
        return false;
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static int start(void **state)
{
    if (!own_mounts()) no_disk = "neither root nor user namespaces: no file system can be mounted";
    if (check_start(state)) return -1;
    em_io_use(NULL);
    disk = test_directory();
    char options[32];
    snprintf(options, sizeof options, "size=%dm", DISK_MIB);
    if (!no_disk && mount("tmpfs", disk, "tmpfs", 0, options) != 0)
        no_disk = "a tmpfs cannot be mounted";
    filler = test_path(disk, "filler");
    return 0;
}

static int stop(void **state)
{
    if (!no_disk) (void)umount2(disk, MNT_DETACH);
    return check_stop(state);
}

static void fill_disk(void)
{
    static char zeros[4096];
    const int fd = open(filler, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    off_t size = 0;
    ssize_t n;
    while (fd >= 0 && (n = write(fd, zeros, sizeof zeros)) > 0)
        size += n;
    filled = fd >= 0 && errno == ENOSPC && ftruncate(fd, size - (off_t)left) == 0;
    close(fd);
}

static void fill_after_a_step(void *context, enum em_log_level level, const char *line)
{
    unsigned step;
    check_listen(context, level, line);
    if (!filled && sscanf(line, "step %u/", &step) == 1 && step >= fill_at) fill_disk();
}

static void a_disk_that_fills_up_costs_no_state(void **state)
{
    (void)state;
    if (no_disk) {
        print_message("%s\n", no_disk);
        skip();
    }
    const char *out = test_path(disk, "run");
    size_t failed = 0, cases = 0;
    em_log_to(fill_after_a_step, NULL);
    em_progress_every(0);
    for (left = 0; left < 800 << 10; left += em_test_amount(64, 4) << 10)
        for (fill_at = 1; fill_at <= 5; fill_at += em_test_amount(4, 1), cases++) {
            fault_sweep_case("%zu KiB left after step %u", left >> 10, fill_at);
            filled = false;
            const ember_status status = check_run(out, true);
            assert_true(filled);
            if (status == EMBER_OK) {
                check_done(out);
            } else {
                failed++;
                if (status != EMBER_E_IO || !strstr(ember_last_error(), strerror(ENOSPC)) ||
                    !strstr(ember_last_error(), out))
                    fail_msg("the full disk is not named: %s", ember_last_error());
            }
            assert_int_equal(unlink(filler), 0);
            const uint64_t step = check_folder(out);
            assert_true(step + 2 >= fill_at - fill_at % 2);
            filled = true; // not again
            check_goes_on(out, step);
            em_io_use(NULL);
            CHECK_OK(em_remove_tree(out));
        }
    print_message("%zu times a full disk, %zu of them told\n", cases, failed);
    assert_true(failed > 4 && failed < cases);
    fault_sweep_case("%s", "");
}

// No room from the start: refused before the first step, with what is needed and what there is.
static void a_disk_too_small_is_refused(void **state)
{
    (void)state;
    if (no_disk) skip();
    const char *out = test_path(disk, "refused");
    em_log_to(check_listen, NULL);
    left = 300 << 10;
    fill_disk();
    CHECK_FAILS(check_run(out, true), EMBER_E_IO, "MiB");
    assert_int_equal(unlink(filler), 0);
    check_goes_on(out, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_disk_that_fills_up_costs_no_state),
        FAULT_TEST(a_disk_too_small_is_refused),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
