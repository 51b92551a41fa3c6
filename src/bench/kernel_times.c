#include "bench/kernel_times.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"

void em_bench_kernel_note(struct em_bench_kernels *k, const char *name, double bytes,
                          unsigned repeat, double seconds)
{
    size_t i = 0;
    while (i < k->count && strcmp(k->kernel[i].name, name))
        i++;
    if (i == EM_BENCH_KERNELS) return;
    if (i == k->count) {
        snprintf(k->kernel[i].name, sizeof k->kernel[i].name, "%s", name);
        k->kernel[i].bytes = bytes;
        k->count++;
    }
    k->kernel[i].seconds[repeat] = seconds;
}

ember_status em_bench_kernels_report(struct em_bench_kernels *k, const struct em_bench_job *job,
                                     const struct em_bench_measured *measured, double share,
                                     json_t *out)
{
    double bytes = 0;
    json_t *all = json_object();
    for (size_t i = 0; all && i < k->count; i++) {
        struct em_bench_kernel *one = &k->kernel[i];
        const double median = em_bench_summary(one->seconds, measured->time.repeats).median;
        json_t *figures = json_pack("{s:f, s:f}", "ms", 1e3 * median, "gbytes_per_s",
                                    median > 0 ? one->bytes / median / 1e9 : 0);
        bytes += one->bytes;
        if (json_object_set_new(all, one->name, figures)) {
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
