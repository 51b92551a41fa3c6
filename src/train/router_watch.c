#include "train/router_watch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "report/expert_view.h"

// After MEMORY steps an old load counts 1/e. With less behind it a mean is no reason to warn.
enum { MEMORY = 20, NO_EXPERT = -1 };

static const double least_gradient = 1e-6; // of a router, relative to its experts'
static const double most_violation = 2;

struct em_watched_router {
    double *load; // [experts] running means of slots a step
    double slots;
    uint64_t steps;
    bool *dead; // [experts] this has been said
    bool uneven, still;
};

ember_status em_router_watch_open(const struct em_stepper *s, struct em_router_watch *out)
{
    struct em_router_watch w = {.count = s->n_routers};
    w.router = em_calloc(w.count ? w.count : 1, sizeof *w.router);
    ember_status status = w.router ? EMBER_OK : EMBER_E_NOMEM;
    for (size_t i = 0; i < w.count && status == EMBER_OK; i++) {
        const size_t E = s->routers[i].routing.n_experts;
        w.router[i].load = em_calloc(E, sizeof *w.router[i].load);
        w.router[i].dead = em_calloc(E, sizeof *w.router[i].dead);
        if (!w.router[i].load || !w.router[i].dead) status = EMBER_E_NOMEM;
    }
    if (status != EMBER_OK) {
        em_router_watch_close(&w);
        return status;
    }
    *out = w;
    return EMBER_OK;
}

void em_router_watch_close(struct em_router_watch *w)
{
    for (size_t i = 0; w->router && i < w->count; i++) {
        em_free(w->router[i].load);
        em_free(w->router[i].dead);
    }
    em_free(w->router);
    json_decref(w->warnings);
    *w = (struct em_router_watch){0};
}

static ember_status say(struct em_router_watch *w, uint64_t step, size_t layer, int64_t expert,
                        const char *format, ...) EMBER_PRINTF(5, 6);
static ember_status say(struct em_router_watch *w, uint64_t step, size_t layer, int64_t expert,
                        const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    em_warn("step %llu: layer %zu: %s", (unsigned long long)step, layer, text);
    json_t *entry = json_pack("{s:I, s:I, s:s}", "layer", (json_int_t)layer, "step",
                              (json_int_t)step, "text", text);
    if (entry && expert != NO_EXPERT &&
        json_object_set_new(entry, "expert", json_integer(expert)) != 0) {
        json_decref(entry);
        entry = NULL;
    }
    if (!w->warnings) w->warnings = json_array();
    if (entry && w->warnings && json_array_append(w->warnings, entry) == 0) {
        json_decref(entry);
        return EMBER_OK;
    }
    json_decref(entry);
    return em_fail(EMBER_E_NOMEM, "out of memory");
}

static void remember(struct em_watched_router *r, const struct em_router_figures *f, size_t E)
{
    // The first steps weigh as in a plain mean.
    const double weight = fmax(1.0 / MEMORY, 1 / (double)(r->steps + 1));
    for (size_t e = 0; e < E; e++)
        r->load[e] += weight * ((double)f->load[e] - r->load[e]);
    r->slots += weight * ((double)f->slots - r->slots);
    r->steps++;
}

static ember_status watch_load(struct em_router_watch *w, struct em_watched_router *r, size_t E,
                               size_t layer, uint64_t step, double progress)
{
    const double even = r->slots / (double)E;
    size_t busiest = 0;
    if (r->steps < MEMORY || !(even > 0)) return EMBER_OK;
    for (size_t e = 0; e < E; e++) {
        if (r->load[e] > r->load[busiest]) busiest = e;
        if (r->load[e] > 0.2 * even) r->dead[e] = false; // well above the line: it lives again
        if (r->load[e] >= 0.1 * even || r->dead[e] || progress <= 0.1) continue;
        r->dead[e] = true;
        EM_TRY(say(w, step, layer, (int64_t)e,
                   "expert %zu is dying: it gets %.2g %% of the tokens, an even share is %.2g %%",
                   e, 100 * r->load[e] / r->slots, 100 / (double)E));
    }
    const double violation = r->load[busiest] / even - 1;
    if (violation < most_violation / 2) r->uneven = false;
    if (violation <= most_violation || r->uneven) return EMBER_OK;
    r->uneven = true;
    return say(w, step, layer, (int64_t)busiest,
               "out of balance: expert %zu gets %.2g times an even share", busiest, violation + 1);
}

// The norm of the gradients of all parameters whose path begins with `prefix`; NAN without any.
static double gradient_norm(const struct em_model *m, const char *prefix, size_t length)
{
    double sum = 0;
    bool any = false;
    for (size_t i = 0; i < m->params.count; i++) {
        const struct em_param *p = m->params.param[i];
        if (p->frozen || !p->tensor.grad || !p->tensor.grad->data ||
            strncmp(p->tensor.name, prefix, length) != 0)
            continue;
        any = true;
        const float *g = em_f32(p->tensor.grad);
        for (size_t j = 0, n = ember_tensor_count(&p->tensor); j < n; j++)
            sum += (double)g[j] * (double)g[j];
    }
    return any ? sqrt(sum) : (double)NAN;
}

// "blocks.3.channel.router" and, beside it, "blocks.3.channel.expert" or ".experts.N".
static ember_status watch_gradient(struct em_router_watch *w, struct em_watched_router *r,
                                   const struct em_stepper *s, const char *path, size_t layer,
                                   uint64_t step)
{
    static const char router[] = ".router", expert[] = ".expert";
    const size_t n = strlen(path), cut = sizeof router - 1;
    char beside[512];
    if (n < cut || strcmp(path + n - cut, router) != 0 || n + 2 > sizeof beside) return EMBER_OK;
    memcpy(beside, path, n + 1);
    const double own = gradient_norm(s->model, beside, n);
    memcpy(beside + n - cut, expert, sizeof expert);
    const double theirs = gradient_norm(s->model, beside, strlen(beside));
    if (!(theirs > 0) || isnan(own)) return EMBER_OK; // hash routers and frozen ones have none
    const bool still = own < least_gradient * theirs, told = r->still;
    r->still = still;
    if (!still || told) return EMBER_OK;
    return say(w, step, layer, NO_EXPERT,
               "the router does not learn: its gradient is %.2g of its experts'", own / theirs);
}

ember_status em_router_watch_step(struct em_router_watch *w, const struct em_stepper *s,
                                  uint64_t step, double progress, bool gradients)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct em_router_record *record = &s->routers[i];
        const size_t E = record->routing.n_experts, layer = em_layer_number(record->layer, i);
        remember(&w->router[i], &s->figures[i], E);
        EM_TRY(watch_load(w, &w->router[i], E, layer, step, progress));
        // At first experts are alike, and the choice among them makes no difference.
        if (gradients && progress > 0.1 && w->router[i].steps >= MEMORY)
            EM_TRY(watch_gradient(w, &w->router[i], s, record->layer, layer, step));
    }
    return EMBER_OK;
}

json_t *em_router_watch_take(struct em_router_watch *w)
{
    json_t *taken = w->warnings;
    w->warnings = NULL;
    return taken;
}
