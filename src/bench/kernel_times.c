#include "bench/kernel_times.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"

static struct em_bench_kernel *find(struct em_bench_kernels *k, const char *name)
{
    size_t i = 0;
    while (i < k->count && strcmp(k->kernel[i].name, name))
        i++;
    return i < EM_BENCH_KERNELS ? &k->kernel[i] : NULL;
}

void em_bench_kernel_note(struct em_bench_kernels *k, const char *name, double bytes,
                          unsigned repeat, double seconds)
{
    struct em_bench_kernel *one = find(k, name);
    if (!one) return;
    if (one == &k->kernel[k->count]) {
        snprintf(one->name, sizeof one->name, "%s", name);
        one->bytes = bytes;
        k->count++;
    }
    one->seconds[repeat] = seconds;
}

void em_bench_kernel_note_plain(struct em_bench_kernels *k, const char *name, double bytes,
                                unsigned repeat, double seconds)
{
    struct em_bench_kernel *one = find(k, name);
    if (!one || one == &k->kernel[k->count]) return;
    one->plain_bytes = bytes;
    one->plain_seconds[repeat] = seconds;
}

// A neighbour that comes or goes meets both of one repeat, so they are compared before anything is
// sorted.
static double median_share(const struct em_bench_kernel *one, unsigned repeats)
{
    double share[EM_BENCH_MOST];
    for (unsigned i = 0; i < repeats; i++)
        share[i] = one->bytes / one->plain_bytes * one->plain_seconds[i] / one->seconds[i];
    return em_bench_summary(share, repeats).median;
}

static double rate_of(double bytes, double seconds)
{
    return seconds > 0 ? bytes / seconds / 1e9 : 0;
}

// A new object; NULL: out of memory.
static json_t *figures_of(struct em_bench_kernel *one, unsigned repeats)
{
    const double share = one->plain_bytes > 0 ? median_share(one, repeats) : 0;
    const struct em_bench_time time = em_bench_summary(one->seconds, repeats);
    json_t *figures =
        json_pack("{s:f, s:f, s:f, s:f}", "ms", 1e3 * time.median, "min_ms", 1e3 * time.min,
                  "max_ms", 1e3 * time.max, "gbytes_per_s", rate_of(one->bytes, time.median));
    if (!figures || one->plain_bytes <= 0) return figures;
    const struct em_bench_time plain = em_bench_summary(one->plain_seconds, repeats);
    json_t *beside = json_pack("{s:f, s:f}", "plain_gbytes_per_s",
                               rate_of(one->plain_bytes, plain.median), "share", share);
    const int failed = !beside || json_object_update(figures, beside);
    json_decref(beside);
    if (!failed) return figures;
    json_decref(figures);
    return NULL;
}

ember_status em_bench_kernels_report(struct em_bench_kernels *k, const struct em_bench_job *job,
                                     const struct em_bench_measured *measured, double share,
                                     json_t *out)
{
    double bytes = 0;
    json_t *all = json_object();
    for (size_t i = 0; all && i < k->count; i++) {
        struct em_bench_kernel *one = &k->kernel[i];
        bytes += one->bytes;
        if (json_object_set_new(all, one->name, figures_of(one, measured->time.repeats))) {
            json_decref(all);
            all = NULL;
        }
    }
    const double rate = bytes / measured->time.median;
    EM_TRY(em_bench_add(out, json_pack("{s:f, s:f, s:o}", "ms", 1e3 * measured->time.median,
                                       "gbytes_per_s", rate / 1e9, "kernels", all)));
    return em_bench_add_common(out, job, &measured->time, em_bench_isa(job),
                               share < 0 ? rate / measured->peak : share);
}

size_t em_bench_uncached_values(void)
{
    const size_t values = em_cpu()->l3 / 2 * 3 / sizeof(float), least = (size_t)1 << 20,
                 most = (size_t)1 << 24;
    return values < least ? least : values > most ? most : values;
}
