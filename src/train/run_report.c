#include "train/run_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "kernels/kernels.h"
#include "report/xz.h"

// ---- held-out text ----

static double xz_bpb(const struct em_training *t, size_t d)
{
    char *path = em_held_out_path(t->run.dir, t->batches.dataset.domains[d].name);
    struct em_buf text = {0};
    uint64_t size;
    double bpb = (double)NAN;
    if (path && em_xz_available() && em_read_file(path, EM_XZ_LARGEST, &text) == EMBER_OK &&
        text.size && em_xz_size(text.data, text.size, &size) == EMBER_OK)
        bpb = 8 * (double)size / (double)text.size;
    em_buf_deinit(&text);
    em_free(path);
    return bpb;
}

static ember_status add_domains(struct em_training *t, const struct em_score *scores,
                                struct em_run_report *r)
{
    const size_t n = t->untrained ? t->batches.dataset.count : 0;
    struct em_report_domain *domain = em_arena_alloc(&r->arena, (n + 1) * sizeof *domain);
    if (!domain) return EMBER_E_NOMEM;
    for (size_t d = 0; d < n; d++)
        domain[d] = (struct em_report_domain){.name = t->batches.dataset.domains[d].name,
                                              .bytes = (uint64_t)(scores[d].bytes + 0.5),
                                              .tokens = scores[d].tokens,
                                              .bpb = em_score_bpb(&scores[d]),
                                              .untrained_bpb = em_score_bpb(&t->untrained[d]),
                                              .xz_bpb = xz_bpb(t, d)};
    r->report.domains = domain;
    r->report.domain_count = n;
    return EMBER_OK;
}

// ---- experts ----

// Nothing is held out: the layers are known by their load in training alone.
static ember_status add_unseen(struct em_training *t, struct em_run_report *r,
                               struct em_report_layer **layers)
{
    static const struct em_nmi unknown = {NAN, NAN, NAN};
    const size_t n = t->stepper.n_routers;
    struct em_report_layer *layer = em_arena_alloc(&r->arena, (n + 1) * sizeof *layer);
    if (!layer) return EMBER_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct em_router_record *router = &t->stepper.routers[i];
        layer[i] = (struct em_report_layer){.layer = em_layer_number(router->layer, i),
                                            .experts = router->routing.n_experts,
                                            .active = router->routing.k,
                                            .metrics = {.max_violation = (double)NAN,
                                                        .load_variation = (double)NAN,
                                                        .load_entropy = (double)NAN,
                                                        .token_entropy = (double)NAN,
                                                        .marginal_entropy = (double)NAN,
                                                        .domain = unknown,
                                                        .token = unknown,
                                                        .position = unknown,
                                                        .token_class = unknown}};
    }
    r->report.layers = *layers = layer;
    r->report.layer_count = n;
    return EMBER_OK;
}

// How many of a token's experts the evaluations before the last one had found as well.
static ember_status add_saturation(struct em_training *t, struct em_run_report *r,
                                   struct em_report_layer *layers)
{
    enum { MOST = 8 };
    const struct em_routing_trace *trace = &t->trace;
    const size_t earlier = trace->count ? trace->count - 1 : 0;
    const size_t n = earlier < MOST ? earlier : MOST;
    const char **name = em_arena_alloc(&r->arena, (n + 1) * sizeof *name);
    if (!name) return EMBER_E_NOMEM;
    for (size_t i = 0; i < r->report.layer_count && n; i++) {
        double *same = em_arena_alloc(&r->arena, n * sizeof *same);
        if (!same) return EMBER_E_NOMEM;
        for (size_t c = 0; c < n; c++) {
            const size_t moment = c * earlier / n; // spread evenly, the first among them
            same[c] = em_routing_trace_agreement(trace, i, moment);
            name[c] = em_arena_printf(&r->arena, "step %llu",
                                      (unsigned long long)em_routing_trace_step(trace, moment));
            if (!name[c]) return EMBER_E_NOMEM;
        }
        layers[i].saturation = same;
    }
    r->report.checkpoints = name;
    r->report.checkpoint_count = r->report.layer_count ? n : 0;
    return EMBER_OK;
}

static ember_status add_layers(struct em_training *t, const struct em_expert_views *views,
                               struct em_run_report *r)
{
    const size_t n = t->batches.dataset.count;
    struct em_report_layer *layers;
    if (views) {
        const char **name = em_arena_alloc(&r->arena, (n + 1) * sizeof *name);
        if (!name) return EMBER_E_NOMEM;
        for (size_t d = 0; d < n; d++)
            name[d] = t->batches.dataset.domains[d].name;
        EM_TRY(em_expert_views_draw(views, name, t->recipe.seed, &r->arena, &layers, &r->report));
    } else {
        EM_TRY(add_unseen(t, r, &layers));
    }
    EM_TRY(add_saturation(t, r, layers));
    return em_run_curves(t, r, layers);
}

// ---- samples ----

// The beginning of a domain's held-out text, as a prompt.
static ember_status prompt_of(const struct em_training *t, size_t d, struct em_buf *out)
{
    enum { TOKENS = 16 };
    const struct em_domain *domain = &t->batches.dataset.domains[d];
    const struct em_span *span = &domain->held_out[0];
    int32_t ids[TOKENS];
    size_t n = 0;
    while (n < TOKENS && n < span->end - span->begin) {
        ids[n] = em_cache_token(&domain->cache, span->begin + n);
        n++;
    }
    return em_decode(t->tokenizer.tokenizer, ids, n, EM_DECODE_SKIP_SPECIAL, out);
}

static ember_status add_sample(struct em_training *t, size_t d, struct em_run_report *r,
                               struct em_report_sample *sample)
{
    struct em_buf prompt = {0}, text = {0};
    ember_status status = prompt_of(t, d, &prompt);
    if (status == EMBER_OK && prompt.size)
        status = t->job->generate(t->job->generate_context, t->model, t->tokenizer.tokenizer,
                                  prompt.data, prompt.size, &text);
    *sample = (struct em_report_sample){
        .domain = t->batches.dataset.domains[d].name,
        .prompt = em_arena_strndup(&r->arena, prompt.data ? prompt.data : "", prompt.size),
        .text = em_arena_strndup(&r->arena, text.data ? text.data : "", text.size)};
    em_buf_deinit(&prompt);
    em_buf_deinit(&text);
    EM_TRY(status);
    return sample->prompt && sample->text ? EMBER_OK : EMBER_E_NOMEM;
}

static ember_status add_samples(struct em_training *t, struct em_run_report *r)
{
    const size_t n = t->untrained && t->job->generate ? t->batches.dataset.count : 0;
    struct em_report_sample *sample = em_arena_alloc(&r->arena, (n + 1) * sizeof *sample);
    if (!sample) return EMBER_E_NOMEM;
    size_t have = 0;
    for (size_t d = 0; d < n; d++)
        if (t->batches.dataset.domains[d].held_out_count)
            EM_TRY(add_sample(t, d, r, &sample[have++]));
    r->report.samples = sample;
    r->report.sample_count = have;
    return EMBER_OK;
}

// ---- facts ----

struct facts {
    struct em_run_report *r;
    struct em_report_fact *fact;
    size_t n, capacity;
    ember_status status;
};

static void fact(struct facts *f, const char *name, const char *format, ...) EMBER_PRINTF(3, 4);
static void fact(struct facts *f, const char *name, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *copy = em_arena_strdup(&f->r->arena, text);
    if (!copy || f->n == f->capacity)
        f->status = EMBER_E_NOMEM;
    else
        f->fact[f->n++] = (struct em_report_fact){name, copy};
}

static struct facts facts_new(struct em_run_report *r, size_t capacity)
{
    struct facts f = {.r = r, .capacity = capacity};
    f.fact = em_arena_alloc(&r->arena, capacity * sizeof *f.fact);
    if (!f.fact) f.status = EMBER_E_NOMEM, f.capacity = 0;
    return f;
}

static ember_status add_tiles(const struct em_training *t, const struct em_score *scores,
                              struct em_run_report *r)
{
    struct facts f = facts_new(r, 6);
    const struct em_progress *p = &t->progress;
    const double bpb = t->untrained ? em_mean_bpb(scores, t->batches.dataset.count) : (double)NAN;
    fact(&f, "parameters", "%.2f M, %.2f M active", (double)t->forecast.parameters / 1e6,
         (double)t->forecast.active / 1e6);
    fact(&f, "tokens", "%.2f M in %llu steps", (double)p->tokens / 1e6,
         (unsigned long long)p->step);
    if (isfinite(bpb)) fact(&f, "held-out text", "%.3f bits/byte", bpb);
    fact(&f, "training loss", "%.3f nats/token", p->last_loss);
    fact(&f, "time", "%.1f min", p->seconds / 60);
    const double rate = (double)p->tokens / p->seconds;
    fact(&f, "speed", "%.0f tokens/s, MFU %.0f %%", rate,
         600 * (double)t->forecast.active * rate / t->peak_flops);
    r->report.tiles = f.fact;
    r->report.tile_count = f.n;
    return f.status;
}

static ember_status add_facts(const struct em_training *t, struct em_run_report *r)
{
    struct em_report_facts *tables = em_arena_alloc(&r->arena, 3 * sizeof *tables);
    struct facts model = facts_new(r, 8), training = facts_new(r, 12), machine = facts_new(r, 8);
    const struct em_train_settings *o = &t->recipe.train;
    if (!tables) return EMBER_E_NOMEM;
    fact(&model, "family", "%s", t->model->family->name);
    fact(&model, "layers", "%zu", t->model->depth);
    fact(&model, "width", "%zu", t->model->width);
    fact(&model, "vocabulary", "%zu", t->model->vocabulary);
    fact(&model, "start", "%s",
         t->recipe.model_folder ? em_path_base(t->recipe.model_folder) : "random weights");
    fact(&training, "batch", "%zu sequences of %zu tokens", t->batches.batch, t->batches.seq);
    fact(&training, "accumulate", "%zu", o->accumulate);
    fact(&training, "optimizer", "%s", t->recipe.optimizer->name);
    fact(&training, "schedule", "%s", t->recipe.schedule->name);
    fact(&training, "learning rate", "%g", o->lr);
    fact(&training, "seed", "%llu", (unsigned long long)t->recipe.seed);
    fact(&training, "number format", "%s", t->bf16 ? "bf16, f32 accumulation" : "f32");
    fact(&training, "memory", "%.0f MiB", (double)t->forecast.memory / (1024.0 * 1024.0));
    if (isfinite(t->progress.best))
        fact(&training, "best on held-out text", "%.3f bits/byte after step %llu", t->progress.best,
             (unsigned long long)t->progress.best_step);
    fact(&machine, "processor", "%s", em_cpu()->model);
    fact(&machine, "instruction set", "%s", em_kernels()->isa);
    fact(&machine, "threads", "%u", em_pool_threads(t->job->pool));
    fact(&machine, "measured peak", "%.0f GFLOP/s", t->peak_flops / 1e9);
    tables[0] = (struct em_report_facts){"Model", model.fact, model.n};
    tables[1] = (struct em_report_facts){"Training", training.fact, training.n};
    tables[2] = (struct em_report_facts){"Machine", machine.fact, machine.n};
    r->report.facts = tables;
    r->report.facts_count = 3;
    return model.status | training.status | machine.status ? EMBER_E_NOMEM : EMBER_OK;
}

static ember_status add_head(const struct em_training *t, struct em_run_report *r)
{
    struct em_buf title = {0}, config = {0};
    const json_t *preset = json_object_get(t->recipe.json, "preset");
    const char *name = json_is_string(preset) ? json_string_value(preset) : t->model->family->name;
    ember_status status = em_buf_printf(&title, "%s", name);
    for (size_t d = 0; t->batches.text && d < t->batches.dataset.count && status == EMBER_OK; d++)
        status =
            em_buf_printf(&title, "%s%s", d ? ", " : " on ", t->batches.dataset.domains[d].name);
    if (status == EMBER_OK) status = em_print_recipe(t, &config);
    if (status == EMBER_OK) {
        r->report.title = em_arena_strndup(&r->arena, title.data, title.size);
        r->report.config = em_arena_strndup(&r->arena, config.data, config.size);
        if (!r->report.title || !r->report.config) status = EMBER_E_NOMEM;
    }
    r->report.version = EMBER_VERSION;
    r->report.finished = em_clock_wall();
    em_buf_deinit(&title);
    em_buf_deinit(&config);
    return status;
}

ember_status em_run_report_open(struct em_training *t, const struct em_score *scores,
                                const struct em_expert_views *views, struct em_run_report *out)
{
    struct em_run_report r = {0};
    ember_status status = add_head(t, &r);
    if (status == EMBER_OK) status = add_tiles(t, scores, &r);
    if (status == EMBER_OK) status = add_facts(t, &r);
    if (status == EMBER_OK) status = add_layers(t, views, &r);
    if (status == EMBER_OK) status = add_domains(t, scores, &r);
    if (status == EMBER_OK) status = add_samples(t, &r);
    if (status != EMBER_OK) {
        em_run_report_close(&r);
        return status;
    }
    *out = r;
    return EMBER_OK;
}

void em_run_report_close(struct em_run_report *r)
{
    em_arena_deinit(&r->arena);
}

ember_status em_run_report_write(const struct em_run_report *r, const char *dir)
{
    char *html = em_path_join(dir, "report.html"), *json = em_path_join(dir, "report.json");
    ember_status status = html && json ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_report_write_json(&r->report, json);
    if (status == EMBER_OK) status = em_report_write_html(&r->report, html);
    em_free(html);
    em_free(json);
    return status;
}

ember_status em_run_report_sketch(const struct em_run_report *r, int fd, struct em_buf *out)
{
    return em_report_terminal(&r->report, em_terminal_of(fd), out);
}
