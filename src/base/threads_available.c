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

static unsigned cores(double quota, double period, unsigned most)
{
    if (!(quota > 0) || !(period > 0) || quota / period >= most) return most;
    const unsigned whole = (unsigned)(quota / period); // half a core would stop all the others
    return whole > 0 ? whole : 1;
}

// Version 2: "cpu.max" is "QUOTA PERIOD" or "max PERIOD". Version 1: two files.
static unsigned quota_of(const char *folder, unsigned most)
{
    char path[1200], text[128];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (em_io_read_small(path, text, sizeof text))
        return sscanf(text, "%lf %lf", &quota, &period) == 2 ? cores(quota, period, most) : most;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!em_io_read_small(path, text, sizeof text)) return most;
    quota = strtod(text, NULL);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!em_io_read_small(path, text, sizeof text)) return most;
    return cores(quota, strtod(text, NULL), most);
}

// The quota of `group` below `root` and of every group above it: each of them limits. In a
// container the path may name folders that only the host sees; the root is there in any case.
static unsigned quota_along(const char *root, const char *group, unsigned most)
{
    char folder[1100];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    for (;;) {
        most = quota_of(folder, most);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= strlen(root) || !slash) return most;
        *slash = 0;
    }
}

unsigned em_threads_available(void)
{
    unsigned most = affinity();
    char text[4096];
    if (!em_io_read_small("/proc/self/cgroup", text, sizeof text)) return most;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':'),
             *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        if (strlen(group) > 1000) continue;
        if (!*controllers)
            most = quota_along("/sys/fs/cgroup", group, most);
        else if (strcmp(controllers, "cpu") == 0 || strstr(controllers, "cpu,"))
            most = quota_along("/sys/fs/cgroup/cpu", group, most);
    }
    return most;
}
