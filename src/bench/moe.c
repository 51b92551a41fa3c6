// `ember bench moe`: a mixture of experts beside a dense layer of the same active width. The roof
// is computing, or, with few tokens for each expert, reading the experts that these touch.
#include <math.h>

#include "base/alloc.h"
#include "bench/measure.h"
#include "bench/probe.h"

struct pair {
    struct em_bench_probe moe, dense;
    double dense_seconds[EM_BENCH_MOST];
};

// One layer from `config` (taken) between source and loss.
static ember_status record(struct em_bench_probe *p, json_t *config)
{
    ember_layer *layer;
    ember_tensor *x, *y;
    if (!config) return em_fail(EMBER_E_NOMEM, "%s: out of memory", p->name);
    ember_status status = em_build_at(&p->build, "layer", p->name, EMBER_CHANNEL_MIXER,
                                      em_json_config(config), &layer);
    if (status == EMBER_OK) status = em_bench_probe_rows(p, p->build.width, &x);
    if (status == EMBER_OK) status = ember_forward(layer, em_program_flow(p->program), x, &y);
    if (status == EMBER_OK) status = em_bench_probe_ready(p, y);
    json_decref(config);
    return status;
}

static ember_status open_pair(const struct em_bench_job *job, struct pair *pair)
{
    const ember_bench_options *o = job->options;
    size_t width;
    if (!em_mul_size(o->hidden, o->chosen, &width) || width > INT32_MAX)
        return em_fail(EMBER_E_RANGE, "bench moe: %zu experts of width %zu are too wide", o->chosen,
                       o->hidden);
    EM_TRY(em_bench_probe_open(job, "bench moe", 1, o->tokens, o->dim, o->backward, &pair->moe));
    EM_TRY(em_bench_probe_open(job, "bench moe", 1, o->tokens, o->dim, o->backward, &pair->dense));
    EM_TRY(record(&pair->moe,
                  json_pack("{s:s, s:I, s:{s:s, s:I}, s:{s:s, s:I, s:b}}", "type", "moe", "experts",
                            (json_int_t)o->experts, "expert", "type", "swiglu", "hidden",
                            (json_int_t)o->hidden, "router", "type", "sigmoid_topk", "k",
                            (json_int_t)o->chosen, "accept_single", 1)));
    return record(&pair->dense,
                  json_pack("{s:s, s:I}", "type", "swiglu", "hidden", (json_int_t)width));
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct pair *pair = context;
    EM_TRY(em_bench_probe_run(&pair->dense, &pair->dense_seconds[repeat]));
    return em_bench_probe_run(&pair->moe, seconds);
}

// Experts that T tokens use when each picks k of E at random, times what one holds. Weights are
// packed in what the products compute in.
static double expert_bytes(const struct em_bench_job *job)
{
    const ember_bench_options *o = job->options;
    const double E = (double)o->experts, unused = 1 - (double)o->chosen / E;
    return E * (1 - pow(unused, (double)o->tokens)) * 3 * (double)o->dim * (double)o->hidden *
           (job->bf16 ? 2 : 4);
}

// With so few tokens for each expert reading its weights takes longer than computing with them.
static bool is_reading(const ember_bench_options *o)
{
    return !o->backward && o->tokens * o->chosen <= 2 * o->experts;
}

static ember_status measure(const struct em_bench_job *job, struct pair *pair, json_t *out)
{
    const ember_bench_options *o = job->options;
    const enum em_bench_bound bound = is_reading(o) ? EM_BENCH_READING : em_bench_flops_bound(job);
    struct em_bench_measured measured;
    double seconds;
    EM_TRY(em_bench_probe_run(&pair->moe, &seconds));
    EM_TRY(em_bench_probe_run(&pair->dense, &seconds));
    EM_TRY(em_bench_measure(
        &(struct em_bench_work){.run = run, .context = pair, .bound = bound, .seconds = o->seconds},
        job->pool, &measured));
    const double T = (double)o->tokens, D = (double)o->dim;
    const double each = 3 * (double)o->chosen * (double)o->hidden + (double)o->experts;
    const double flops = (o->backward ? 3 : 1) * 2 * T * D * each / measured.time.median;
    const struct em_bench_time dense = em_bench_summary(pair->dense_seconds, measured.time.repeats);
    const double rate = is_reading(o) ? expert_bytes(job) / measured.time.median : flops;
    EM_TRY(em_bench_add(out, json_pack("{s:s, s:f, s:f, s:f, s:f, s:s}", "dtype",
                                       job->bf16 ? "bf16" : "f32", "ms", 1e3 * measured.time.median,
                                       "gflops", flops / 1e9, "dense_ms", 1e3 * dense.median,
                                       "expert_bytes", expert_bytes(job), "bound",
                                       is_reading(o) ? "reading" : "computing")));
    return em_bench_add_common(out, job, &measured.time, em_bench_isa(job), rate / measured.peak);
}

ember_status em_bench_moe(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    EM_TRY(em_bench_need("moe", "tokens", o->tokens));
    EM_TRY(em_bench_need("moe", "dim", o->dim));
    EM_TRY(em_bench_need("moe", "hidden", o->hidden));
    EM_TRY(em_bench_need("moe", "experts", o->experts));
    EM_TRY(em_bench_need("moe", "top-k", o->chosen));
    struct pair pair = {0};
    ember_status status = open_pair(job, &pair);
    if (status == EMBER_OK) status = measure(job, &pair, out);
    em_bench_probe_close(&pair.moe);
    em_bench_probe_close(&pair.dense);
    return status;
}
