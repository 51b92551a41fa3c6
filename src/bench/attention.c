// `ember bench attention`: causal attention as an operation, its inputs apart.
#include "bench/probe.h"

static ember_status record(struct em_bench_probe *p, const ember_bench_options *o)
{
    ember_flow *flow = em_program_flow(p->program);
    const size_t heads[] = {o->heads, o->kv_heads, o->kv_heads};
    ember_tensor *x[3], *y;
    for (unsigned i = 0; i < 3; i++) {
        EM_TRY(em_bench_probe_rows(p, heads[i] * o->head_dim, &x[i]));
        EM_TRY(ember_reshape(flow, x[i], (size_t[]){heads[i], o->head_dim}, 2, &x[i]));
    }
    EM_TRY(ember_attention(flow, x[0], x[1], x[2], &(ember_attention_options){0}, &y));
    return em_bench_probe_ready(p, y);
}

static ember_status measure(struct em_bench_probe *p, json_t *out)
{
    const struct em_bench_job *job = p->job;
    const ember_bench_options *o = job->options;
    struct em_bench_measured measured;
    EM_TRY(record(p, o));
    EM_TRY(em_bench_probe_measure(p, em_bench_flops_bound(job), &measured));
    // Two products forward and five backward, over the keys at and before each token.
    const double T = (double)o->length, seen = T * (T + 1) / 2;
    const double products = o->backward ? 2 + 5 : 2;
    const double flops = 2 * products * (double)o->batch * (double)o->heads * seen *
                         (double)o->head_dim / measured.time.median;
    EM_TRY(em_bench_add(out, json_pack("{s:s, s:f, s:f}", "dtype", job->bf16 ? "bf16" : "f32", "ms",
                                       1e3 * measured.time.median, "gflops", flops / 1e9)));
    return em_bench_add_common(out, job, &measured.time, em_bench_isa(job), flops / measured.peak);
}

ember_status em_bench_attention(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    struct em_bench_probe p;
    EM_TRY(em_bench_need("attention", "batch", o->batch));
    EM_TRY(em_bench_need("attention", "length", o->length));
    EM_TRY(em_bench_need("attention", "heads", o->heads));
    EM_TRY(em_bench_need("attention", "kv-heads", o->kv_heads));
    EM_TRY(em_bench_need("attention", "head-dim", o->head_dim));
    ember_status status =
        em_bench_probe_open(job, "bench attention", o->batch, o->length, 0, o->backward, &p);
    if (status == EMBER_OK) status = measure(&p, out);
    em_bench_probe_close(&p);
    return status;
}
