// How many threads: affinity, and cgroup quotas in trees of files that look like the system's.
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/threads.h"
#include "support/check.h"

static const char *root; // of the tree that a test builds

static void file(const char *path, const char *text)
{
    char whole[1024];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    char *slash = strrchr(whole, '/');
    *slash = 0;
    CHECK_OK(em_make_directories(whole));
    *slash = '/';
    CHECK_OK(em_write_file(whole, text, strlen(text)));
}

static struct em_threads_found found(void)
{
    struct em_threads_found f;
    em_threads_find(root, &f);
    assert_true(f.affinity >= 1 && f.threads >= 1 && f.threads <= f.affinity);
    return f;
}

// The quota, and threads as they would be on a machine with enough processors.
static void check_quota(double quota, const char *path)
{
    char whole[1024];
    const struct em_threads_found f = found();
    CHECK_NEAR(f.quota, quota, 1e-12, "%s", path);
    snprintf(whole, sizeof whole, "%s%s", root, path);
    assert_string_equal(f.quota_file, *path ? whole : "");
    unsigned paid = quota > 0 ? (unsigned)(quota + 0.5) : f.affinity;
    if (!paid) paid = 1;
    assert_int_equal(f.threads, paid < f.affinity ? paid : f.affinity);
}

static int fresh(void **state)
{
    (void)state;
    root = test_directory();
    return 0;
}

static void without_files_affinity_decides(void **state)
{
    (void)state;
    const struct em_threads_found f = found();
    assert_int_equal(f.threads, f.affinity);
    assert_true(f.quota == 0);
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_int_equal(f.affinity, CPU_COUNT(&all));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(found().threads, 1);
    struct em_pool *pool;
    CHECK_OK(em_pool_create(0, &pool));
    assert_int_equal(em_pool_threads(pool), 1);
    em_pool_destroy(pool);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(found().affinity, CPU_COUNT(&all));
}

static void version_2_is_read(void **state)
{
    (void)state;
    file("/proc/self/cgroup", "0::/user.slice/run\n");
    check_quota(0, "");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "max 100000\n");
    check_quota(0, "");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "100000 100000\n");
    check_quota(1, "/sys/fs/cgroup/user.slice/run/cpu.max");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "150000 100000\n");
    check_quota(1.5, "/sys/fs/cgroup/user.slice/run/cpu.max");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "120000 100000\n");
    check_quota(1.2, "/sys/fs/cgroup/user.slice/run/cpu.max");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "10000 50000\n");
    check_quota(0.2, "/sys/fs/cgroup/user.slice/run/cpu.max");
    file("/sys/fs/cgroup/user.slice/run/cpu.max", "6400000 100000\n");
    check_quota(64, "/sys/fs/cgroup/user.slice/run/cpu.max");
}

static void the_smallest_quota_on_the_way_up_counts(void **state)
{
    (void)state;
    file("/proc/self/cgroup", "0::/a/b/c\n");
    file("/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    file("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    file("/sys/fs/cgroup/a/b/c/cpu.max", "200000 100000\n");
    check_quota(0.5, "/sys/fs/cgroup/a/cpu.max");
    file("/sys/fs/cgroup/a/b/c/cpu.max", "25000 100000\n");
    check_quota(0.25, "/sys/fs/cgroup/a/b/c/cpu.max");
    // A group beside it does not count.
    file("/sys/fs/cgroup/a/d/cpu.max", "1000 100000\n");
    check_quota(0.25, "/sys/fs/cgroup/a/b/c/cpu.max");
}

// A container sees its own group as the mount, and its path as the host has it.
static void in_a_container_the_mount_counts(void **state)
{
    (void)state;
    file("/proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    file("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    check_quota(1, "/sys/fs/cgroup/cpu.max");
    file("/proc/self/cgroup", "0::/\n");
    check_quota(1, "/sys/fs/cgroup/cpu.max");
}

static void version_1_is_read(void **state)
{
    (void)state;
    file("/proc/self/cgroup", "12:cpuset:/set\n11:memory:/m\n4:cpuacct,cpu:/jobs/7\n1:name=x:/\n");
    check_quota(0, "");
    file("/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_period_us", "100000\n");
    file("/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us", "-1\n");
    check_quota(0, "");
    file("/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us", "130000\n");
    check_quota(1.3, "/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us");
    file("/sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n");
    file("/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "70000\n");
    check_quota(0.7, "/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us");
    // Other controllers' groups have no say.
    file("/sys/fs/cgroup/cpu/set/cpu.cfs_period_us", "100000\n");
    file("/sys/fs/cgroup/cpu/set/cpu.cfs_quota_us", "10000\n");
    check_quota(0.7, "/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us");
}

static void joined_controllers_are_found(void **state)
{
    (void)state;
    file("/proc/self/cgroup", "4:cpu,cpuacct:/\n0::/\n");
    file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "90000\n");
    check_quota(0.9, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us");
}

static void nonsense_is_no_quota(void **state)
{
    (void)state;
    static const char *const texts[] = {"",           "\n",          "max",
                                        "0 100000\n", "-5 100000\n", "5 0\n",
                                        "nan 1000\n", "1e5\n",       "quota period\n"};
    file("/proc/self/cgroup", "0::/a\nnonsense\n::\n:\n0::\n");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        file("/sys/fs/cgroup/a/cpu.max", texts[i]);
        check_quota(0, "");
    }
    char path[3000] = "0::/";
    memset(path + 4, 'x', sizeof path - 6);
    path[sizeof path - 2] = '\n';
    path[sizeof path - 1] = 0;
    file("/proc/self/cgroup", path);
    check_quota(0, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(without_files_affinity_decides),
        TEST(version_2_is_read),
        TEST(the_smallest_quota_on_the_way_up_counts),
        TEST(in_a_container_the_mount_counts),
        TEST(version_1_is_read),
        TEST(joined_controllers_are_found),
        TEST(nonsense_is_no_quota),
    };
    return cmocka_run_group_tests_name("threads available", tests, NULL, NULL);
}
