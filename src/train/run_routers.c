// What a run's log says of its routers: the experts' load over training, and warnings.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "train/run_report.h"

enum { MOST_LOADS = 400, MOST_WARNINGS = 12 };

ember_status em_run_each_line(const char *dir, const char *name,
                              ember_status (*visit)(void *context, const json_t *line),
                              void *context)
{
    char *path = em_path_join(dir, name);
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

struct router_log {
    struct em_arena *arena;
    struct em_report *report;
    const struct em_report_layer *layer; // [report->layer_count]
    size_t seen, every, n, capacity;     // lines with loads, of which each every-th is taken
    double *step;
    double **load; // [layers][n * E]
    const char **warning;
    size_t warnings, unsaid;
};

static const json_t *layers_of(const struct router_log *l, const json_t *line)
{
    const json_t *layers = json_object_get(json_object_get(line, "moe"), "layers");
    if (json_array_size(layers) != l->report->layer_count) return NULL;
    for (size_t i = 0; i < l->report->layer_count; i++) // a run whose experts became more or fewer
        if (json_array_size(json_object_get(json_array_get(layers, i), "load")) !=
            l->layer[i].experts)
            return NULL;
    return layers;
}

static ember_status count_line(void *context, const json_t *line)
{
    struct router_log *l = context;
    l->seen += layers_of(l, line) != NULL;
    return EMBER_OK;
}

static ember_status take_warnings(struct router_log *l, const json_t *line)
{
    const json_t *list = json_object_get(line, "warnings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *w = json_array_get(list, i), *text = json_object_get(w, "text");
        if (!json_is_string(text)) continue;
        if (l->warnings == MOST_WARNINGS) {
            l->unsaid++;
            continue;
        }
        l->warning[l->warnings] = em_arena_printf(
            l->arena, "Step %lld, layer %lld: %s.",
            (long long)json_integer_value(json_object_get(w, "step")),
            (long long)json_integer_value(json_object_get(w, "layer")), json_string_value(text));
        if (!l->warning[l->warnings++]) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

static ember_status take_line(void *context, const json_t *line)
{
    struct router_log *l = context;
    EM_TRY(take_warnings(l, line));
    const json_t *layers = layers_of(l, line);
    if (!layers || l->seen++ % l->every || l->n == l->capacity) return EMBER_OK;
    for (size_t i = 0; i < l->report->layer_count; i++) {
        const size_t E = l->layer[i].experts;
        const json_t *load = json_object_get(json_array_get(layers, i), "load");
        for (size_t e = 0; e < E; e++)
            l->load[i][l->n * E + e] = json_number_value(json_array_get(load, e));
    }
    l->step[l->n++] = json_number_value(json_object_get(line, "step"));
    return EMBER_OK;
}

ember_status em_run_routers(const char *dir, struct em_arena *arena, struct em_report_layer *layers,
                            struct em_report *report)
{
    static const char name[] = "logs/train.jsonl";
    struct router_log l = {.arena = arena, .report = report, .layer = layers};
    const size_t n = report->layer_count;
    EM_TRY(em_run_each_line(dir, name, count_line, &l));
    l.every = l.seen / MOST_LOADS + 1;
    l.capacity = l.seen / l.every + 1;
    l.load = em_arena_alloc(arena, (n + 1) * sizeof *l.load);
    l.step = em_arena_alloc(arena, l.capacity * sizeof *l.step);
    l.warning =
        em_arena_alloc(arena, (report->warning_count + MOST_WARNINGS + 1) * sizeof *l.warning);
    if (!l.load || !l.step || !l.warning) return EMBER_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (!(l.load[i] = em_arena_alloc(arena, l.capacity * layers[i].experts * sizeof(double))))
            return EMBER_E_NOMEM;
    l.seen = 0;
    EM_TRY(em_run_each_line(dir, name, take_line, &l));
    for (size_t i = 0; i < n; i++)
        layers[i].load = l.n ? l.load[i] : NULL;
    report->load_steps = l.step;
    report->load_count = l.n;
    if (l.unsaid) {
        l.warning[l.warnings] = em_arena_printf(
            arena, "There were %zu more warnings in training: see %s.", l.unsaid, name);
        if (!l.warning[l.warnings++]) return EMBER_E_NOMEM;
    }
    if (report->warning_count) // those of the last weights come after those of training
        memcpy(l.warning + l.warnings, report->warnings, report->warning_count * sizeof *l.warning);
    report->warnings = l.warning;
    report->warning_count += l.warnings;
    return EMBER_OK;
}
