// What the experts of a model do: held-out text goes through it, views count, a report draws.
#include <ember/experts.h>
#include <ember/version.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/experts_priv.h"
#include "api/model.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "infer/perplexity.h"
#include "report/expert_probe.h"
#include "train/run_report.h"

enum { TOKENS = 32768 };

// ---- text ----

// Sources that are given the same label are one domain.
static ember_status label_sources(struct em_experts_study *s)
{
    const ember_experts_options *o = s->options;
    const size_t n = s->dataset.count;
    s->label = em_arena_alloc(&s->arena, (n + 1) * sizeof *s->label);
    s->label_of = em_arena_alloc(&s->arena, (n + 1) * sizeof *s->label_of);
    if (!s->label || !s->label_of) return EMBER_E_NOMEM;
    for (size_t d = 0; d < n; d++) {
        const char *name = o->n_labels ? o->labels[d] : s->dataset.domains[d].name;
        size_t z = 0;
        while (z < s->labels && strcmp(s->label[z], name) != 0)
            z++;
        if (z == s->labels) s->label[s->labels++] = name;
        s->label_of[d] = z;
    }
    return EMBER_OK;
}

static ember_status open_text(struct em_experts_study *s)
{
    const ember_experts_options *o = s->options;
    struct em_source *source = em_calloc(o->n_data, sizeof *source);
    if (!source) return EMBER_E_NOMEM;
    for (size_t i = 0; i < o->n_data; i++)
        source[i].path = o->data[i];
    const ember_status status =
        em_dataset_open(source, o->n_data,
                        &(struct em_dataset_options){.tokenizer = s->model->tokenizer,
                                                     .held_out = 1,
                                                     .no_eos = true,
                                                     .pool = s->model->runtime.pool},
                        &s->dataset);
    em_free(source);
    EM_TRY(status);
    s->text_open = true;
    for (size_t d = 0; d < s->dataset.count; d++) {
        const uint64_t own = s->dataset.domains[d].held_out_tokens;
        s->tokens += own < s->limit ? own : s->limit;
    }
    return label_sources(s);
}

// Every domain's text through a model, under the eyes of an onlooker.
ember_status em_experts_walk(struct em_experts_study *s, const struct em_model *model,
                             struct em_perplexity_options *options, struct em_perplexity *scores)
{
    options->backend = s->model->runtime.backend;
    options->pool = s->model->runtime.pool;
    options->bf16 = s->model->runtime.bf16;
    options->context = s->context;
    options->limit = s->limit;
    for (s->walked = 0; s->walked < s->dataset.count; s->walked++) {
        struct em_perplexity one;
        EM_TRY(em_perplexity_domain(model, &s->dataset, s->walked, options, &one));
        if (!scores) continue;
        struct em_perplexity *sum = &scores[s->label_of[s->walked]];
        sum->nats += one.nats;
        sum->tokens += one.tokens;
        sum->bytes += one.bytes;
    }
    return EMBER_OK;
}

// ---- the model's own walk ----

static ember_status recorded(void *context, struct em_program *program)
{
    struct em_experts_study *s = context;
    const struct em_router_record *router;
    const size_t n = em_program_routers(program, &router);
    if (!s->views.view) {
        EM_TRY(em_expert_views_open(
            &(struct em_expert_views_options){.routers = router,
                                              .count = n,
                                              .tokenizer = s->model->tokenizer,
                                              .model = s->model->model,
                                              .context = s->context,
                                              .domains = s->labels,
                                              .keep_choices = s->checkpoints > 0},
            &s->views));
        EM_TRY(em_expert_probe_open(s->model->model, n, s->tokens, &s->probe));
    }
    em_expert_probe_attach(&s->probe, program);
    return EMBER_OK;
}

static ember_status passed(void *context, const struct em_program *program,
                           const ember_batch *batch)
{
    struct em_experts_study *s = context;
    const struct em_router_record *router;
    em_program_routers(program, &router);
    em_expert_probe_collect(&s->probe, batch->n_tokens);
    return em_expert_views_add(&s->views, router, batch, s->label_of[s->walked]);
}

static ember_status look(struct em_experts_study *s)
{
    struct em_perplexity_options options = {.recorded = recorded, .passed = passed, .onlooker = s};
    s->score = em_arena_alloc(&s->arena, (s->labels + 1) * sizeof *s->score);
    if (!s->score) return EMBER_E_NOMEM;
    return em_experts_walk(s, s->model->model, &options, s->score);
}

static ember_status compare_experts(struct em_experts_study *s, struct em_report_layer *layer)
{
    for (size_t i = 0; i < s->views.count; i++) {
        struct em_compared known;
        const size_t E = layer[i].experts;
        double *cosine = em_arena_alloc(&s->arena, E * E * sizeof *cosine),
               *cka = em_arena_alloc(&s->arena, E * E * sizeof *cka);
        if (!cosine || !cka) return EMBER_E_NOMEM;
        EM_TRY(
            em_expert_probe_compare(&s->probe, i, E, s->model->runtime.pool, cosine, cka, &known));
        layer[i].weight_cosine = known.weights ? cosine : NULL;
        layer[i].output_cka = known.outputs ? cka : NULL;
    }
    return EMBER_OK;
}

// ---- the report ----

static ember_status add_domains(struct em_experts_study *s)
{
    struct em_report_domain *domain = em_arena_alloc(&s->arena, (s->labels + 1) * sizeof *domain);
    if (!domain) return EMBER_E_NOMEM;
    for (size_t z = 0; z < s->labels; z++) {
        const struct em_perplexity *p = &s->score[z];
        domain[z] = (struct em_report_domain){.name = s->label[z],
                                              .bytes = (uint64_t)(p->bytes + 0.5),
                                              .tokens = p->tokens,
                                              .bpb = p->bytes > 0 ? p->nats / log(2.0) / p->bytes
                                                                  : (double)NAN,
                                              .untrained_bpb = (double)NAN,
                                              .xz_bpb = (double)NAN};
    }
    s->report.domains = domain;
    s->report.domain_count = s->labels;
    return EMBER_OK;
}

static ember_status add_head(struct em_experts_study *s)
{
    enum { TILES = 4 };
    struct em_report_fact *tile = em_arena_alloc(&s->arena, TILES * sizeof *tile);
    size_t total, active, dead = 0;
    em_model_count(s->model->model, &total, &active);
    for (size_t i = 0; i < s->report.layer_count; i++)
        dead += s->report.layers[i].metrics.dead;
    const char *title = em_arena_printf(&s->arena, "The experts of %s", em_path_base(s->path));
    if (!tile || !title) return EMBER_E_NOMEM;
    const char *const text[TILES] = {
        em_arena_printf(&s->arena, "%.2f M, %.2f M active", (double)total / 1e6,
                        (double)active / 1e6),
        em_arena_printf(&s->arena, "%zu of %zu", s->report.layer_count, s->model->model->depth),
        em_arena_printf(&s->arena, "%zu", dead),
        em_arena_printf(&s->arena, "%llu in windows of %zu",
                        (unsigned long long)s->views.view[0].counts.tokens, s->context)};
    static const char *const name[TILES] = {"parameters", "layers with experts", "dead experts",
                                            "held-out tokens"};
    for (size_t i = 0; i < TILES; i++) {
        if (!text[i]) return EMBER_E_NOMEM;
        tile[i] = (struct em_report_fact){name[i], text[i]};
    }
    s->report.tiles = tile;
    s->report.tile_count = TILES;
    s->report.title = title;
    s->report.version = EMBER_VERSION;
    s->report.finished = em_clock_wall();
    return EMBER_OK;
}

// Where the folder is that of a training run, its log knows the load over training.
static ember_status add_training(struct em_experts_study *s, struct em_report_layer *layers)
{
    char *log = em_path_join(s->path, "logs/train.jsonl");
    enum em_path_kind kind;
    if (!log) return EMBER_E_NOMEM;
    ember_status status = em_path_probe(log, &kind);
    if (status == EMBER_OK && kind == EM_PATH_FILE)
        status = em_run_routers(s->path, &s->arena, layers, &s->report);
    em_free(log);
    if (status != EMBER_E_FORMAT) return status;
    // A run that is going on, or was killed, has half a line at its end.
    em_warn("the load over training is left out: %s", ember_last_error());
    return EMBER_OK;
}

static ember_status sketch(struct em_experts_study *s, char **text)
{
    const struct em_terminal terminal = em_terminal_of(STDOUT_FILENO);
    const ember_experts_options *o = s->options;
    struct em_buf out = {0};
    ember_status status = em_sketch_experts(&s->report, terminal, &out);
    if (status == EMBER_OK) status = em_buf_putc(&out, '\n');
    if (status == EMBER_OK) status = em_sketch_tokens(&s->report, terminal, &out);
    if (status == EMBER_OK) status = em_buf_putc(&out, '\n');
    if (status == EMBER_OK) status = em_sketch_domains(&s->report, terminal, &out);
    if (status == EMBER_OK && o->html) status = em_buf_printf(&out, "report  %s\n", o->html);
    if (status == EMBER_OK && o->json) status = em_buf_printf(&out, "figures %s\n", o->json);
    if (status == EMBER_OK && !(*text = em_buf_take(&out))) status = EMBER_E_NOMEM;
    em_buf_deinit(&out);
    return status;
}

static ember_status write_report(struct em_experts_study *s, char **text)
{
    const ember_experts_options *o = s->options;
    struct em_report_layer *layers;
    EM_TRY(
        em_expert_views_draw(&s->views, s->label, o->runtime.seed, &s->arena, &layers, &s->report));
    EM_TRY(compare_experts(s, layers));
    EM_TRY(em_experts_saturation(s, layers));
    EM_TRY(add_domains(s));
    EM_TRY(add_head(s));
    EM_TRY(add_training(s, layers));
    if (o->json) EM_TRY(em_report_write_json(&s->report, o->json));
    if (o->html) EM_TRY(em_report_write_html(&s->report, o->html));
    return sketch(s, text);
}

static ember_status check(struct em_experts_study *s)
{
    const ember_experts_options *o = s->options;
    const struct em_model *m = s->model->model;
    if (!o->n_data) return em_fail(EMBER_E_USAGE, "a report on experts needs held-out text");
    if (o->n_labels && o->n_labels != o->n_data)
        return em_fail(EMBER_E_USAGE, "%zu labels for %zu texts", o->n_labels, o->n_data);
    if (!m->params.moe_count)
        return em_fail(EMBER_E_CONFIG, "%s: has no mixture of experts", s->path);
    if (o->context > EM_PERPLEXITY_PASS)
        return em_fail(EMBER_E_RANGE, "windows of %zu tokens are too long, at most %d", o->context,
                       EM_PERPLEXITY_PASS);
    EM_TRY(em_model_need_language(m));
    EM_TRY(em_api_need_tokenizer(s->model));
    s->context = o->context                                      ? o->context
                 : m->context && m->context < EM_PERPLEXITY_PASS ? m->context
                                                                 : EM_PERPLEXITY_PASS;
    s->limit = o->tokens ? o->tokens : TOKENS;
    return EMBER_OK;
}

static ember_status study(struct em_experts_study *s, char **text)
{
    EM_TRY(ember_model_open(s->path, &(ember_model_options){.runtime = s->options->runtime},
                            &s->model));
    EM_TRY(check(s));
    EM_TRY(open_text(s));
    EM_TRY(em_experts_find_checkpoints(s));
    EM_TRY(look(s));
    if (!s->views.count) // a mixture of another kind
        return em_fail(EMBER_E_CONFIG, "%s: no router of it sends tokens to experts", s->path);
    return write_report(s, text);
}

ember_status ember_experts_report(const char *model, const ember_experts_options *options,
                                  char **text)
{
    struct em_experts_study s = {.path = model, .options = options};
    ember_status status = study(&s, text);
    em_expert_probe_close(&s.probe);
    em_expert_views_close(&s.views);
    if (s.text_open) em_dataset_close(&s.dataset);
    ember_model_close(s.model);
    em_arena_deinit(&s.arena);
    if (status == EMBER_E_INTERRUPTED) em_interrupt_set(false);
    return status;
}
