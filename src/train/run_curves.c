// Curves from the logs: they span all parts of a run that was interrupted.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "train/run_report.h"

enum { MOST_POINTS = 2000 };

// ---- training ----

enum column { LOSS, BPB, LR, NORM, SPEED, VIOLATION, ENTROPY, COLUMNS };

struct train_log {
    struct em_arena *arena;
    size_t lines, every, n, capacity; // lines seen, of which each every-th makes a point
    double *step, *column[COLUMNS];
};

static ember_status count_line(void *context, const json_t *line)
{
    (void)line;
    ((struct train_log *)context)->lines++;
    return EMBER_OK;
}

static double value(const json_t *line, const char *key)
{
    const json_t *v = json_object_get(line, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static ember_status take_line(void *context, const json_t *line)
{
    struct train_log *l = context;
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

static ember_status read_train(struct em_training *t, struct em_run_report *r, struct train_log *l)
{
    *l = (struct train_log){.arena = &r->arena};
    EM_TRY(em_run_each_line(t->run.dir, "logs/train.jsonl", count_line, l));
    l->every = l->lines / MOST_POINTS + 1;
    l->capacity = l->lines / l->every + 1;
    l->step = em_arena_alloc(l->arena, l->capacity * sizeof *l->step);
    if (!l->step) return EMBER_E_NOMEM;
    for (size_t i = 0; i < COLUMNS; i++)
        if (!(l->column[i] = em_arena_alloc(l->arena, l->capacity * sizeof(double))))
            return EMBER_E_NOMEM;
    l->lines = 0;
    return em_run_each_line(t->run.dir, "logs/train.jsonl", take_line, l);
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
    EM_TRY(em_run_each_line(t->run.dir, "logs/eval.jsonl", count_eval, l));
    l->step = em_arena_alloc(&r->arena, (l->capacity + 1) * sizeof *l->step);
    l->bpb = em_arena_alloc(&r->arena, (l->domains + 1) * sizeof *l->bpb);
    if (!l->step || !l->bpb) return EMBER_E_NOMEM;
    for (size_t d = 0; d < l->domains; d++)
        if (!(l->bpb[d] = em_arena_alloc(&r->arena, (l->capacity + 1) * sizeof(double))))
            return EMBER_E_NOMEM;
    return em_run_each_line(t->run.dir, "logs/eval.jsonl", take_eval, l);
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
    EM_TRY(read_train(t, r, &l));
    EM_TRY(em_run_routers(t->run.dir, &r->arena, layers, &r->report));
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
