// `ember bench scan`: Mamba's selective scan with its gate, as an operation, its inputs apart.
#include "bench/probe.h"

static ember_status parameter(struct em_bench_probe *p, const char *name, size_t E, size_t N,
                              ember_tensor **t)
{
    return ember_param(&p->build, t, name, EMBER_INIT_NORMAL, EMBER_ROLE_OTHER, (size_t[]){E, N},
                       N ? 2 : 1);
}

static ember_status record(struct em_bench_probe *p, const ember_bench_options *o)
{
    const size_t E = o->dim, N = o->states;
    ember_scan_inputs in;
    ember_tensor *y;
    EM_TRY(parameter(p, "A_log", E, N, &in.A_log));
    EM_TRY(parameter(p, "D", E, 0, &in.D));
    EM_TRY(parameter(p, "delta_bias", E, 0, &in.delta_bias));
    EM_TRY(em_bench_probe_rows(p, E, &in.x));
    EM_TRY(em_bench_probe_rows(p, E, &in.delta));
    EM_TRY(em_bench_probe_rows(p, E, &in.z));
    EM_TRY(em_bench_probe_rows(p, N, &in.B));
    EM_TRY(em_bench_probe_rows(p, N, &in.C));
    EM_TRY(ember_selective_scan(em_program_flow(p->program), &in, 1, &y));
    return em_bench_probe_ready(p, y);
}

static ember_status measure(struct em_bench_probe *p, json_t *out)
{
    const struct em_bench_job *job = p->job;
    const ember_bench_options *o = job->options;
    struct em_bench_measured measured;
    EM_TRY(record(p, o));
    EM_TRY(em_bench_probe_measure(p, em_bench_flops_bound(job), &measured));
    const double elements =
        (double)o->batch * (double)o->length * (double)o->dim * (double)o->states;
    // Of a (channel, state, token): forward the exponential's nine multiplications and additions,
    // most of them fused; backward those again and nine more.
    const double flops = elements * (o->backward ? 16 + 34 : 16) / measured.time.median;
    EM_TRY(em_bench_add(out, json_pack("{s:s, s:f, s:f}", "dtype", "f32", "ms",
                                       1e3 * measured.time.median, "ns_per_element",
                                       1e9 * measured.time.median *
                                           (double)em_pool_threads(job->pool) / elements)));
    return em_bench_add_common(out, job, &measured.time, em_bench_isa(job), flops / measured.peak);
}

ember_status em_bench_scan(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    struct em_bench_probe p;
    EM_TRY(em_bench_need("scan", "batch", o->batch));
    EM_TRY(em_bench_need("scan", "length", o->length));
    EM_TRY(em_bench_need("scan", "dim", o->dim));
    EM_TRY(em_bench_need("scan", "state", o->states));
    ember_status status =
        em_bench_probe_open(job, "bench scan", o->batch, o->length, 0, o->backward, &p);
    if (status == EMBER_OK) status = measure(&p, out);
    em_bench_probe_close(&p);
    return status;
}
