// How many threads this process may keep busy: what affinity allows, and no more than the cgroups'
// CPU quota pays for. A container with a quota of two cores on a big machine shows all cores to
// sched_getaffinity; a pool of that size would be stopped for most of each period.
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io_priv.h"
#include "base/threads.h"

static unsigned affinity(void)
{
    // The kernel refuses a set smaller than its own: 1024 CPUs is only the size of cpu_set_t.
    for (int cpus = 1024; cpus <= 1 << 18; cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set) break;
        const size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        const int found = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (found > 0) return (unsigned)found;
    }
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (unsigned)online : 1;
}

enum { PATH_SIZE = sizeof((struct em_threads_found *)0)->quota_file };

// Keeps the quota that a file tells when it is the smallest so far.
static void keep(struct em_threads_found *f, const char *path, double quota, double period)
{
    if (!(quota > 0) || !(period > 0)) return;
    const double cores = quota / period;
    if (f->quota > 0 && cores >= f->quota) return;
    f->quota = cores;
    snprintf(f->quota_file, sizeof f->quota_file, "%s", path);
}

// Version 2: "cpu.max" is "QUOTA PERIOD" or "max PERIOD". Version 1: two files, quota -1 is none.
static void look(struct em_threads_found *f, const char *folder)
{
    char path[PATH_SIZE], text[128];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (em_io_read_small(path, text, sizeof text)) {
        if (sscanf(text, "%lf %lf", &quota, &period) == 2) keep(f, path, quota, period);
        return;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!em_io_read_small(path, text, sizeof text)) return;
    period = strtod(text, NULL);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (em_io_read_small(path, text, sizeof text)) keep(f, path, strtod(text, NULL), period);
}

// The quota of `group` below `mount` and of every group above it: each of them limits. In a
// container the path may name folders that only the host sees; the mount is there in any case.
static void look_along(struct em_threads_found *f, const char *root, const char *mount,
                       const char *group)
{
    char folder[PATH_SIZE - 32];
    const int top = snprintf(folder, sizeof folder, "%s%s", root, mount);
    if (top < 0 || (size_t)top + strlen(group) >= sizeof folder) return;
    strcat(folder, group);
    for (;;) {
        look(f, folder);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= (size_t)top || !slash) return;
        *slash = 0;
    }
}

// Whether "cpu" is in "cpuset,cpu,cpuacct".
static bool has_cpu(const char *controllers)
{
    for (const char *at = controllers; *at; at += *at == ',') {
        const size_t n = strcspn(at, ",");
        if (n == 3 && memcmp(at, "cpu", 3) == 0) return true;
        at += n;
    }
    return false;
}

static void look_in_groups(struct em_threads_found *f, const char *root)
{
    char path[256], text[4096];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!em_io_read_small(path, text, sizeof text)) return;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':'),
             *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        if (strcmp(group, "/") == 0) group++; // the mount itself
        if (!*controllers) {
            look_along(f, root, "/sys/fs/cgroup", group);
            look_along(f, root, "/sys/fs/cgroup/unified", group);
        } else if (has_cpu(controllers)) {
            look_along(f, root, "/sys/fs/cgroup/cpu", group);
            look_along(f, root, "/sys/fs/cgroup/cpu,cpuacct", group);
        }
    }
}

void em_threads_find(const char *root, struct em_threads_found *found)
{
    struct em_threads_found f = {.affinity = affinity()};
    look_in_groups(&f, root);
    f.threads = f.affinity;
    // A quota between two numbers: with the larger, all threads stand still for a part of each
    // period, with the smaller a part of the quota is not used. From a half on the former does
    // more: 2 threads do 1.5 cores' work where one does 1. Below, stopping is not worth it.
    if (f.quota > 0 && f.quota + 0.5 < f.threads) {
        f.threads = (unsigned)(f.quota + 0.5);
        if (!f.threads) f.threads = 1;
    }
    *found = f;
}

unsigned em_threads_available(void)
{
    struct em_threads_found found;
    em_threads_find("", &found);
    return found.threads;
}
