// `ember bench recurrent`: a recurrent layer over float sequences, as models have it.
#include <string.h>

#include "bench/probe.h"
#include "kernels/kernels.h"
#include "nn/sequence_mixing/recurrent/wiring.h"

// What the layer makes: its wiring's motor neurons, or its units.
static ember_status outputs_of(const ember_bench_options *o, size_t *outputs)
{
    struct em_wiring w;
    *outputs = o->units;
    if (!o->wiring || !*o->wiring) return EMBER_OK;
    EM_TRY(em_wiring_make(&(struct em_wiring_request){.specification = o->wiring,
                                                      .inputs = o->input,
                                                      .units = o->units},
                          NULL, &w));
    *outputs = w.outputs;
    return EMBER_OK;
}

static ember_status record(struct em_bench_probe *p, const ember_bench_options *o)
{
    ember_layer *layer;
    ember_tensor *x, *y;
    json_t *config = json_pack("{s:s, s:I, s:b}", "type", o->type, "units", (json_int_t)o->units,
                               "projection", 0);
    if (!config) return em_fail(EMBER_E_NOMEM, "bench recurrent: out of memory");
    if (o->wiring && *o->wiring) json_object_set_new(config, "wiring", json_string(o->wiring));
    ember_status status = outputs_of(o, &p->build.output);
    if (status == EMBER_OK) status = em_bench_probe_rows(p, o->input, &x);
    if (status == EMBER_OK)
        status = em_build_at(&p->build, "layer", "bench recurrent", EMBER_SEQUENCE_MIXER,
                             em_json_config(config), &layer);
    if (status == EMBER_OK) status = em_bench_probe_want_gradients(p);
    if (status == EMBER_OK) status = ember_forward(layer, em_program_flow(p->program), x, &y);
    if (status == EMBER_OK) status = em_bench_probe_ready(p, y);
    json_decref(config);
    // Cells start as in training: what is computed depends on which synapses there are.
    for (size_t i = 0; status == EMBER_OK && i < p->params.count; i++) {
        struct em_param *param = p->params.param[i];
        struct em_rng rng;
        em_rng_seed(&rng, 1, i);
        if (param->filling.fill) param->filling.fill(param->filling.context, &rng, &param->tensor);
    }
    em_program_weights_changed(p->program);
    return status;
}

static ember_status measure(struct em_bench_probe *p, json_t *out)
{
    const struct em_bench_job *job = p->job;
    const ember_bench_options *o = job->options;
    struct em_bench_measured measured;
    EM_TRY(record(p, o));
    EM_TRY(em_bench_probe_measure(p, EM_BENCH_F32, &measured));
    // By the operations' own costs, which count every synapse and weight that could be there.
    double flops = em_program_cost(p->program, false).flops;
    if (o->backward) flops += em_program_cost(p->program, true).flops;
    const double median = measured.time.median;
    EM_TRY(em_bench_add(
        out, json_pack("{s:s, s:s, s:f}", "type", o->type, "dtype", "f32", "ms", 1e3 * median)));
    return em_bench_add_common(out, job, &measured.time,
                               job->backend == EM_REFERENCE ? "reference" : em_kernels()->isa,
                               flops / median / measured.peak);
}

ember_status em_bench_recurrent(const struct em_bench_job *job, json_t *out)
{
    static const char *const types[] = {"ltc", "cfc", "lstm", "gru"};
    const ember_bench_options *o = job->options;
    struct em_bench_probe p;
    bool known = false;
    for (size_t i = 0; o->type && i < sizeof types / sizeof *types; i++)
        known = known || strcmp(o->type, types[i]) == 0;
    if (!known)
        return em_fail(EMBER_E_RANGE, "bench recurrent: type has to be ltc, cfc, lstm or gru");
    EM_TRY(em_bench_need("recurrent", "batch", o->batch));
    EM_TRY(em_bench_need("recurrent", "length", o->length));
    EM_TRY(em_bench_need("recurrent", "input", o->input));
    EM_TRY(em_bench_need("recurrent", "units", o->units));
    ember_status status =
        em_bench_probe_open(job, "bench recurrent", o->batch, o->length, o->input, o->backward, &p);
    if (status == EMBER_OK) status = measure(&p, out);
    em_bench_probe_close(&p);
    return status;
}
