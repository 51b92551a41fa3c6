// `ember bench fftconv`: the causal long convolution as an operation, its kernel as long as the
// sequences.
#include <math.h>

#include "base/process.h"
#include "bench/probe.h"
#include "kernels/kernels.h"

static ember_status record(struct em_bench_probe *p, const ember_bench_options *o)
{
    ember_tensor *u, *k, *gate[2] = {NULL, NULL}, *y;
    EM_TRY(em_bench_probe_rows(p, o->channels, &u));
    for (unsigned i = 0; o->gated && i < 2; i++)
        EM_TRY(em_bench_probe_rows(p, o->channels, &gate[i]));
    EM_TRY(ember_param(&p->build, &k, "kernel", EMBER_INIT_NORMAL, EMBER_ROLE_CONVOLUTION,
                       (size_t[]){o->channels, o->length}, 2));
    EM_TRY(em_bench_probe_want_gradients(p));
    EM_TRY(ember_fft_conv(em_program_flow(p->program), NULL, u, k, NULL, gate[0], gate[1], &y));
    return em_bench_probe_ready(p, y);
}

// What the process has grown by beside inputs, output and their gradients, and the tables that the
// inputs are read from. Where the system gives no figures: 0.
static double extra_bytes(const ember_bench_options *o, uint64_t before)
{
    const double values = (double)o->batch * (double)o->channels * (double)o->length,
                 taps = (double)o->channels * (double)o->length, inputs = o->gated ? 3 : 1;
    const double known = 4 * (o->backward ? 2 : 1) * (2 * inputs * values + taps + values);
    const double grown = (double)em_process_peak() - (double)before - known;
    return grown > 0 ? grown : 0;
}

static ember_status measure(struct em_bench_probe *p, json_t *out)
{
    const struct em_bench_job *job = p->job;
    const ember_bench_options *o = job->options;
    struct em_bench_measured measured;
    double seconds;
    const uint64_t before = em_process_resident();
    EM_TRY(record(p, o));
    EM_TRY(em_bench_probe_run(p, &seconds));
    const double extra = extra_bytes(o, before);
    EM_TRY(em_bench_probe_measure(p, EM_BENCH_F32, &measured));
    // A transform takes 5 operations a value and level: two of them forward, three more backward.
    const double values = (double)o->batch * (double)o->channels * (double)o->length;
    const double transforms = o->backward ? 5 : 2, median = measured.time.median;
    const double flops = transforms * 5 * (log2((double)o->length) + 1) * values / median;
    EM_TRY(em_bench_add(out,
                        json_pack("{s:s, s:f, s:f, s:f}", "dtype", "f32", "ms", 1e3 * median,
                                  "ns_per_element", 1e9 * median / values, "extra_bytes", extra)));
    return em_bench_add_common(out, job, &measured.time,
                               job->backend == EM_REFERENCE ? "reference" : em_kernels()->isa,
                               flops / measured.peak);
}

ember_status em_bench_fftconv(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    struct em_bench_probe p;
    EM_TRY(em_bench_need("fftconv", "batch", o->batch));
    EM_TRY(em_bench_need("fftconv", "channels", o->channels));
    EM_TRY(em_bench_need("fftconv", "length", o->length));
    ember_status status =
        em_bench_probe_open(job, "bench fftconv", o->batch, o->length, 0, o->backward, &p);
    if (status == EMBER_OK) status = measure(&p, out);
    em_bench_probe_close(&p);
    return status;
}
