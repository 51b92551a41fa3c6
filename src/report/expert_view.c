#include "report/expert_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "report/token_class.h"

// Whether a router stands within an expert of another's mixture.
static bool is_inner(const struct em_expert_views_options *o, const char *path)
{
    static const char own[] = "router", expert[] = "expert";
    for (size_t i = 0; i < o->count; i++) {
        const char *outer = o->routers[i].layer;
        const size_t n = strlen(outer), name = sizeof own - 1;
        if (n < name || strcmp(outer + n - name, own) != 0) continue;
        if (!strncmp(path, outer, n - name) && !strncmp(path + n - name, expert, sizeof expert - 1))
            return true;
    }
    return false;
}

static ember_status view_init(struct em_expert_view *view, const struct em_router_record *router,
                              const struct em_expert_views_options *o)
{
    size_t cells;
    if (!em_mul_size(o->domains, EM_EXCERPT_TOKENS, &cells))
        return em_fail(EMBER_E_NOMEM, "expert views: %zu domains", o->domains);
    view->k = router->routing.k;
    view->inner = is_inner(o, router->layer);
    const json_t *config = em_model_config_at(o->model, router->layer);
    view->per_sequence = json_number_value(json_object_get(config, "sequence_loss")) > 0;
    view->path = em_strdup(router->layer);
    view->top = em_calloc(cells ? cells : 1, sizeof *view->top);
    if (!view->path || !view->top) return EMBER_E_NOMEM;
    return em_expert_counts_init(
        &view->counts, &(struct em_counts_shape){.experts = router->routing.n_experts,
                                                 .domains = o->domains,
                                                 .positions = EM_POSITION_BUCKETS,
                                                 .classes = o->tokenizer ? EM_TOKEN_KINDS : 0,
                                                 .vocabulary = o->model->vocabulary,
                                                 .pairs = true});
}

ember_status em_expert_views_open(const struct em_expert_views_options *o,
                                  struct em_expert_views *out)
{
    struct em_expert_views v = {.count = o->count,
                                .tokenizer = o->tokenizer,
                                .vocabulary = o->model->vocabulary,
                                .context = o->context ? o->context : 1,
                                .domains = o->domains,
                                .keep_choices = o->keep_choices};
    ember_status status = EMBER_E_NOMEM;
    size_t cells;
    if (!em_mul_size(o->domains, EM_EXCERPT_TOKENS, &cells)) goto failed;
    v.view = em_calloc(o->count ? o->count : 1, sizeof *v.view);
    v.excerpt = em_calloc(cells ? cells : 1, sizeof *v.excerpt);
    v.excerpt_tokens = em_calloc(o->domains ? o->domains : 1, sizeof *v.excerpt_tokens);
    if (!v.view || !v.excerpt || !v.excerpt_tokens) goto failed;
    if (o->tokenizer)
        EM_TRY_GOTO(status, failed,
                    em_token_classes(o->tokenizer, o->model->vocabulary, &v.token_class));
    for (size_t i = 0; i < o->count; i++)
        EM_TRY_GOTO(status, failed, view_init(&v.view[i], &o->routers[i], o));
    *out = v;
    return EMBER_OK;
failed:
    em_expert_views_close(&v);
    return status;
}

void em_expert_views_close(struct em_expert_views *v)
{
    for (size_t i = 0; v->view && i < v->count; i++) {
        struct em_expert_view *view = &v->view[i];
        em_expert_counts_deinit(&view->counts);
        em_free(view->path);
        em_free(view->top);
        em_free(view->chosen);
    }
    em_free(v->view);
    em_free(v->token_class);
    em_free(v->place);
    em_free(v->class);
    em_free(v->excerpt);
    em_free(v->excerpt_tokens);
    *v = (struct em_expert_views){0};
}

// Which part of the longest sequence each token stands in, and what kind it is of.
static ember_status label_tokens(struct em_expert_views *v, const ember_batch *b)
{
    EM_TRY(em_grow(&v->place, &v->place_capacity, b->n_tokens, sizeof *v->place));
    EM_TRY(em_grow(&v->class, &v->class_capacity, b->n_tokens, sizeof *v->class));
    for (size_t s = 0; s < b->n_sequences; s++)
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
            const size_t at = t - b->offset[s];
            const size_t bucket =
                at < v->context ? at * EM_POSITION_BUCKETS / v->context : EM_POSITION_BUCKETS - 1;
            v->place[t] = (int32_t)bucket;
            v->class[t] = v->token_class ? v->token_class[b->tokens[t]] : -1;
        }
    return EMBER_OK;
}

static int32_t top_expert(const struct em_router_record *r, size_t t)
{
    const size_t k = r->routing.k;
    const int32_t *chosen = em_i32(r->routing.indices) + t * k;
    const float *weight = em_f32(r->routing.weights) + t * k;
    int32_t top = -1;
    float most = -INFINITY;
    for (size_t j = 0; j < k; j++)
        if (chosen[j] >= 0 && weight[j] > most) {
            most = weight[j];
            top = chosen[j];
        }
    return top;
}

static ember_status add_layer(struct em_expert_views *v, struct em_expert_view *view,
                              const struct em_router_record *r, const ember_batch *b, size_t domain,
                              size_t excerpt_from, size_t excerpt_new)
{
    const int32_t *chosen = em_i32(r->routing.indices);
    // Which token a row of an inner router is, nobody knows here; others route whole sequences.
    const size_t rows = r->routing.indices->dim[0], n = rows * view->k;
    const bool by_token = !view->inner && rows == b->n_tokens;
    EM_TRY(em_expert_counts_add(&view->counts,
                                &(struct em_routed){.T = rows,
                                                    .k = view->k,
                                                    .experts = chosen,
                                                    .tokens = by_token ? b->tokens : NULL,
                                                    .domain = (int32_t)domain,
                                                    .positions = by_token ? v->place : NULL,
                                                    .classes = by_token ? v->class : NULL}));
    if (r->stats) { // means over the batch: [2] of a token's entropy, [3] of the mean's
        view->token_entropy += (double)rows * (double)em_f32(r->stats)[2];
        view->marginal_entropy += (double)rows * (double)em_f32(r->stats)[3];
        view->weighed += rows;
    }
    // Routers with room for more choices than they make leave the rest open: not dropped.
    if (r->dropped) view->dropped += (uint64_t)em_f32(r->dropped)[0];
    for (size_t t = 0; t < excerpt_new; t++)
        view->top[domain * EM_EXCERPT_TOKENS + excerpt_from + t] = by_token ? top_expert(r, t) : -1;
    if (!v->keep_choices || !by_token) return EMBER_OK;
    EM_TRY(
        em_grow(&view->chosen, &view->choices_capacity, view->choices + n, sizeof *view->chosen));
    memcpy(view->chosen + view->choices, chosen, n * sizeof *chosen);
    view->choices += n;
    return EMBER_OK;
}

ember_status em_expert_views_add(struct em_expert_views *v, const struct em_router_record *routers,
                                 const ember_batch *b, size_t domain)
{
    EM_TRY(label_tokens(v, b));
    const size_t have = v->excerpt_tokens[domain], room = EM_EXCERPT_TOKENS - have;
    const size_t take = b->n_tokens < room ? b->n_tokens : room;
    for (size_t i = 0; i < v->count; i++)
        EM_TRY(add_layer(v, &v->view[i], &routers[i], b, domain, have, take));
    memcpy(v->excerpt + domain * EM_EXCERPT_TOKENS + have, b->tokens, take * sizeof *v->excerpt);
    v->excerpt_tokens[domain] += take;
    return EMBER_OK;
}

// ---- drawing ----

size_t em_layer_number(const char *path, size_t otherwise)
{
    size_t n;
    return sscanf(path, "blocks.%zu", &n) == 1 ? n : otherwise;
}

struct drawing {
    const struct em_expert_views *views;
    const char *const *domain;
    uint64_t seed;
    struct em_arena *arena;
    struct em_report *report;
    int32_t *frequent; // [n_frequent] ids
    size_t n_frequent;
};

static double *figures(const struct drawing *d, size_t rows, size_t columns)
{
    size_t n;
    if (!em_mul_size(rows, columns, &n) || !em_mul_size(n, sizeof(double), &n)) return NULL;
    return em_arena_alloc(d->arena, n ? n : 1);
}

struct id_count {
    int32_t id;
    uint64_t slots;
};

static int by_count(const void *a, const void *b)
{
    const struct id_count *x = a, *y = b;
    if (x->slots != y->slots) return x->slots < y->slots ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static uint64_t sum_of(const uint64_t *counts, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += counts[i];
    return sum;
}

// The ids that a layer has seen most often; every layer but inner ones has seen the same.
static ember_status find_frequent(struct drawing *d)
{
    size_t outer = 0;
    while (outer + 1 < d->views->count && d->views->view[outer].inner)
        outer++;
    const struct em_expert_counts *c = &d->views->view[outer].counts;
    const size_t E = c->shape.experts;
    struct id_count *all = em_calloc(c->token_rows ? c->token_rows : 1, sizeof *all);
    d->frequent = em_arena_alloc(d->arena, EM_FREQUENT_TOKENS * sizeof *d->frequent);
    if (!all || !d->frequent) {
        em_free(all);
        return EMBER_E_NOMEM;
    }
    size_t n = 0;
    for (size_t id = 0; id < c->shape.vocabulary && n < c->token_rows; id++)
        if (c->token_row[id] >= 0)
            all[n++] =
                (struct id_count){(int32_t)id, sum_of(c->token + (size_t)c->token_row[id] * E, E)};
    qsort(all, n, sizeof *all, by_count);
    d->n_frequent = n < EM_FREQUENT_TOKENS ? n : EM_FREQUENT_TOKENS;
    for (size_t i = 0; i < d->n_frequent; i++)
        d->frequent[i] = all[i].id;
    em_free(all);
    return EMBER_OK;
}

// A token as people can read it in a line: ␣ for a space, ⏎ for a line's end.
static const char *token_name(const struct drawing *d, int32_t id)
{
    size_t n = 0;
    const uint8_t *bytes =
        d->views->tokenizer ? em_tokenizer_token(d->views->tokenizer, id, &n) : NULL;
    if (!bytes || !n) return em_arena_printf(d->arena, "#%d", (int)id);
    struct em_buf name = {0};
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < n && status == EMBER_OK; i++)
        status = bytes[i] == ' '    ? em_buf_puts(&name, "␣")
                 : bytes[i] == '\n' ? em_buf_puts(&name, "⏎")
                 : bytes[i] == '\t' ? em_buf_puts(&name, "⇥")
                                    : em_buf_putc(&name, (char)bytes[i]);
    char *kept = status == EMBER_OK ? em_arena_strndup(d->arena, name.data, name.size) : NULL;
    em_buf_deinit(&name);
    return kept;
}

static ember_status name_splits(struct drawing *d)
{
    const struct em_expert_views *v = d->views;
    const size_t counts[EM_SPLITS] = {
        [EM_SPLIT_POSITION] = EM_POSITION_BUCKETS < v->context ? EM_POSITION_BUCKETS : 0,
        [EM_SPLIT_CLASS] = v->tokenizer ? EM_TOKEN_KINDS : 0,
        [EM_SPLIT_TOKEN] = d->n_frequent};
    for (size_t split = 0; split < EM_SPLITS; split++) {
        const size_t n = counts[split];
        const char **name = em_arena_alloc(d->arena, (n + 1) * sizeof *name);
        if (!name) return EMBER_E_NOMEM;
        for (size_t i = 0; i < n; i++) {
            // The first and last place of a bucket: those t with t * buckets / context == i.
            const size_t from = (i * v->context + EM_POSITION_BUCKETS - 1) / EM_POSITION_BUCKETS,
                         end =
                             ((i + 1) * v->context + EM_POSITION_BUCKETS - 1) / EM_POSITION_BUCKETS;
            name[i] = split == EM_SPLIT_POSITION
                          ? em_arena_printf(d->arena, "%zu–%zu", from, end - 1)
                      : split == EM_SPLIT_CLASS ? em_token_class_name[i]
                                                : token_name(d, d->frequent[i]);
            if (!name[i]) return EMBER_E_NOMEM;
        }
        d->report->split[split] = (struct em_report_names){name, n};
    }
    return EMBER_OK;
}

static ember_status draw_splits(const struct drawing *d, const struct em_expert_counts *c,
                                bool inner, struct em_report_layer *l)
{
    const size_t E = c->shape.experts;
    for (size_t split = 0; split < EM_SPLITS; split++) {
        const size_t n = d->report->split[split].count;
        double *share = figures(d, n, E);
        if (!share) return EMBER_E_NOMEM;
        if (!n || inner) continue;
        l->split[split] = share;
        if (split == EM_SPLIT_POSITION) em_expert_share(c->position, n, E, share);
        if (split == EM_SPLIT_CLASS) em_expert_share(c->token_class, n, E, share);
        for (size_t i = 0; split == EM_SPLIT_TOKEN && i < n; i++)
            em_expert_share(c->token + (size_t)c->token_row[d->frequent[i]] * E, 1, E,
                            share + i * E);
    }
    return EMBER_OK;
}

static ember_status draw_layer(const struct drawing *d, size_t i, struct em_report_layer *l)
{
    const struct em_expert_view *view = &d->views->view[i];
    const struct em_expert_counts *c = &view->counts;
    const size_t E = c->shape.experts, D = d->views->domains;
    *l = (struct em_report_layer){
        .layer = em_layer_number(view->path, i), .experts = E, .active = view->k};
    double *share = figures(d, 1, E), *coverage = figures(d, 1, E), *domain = figures(d, D, E),
           *pairs = figures(d, E, E);
    const int32_t **excerpt = em_arena_alloc(d->arena, (D + 1) * sizeof *excerpt);
    if (!share || !coverage || !domain || !pairs || !excerpt) return EMBER_E_NOMEM;
    em_expert_load(c, share);
    em_expert_coverage(c, coverage);
    em_expert_share(c->domain, D, E, domain);
    em_expert_coactivation(c, pairs);
    for (size_t z = 0, n = 0; z < D; z++)
        if (d->views->excerpt_tokens[z]) excerpt[n++] = view->top + z * EM_EXCERPT_TOKENS;
    l->share = share;
    l->coverage = coverage;
    l->domain_share = domain;
    l->coactivation = pairs;
    l->excerpt = view->inner ? NULL : excerpt;
    l->within = view->inner ? view->path : NULL;
    EM_TRY(draw_splits(d, c, view->inner, l));
    EM_TRY(em_expert_metrics(c, d->seed, &l->metrics));
    l->metrics.dropped = view->dropped;
    if (view->weighed) {
        l->metrics.token_entropy = view->token_entropy / (double)view->weighed;
        l->metrics.marginal_entropy = view->marginal_entropy / (double)view->weighed;
    }
    return EMBER_OK;
}

static ember_status draw_excerpts(const struct drawing *d)
{
    const struct em_expert_views *v = d->views;
    struct em_report_excerpt *excerpt =
        em_arena_alloc(d->arena, (v->domains + 1) * sizeof *excerpt);
    if (!excerpt) return EMBER_E_NOMEM;
    size_t have = 0;
    for (size_t z = 0; z < v->domains && v->tokenizer; z++) {
        const size_t n = v->excerpt_tokens[z];
        const char **piece = em_arena_alloc(d->arena, (n + 1) * sizeof *piece);
        if (!piece) return EMBER_E_NOMEM;
        for (size_t t = 0; t < n; t++) {
            size_t bytes = 0;
            const int32_t id = v->excerpt[z * EM_EXCERPT_TOKENS + t];
            const uint8_t *text = em_tokenizer_token(v->tokenizer, id, &bytes);
            piece[t] = em_arena_strndup(d->arena, text ? (const char *)text : "", bytes);
            if (!piece[t]) return EMBER_E_NOMEM;
        }
        if (n) excerpt[have++] = (struct em_report_excerpt){d->domain[z], piece, n};
    }
    d->report->excerpts = excerpt;
    d->report->excerpt_count = have;
    return EMBER_OK;
}

ember_status em_expert_views_draw(const struct em_expert_views *v, const char *const *domain,
                                  uint64_t seed, struct em_arena *arena,
                                  struct em_report_layer **layers, struct em_report *report)
{
    struct drawing d = {v, domain, seed, arena, report, NULL, 0};
    struct em_report_layer *layer = em_arena_alloc(arena, (v->count + 1) * sizeof *layer);
    const char **warning =
        em_arena_alloc(arena, (v->count + report->warning_count + 1) * sizeof *warning);
    if (!layer || !warning) return EMBER_E_NOMEM;
    if (report->warning_count)
        memcpy(warning, report->warnings, report->warning_count * sizeof *warning);
    report->warnings = warning;
    report->layers = layer;
    report->layer_count = v->count;
    *layers = layer;
    if (!v->count) return EMBER_OK;
    EM_TRY(find_frequent(&d));
    EM_TRY(name_splits(&d));
    EM_TRY(draw_excerpts(&d));
    for (size_t i = 0; i < v->count; i++) {
        char text[EM_ALARM];
        EM_TRY(draw_layer(&d, i, &layer[i]));
        if (!em_expert_alarm(&layer[i].metrics, layer[i].layer, 1, v->view[i].per_sequence, text))
            continue;
        em_warn("%s", text);
        if (!(warning[report->warning_count++] = em_arena_strdup(arena, text)))
            return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}
