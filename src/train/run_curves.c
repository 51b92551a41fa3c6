// Curves from the logs: they span all parts of a run that was interrupted.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "train/run_report.h"

enum { MOST_POINTS = 2000, MOST_LOADS = 400 };

// Calls `visit` for every line of a log.
static ember_status each_line(const struct em_training *t, const char *name,
                              ember_status (*visit)(void *context, const json_t *line),
                              void *context)
{
    char *path = em_path_join(t->run.dir, name);
    struct em_map map = {0};
    ember_status status = path ? em_map_open(path, &map) : EMBER_E_NOMEM;
    if (status == EMBER_OK) {
        size_t begin = 0;
        while (begin < map.size && status == EMBER_OK) {
            const char *text = (const char *)map.data + begin;
            const char *end = memchr(text, '\n', map.size - begin);
            const size_t n = end ? (size_t)(end - text) : map.size - begin;
            json_t *line;
            status = em_json_parse(path, text, n, 0, &line);
            if (status != EMBER_OK) break;
            status = visit(context, line);
            json_decref(line);
            begin += n + 1;
        }
        em_map_close(&map);
    }
    em_free(path);
    return status;
}

// ---- training ----

enum column { LOSS, BPB, LR, NORM, SPEED, VIOLATION, ENTROPY, COLUMNS };

struct train_log {
    struct em_arena *arena;
    size_t lines, every, n, capacity; // lines seen, of which each every-th makes a point
    double *step, *column[COLUMNS];
    size_t n_loads, loads_capacity, n_layers;
    double *load_steps;
    double **load; // [layers][n_loads * E]
    const size_t *experts;
    size_t loads_seen, loads_every;
};

static ember_status count_line(void *context, const json_t *line)
{
    struct train_log *l = context;
    l->lines++;
    if (json_object_get(json_object_get(line, "moe"), "layers")) l->loads_seen++;
    return EMBER_OK;
}

static double value(const json_t *line, const char *key)
{
    const json_t *v = json_object_get(line, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static void take_loads(struct train_log *l, const json_t *line)
{
    const json_t *layers = json_object_get(json_object_get(line, "moe"), "layers");
    if (!layers || l->loads_seen++ % l->loads_every || l->n_loads == l->loads_capacity ||
        json_array_size(layers) != l->n_layers)
        return;
    for (size_t i = 0; i < l->n_layers; i++) {
        const json_t *load = json_object_get(json_array_get(layers, i), "load");
        for (size_t e = 0; e < l->experts[i]; e++)
            l->load[i][l->n_loads * l->experts[i] + e] = json_number_value(json_array_get(load, e));
    }
    l->load_steps[l->n_loads++] = value(line, "step");
}

static ember_status take_line(void *context, const json_t *line)
{
    struct train_log *l = context;
    take_loads(l, line);
    if (l->lines++ % l->every || l->n == l->capacity) return EMBER_OK;
    const size_t i = l->n++;
    l->step[i] = value(line, "step");
    l->column[LOSS][i] = value(line, "loss");
    l->column[BPB][i] = value(line, "bpb");
    l->column[LR][i] = value(line, "lr");
    l->column[NORM][i] = value(line, "grad_norm");
    l->column[SPEED][i] = value(line, "tokens_per_s");
    l->column[VIOLATION][i] = value(line, "load_max_violation");
    l->column[ENTROPY][i] = value(line, "router_entropy");
    return EMBER_OK;
}

static ember_status read_train(struct em_training *t, struct em_run_report *r,
                               struct em_report_layer *layers, struct train_log *l)
{
    *l = (struct train_log){.arena = &r->arena, .n_layers = t->stepper.n_routers};
    EM_TRY(each_line(t, "logs/train.jsonl", count_line, l));
    l->every = l->lines / MOST_POINTS + 1;
    l->capacity = l->lines / l->every + 1;
    l->loads_every = l->loads_seen / MOST_LOADS + 1;
    l->loads_capacity = l->loads_seen / l->loads_every + 1;
    size_t *experts = em_arena_alloc(l->arena, (l->n_layers + 1) * sizeof *experts);
    l->load = em_arena_alloc(l->arena, (l->n_layers + 1) * sizeof *l->load);
    l->step = em_arena_alloc(l->arena, l->capacity * sizeof *l->step);
    l->load_steps = em_arena_alloc(l->arena, l->loads_capacity * sizeof *l->load_steps);
    if (!experts || !l->load || !l->step || !l->load_steps) return EMBER_E_NOMEM;
    l->experts = experts;
    for (size_t i = 0; i < COLUMNS; i++)
        if (!(l->column[i] = em_arena_alloc(l->arena, l->capacity * sizeof(double))))
            return EMBER_E_NOMEM;
    for (size_t i = 0; i < l->n_layers; i++) {
        experts[i] = t->stepper.routers[i].routing.n_experts;
        l->load[i] = em_arena_alloc(l->arena, l->loads_capacity * experts[i] * sizeof(double));
        if (!l->load[i]) return EMBER_E_NOMEM;
    }
    l->lines = l->loads_seen = 0;
    EM_TRY(each_line(t, "logs/train.jsonl", take_line, l));
    for (size_t i = 0; i < l->n_layers; i++)
        layers[i].load = l->n_loads ? l->load[i] : NULL;
    r->report.load_steps = l->load_steps;
    r->report.load_count = l->n_loads;
    return EMBER_OK;
}

// ---- evaluations ----

struct eval_log {
    size_t n, capacity, domains;
    double *step, **bpb; // [domains][n]
};

static ember_status count_eval(void *context, const json_t *line)
{
    (void)line;
    ((struct eval_log *)context)->capacity++;
    return EMBER_OK;
}

static ember_status take_eval(void *context, const json_t *line)
{
    struct eval_log *l = context;
    const json_t *domains = json_object_get(line, "domains");
    if (l->n == l->capacity) return EMBER_OK;
    l->step[l->n] = value(line, "step");
    for (size_t d = 0; d < l->domains; d++)
        l->bpb[d][l->n] = value(json_array_get(domains, d), "bpb");
    l->n++;
    return EMBER_OK;
}

static ember_status read_evals(struct em_training *t, struct em_run_report *r, struct eval_log *l)
{
    *l = (struct eval_log){.domains = t->untrained ? t->batches.dataset.count : 0};
    EM_TRY(each_line(t, "logs/eval.jsonl", count_eval, l));
    l->step = em_arena_alloc(&r->arena, (l->capacity + 1) * sizeof *l->step);
    l->bpb = em_arena_alloc(&r->arena, (l->domains + 1) * sizeof *l->bpb);
    if (!l->step || !l->bpb) return EMBER_E_NOMEM;
    for (size_t d = 0; d < l->domains; d++)
        if (!(l->bpb[d] = em_arena_alloc(&r->arena, (l->capacity + 1) * sizeof(double))))
            return EMBER_E_NOMEM;
    return each_line(t, "logs/eval.jsonl", take_eval, l);
}

// ---- curves ----

struct curves {
    struct em_run_report *r;
    struct em_report_curve *curve;
    size_t n;
};

static ember_status add(struct curves *c, const char *title, const char *unit,
                        const struct em_report_series *series, size_t count)
{
    struct em_report_series *copy = em_arena_alloc(&c->r->arena, count * sizeof *copy);
    if (!copy) return EMBER_E_NOMEM;
    memcpy(copy, series, count * sizeof *copy);
    c->curve[c->n++] =
        (struct em_report_curve){.title = title, .unit = unit, .series = copy, .count = count};
    return EMBER_OK;
}

static bool any_finite(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isfinite(x[i])) return true;
    return false;
}

// A noisy column: the values faint, their running mean in front.
static ember_status add_noisy(struct curves *c, const struct train_log *l, enum column column,
                              const char *title, const char *unit)
{
    if (!any_finite(l->column[column], l->n)) return EMBER_OK;
    double *smooth = em_arena_alloc(&c->r->arena, (l->n + 1) * sizeof *smooth);
    if (!smooth) return EMBER_E_NOMEM;
    em_smooth(l->column[column], l->n, fmax(1, (double)l->n / 50), smooth);
    const struct em_report_series series[] = {
        {.name = "each step", .x = l->step, .y = l->column[column], .count = l->n, .faint = true},
        {.name = "running mean", .x = l->step, .y = smooth, .count = l->n}};
    return add(c, title, unit, series, 2);
}

static ember_status add_evals(struct curves *c, const struct em_training *t,
                              const struct eval_log *e)
{
    if (!e->n || !e->domains) return EMBER_OK;
    struct em_report_series *series = em_arena_alloc(&c->r->arena, e->domains * sizeof *series);
    if (!series) return EMBER_E_NOMEM;
    for (size_t d = 0; d < e->domains; d++)
        series[d] = (struct em_report_series){.name = t->batches.dataset.domains[d].name,
                                              .x = e->step,
                                              .y = e->bpb[d],
                                              .count = e->n};
    return add(c, "Held-out text", "bits per byte", series, e->domains);
}

ember_status em_run_curves(struct em_training *t, struct em_run_report *r,
                           struct em_report_layer *layers)
{
    enum { MOST_CURVES = 8 };
    struct train_log l;
    struct eval_log e;
    struct curves c = {r, em_arena_alloc(&r->arena, MOST_CURVES * sizeof *c.curve), 0};
    if (!c.curve) return EMBER_E_NOMEM;
    EM_TRY(read_train(t, r, layers, &l));
    EM_TRY(read_evals(t, r, &e));
    EM_TRY(add_noisy(&c, &l, LOSS, "Training loss", "nats per token"));
    EM_TRY(add_evals(&c, t, &e));
    const struct em_report_series lr = {
        .name = "learning rate", .x = l.step, .y = l.column[LR], .count = l.n};
    EM_TRY(add(&c, "Learning rate", "", &lr, 1));
    c.curve[c.n - 1].zero_based = true;
    EM_TRY(add_noisy(&c, &l, NORM, "Gradient norm", "before clipping"));
    EM_TRY(add_noisy(&c, &l, SPEED, "Speed", "tokens per second"));
    c.curve[c.n - 1].zero_based = true;
    EM_TRY(add_noisy(&c, &l, VIOLATION, "Worst imbalance of experts", "E max f - 1"));
    EM_TRY(add_noisy(&c, &l, ENTROPY, "Router entropy of a token", "share of log E"));
    r->report.curves = c.curve;
    r->report.curve_count = c.n;
    return EMBER_OK;
}
