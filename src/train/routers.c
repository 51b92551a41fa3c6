#include "train/routers.h"

#include <string.h>

void em_router_figures_reset(struct em_router_figures *f, size_t experts)
{
    uint64_t *load = f->load;
    double *observed = f->observed;
    memset(load, 0, experts * sizeof *load);
    if (observed) memset(observed, 0, experts * sizeof *observed);
    *f = (struct em_router_figures){.load = load, .observed = observed};
}

void em_router_figures_add(struct em_router_figures *f, const struct em_router_record *r,
                           uint64_t tokens)
{
    const int32_t *offset = em_i32(r->routing.plan);
    const float *stats = em_f32(r->stats);
    const double weight = (double)tokens;
    for (size_t e = 0; e < r->routing.n_experts; e++)
        f->load[e] += (uint64_t)(offset[e + 1] - offset[e]);
    f->slots += (uint64_t)offset[r->routing.n_experts];
    f->tokens += tokens;
    if (r->dropped) f->dropped += (uint64_t)em_f32(r->dropped)[0];
    for (size_t e = 0; f->observed && r->observed && e < r->routing.n_experts; e++)
        f->observed[e] += weight * (double)em_f32(r->observed)[e];
    f->aux += weight * (double)stats[0];
    f->z += weight * (double)stats[1];
    f->token_entropy += weight * (double)stats[2];
    f->marginal_entropy += weight * (double)stats[3];
}

double em_max_violation(const struct em_router_figures *f, size_t experts)
{
    uint64_t most = 0;
    for (size_t e = 0; e < experts; e++)
        if (f->load[e] > most) most = f->load[e];
    return f->slots ? (double)experts * (double)most / (double)f->slots - 1 : 0;
}

struct routers {
    const struct em_router_record *record;
    const struct em_router_figures *figures;
    size_t count;
};

// Slots that expert e got in all layers that use this bias.
static uint64_t load_of(const struct routers *r, const ember_tensor *bias, size_t e)
{
    uint64_t load = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->record[i].bias == bias) load += r->figures[i].load[e];
    return load;
}

static void update_selection_bias(const struct em_router_record *record,
                                  const struct em_router_figures *figures, size_t count)
{
    const struct routers all = {record, figures, count};
    for (size_t i = 0; i < count; i++) {
        const struct em_router_record *r = &record[i];
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = record[j].bias == r->bias;
        if (!r->bias || !(r->bias_rate > 0) || seen) continue;
        const size_t E = r->routing.n_experts;
        uint64_t slots = 0;
        for (size_t e = 0; e < E; e++)
            slots += load_of(&all, r->bias, e);
        for (size_t e = 0; e < E; e++) {
            const uint64_t share =
                load_of(&all, r->bias, e) * E; // compared as integers: ties are ties
            if (share < slots) em_f32(r->bias)[e] += r->bias_rate;
            if (share > slots) em_f32(r->bias)[e] -= r->bias_rate;
        }
    }
}

static void update_threshold(const struct em_router_record *r, const struct em_router_figures *f)
{
    float *threshold = em_f32(r->threshold);
    for (size_t e = 0; e < r->routing.n_experts; e++) {
        const double seen = f->observed[e] / (double)f->tokens;
        threshold[e] += r->threshold_rate * (float)(seen - (double)threshold[e]);
    }
}

static void update_sparsity(const struct em_router_record *r, const struct em_router_figures *f)
{
    const uint64_t aim = f->tokens * r->target;
    if (f->slots > aim) em_f32(r->sparsity)[0] *= 1.2f;
    if (f->slots < aim) em_f32(r->sparsity)[0] /= 1.2f;
}

void em_update_routers(const struct em_router_record *record,
                       const struct em_router_figures *figures, size_t count)
{
    update_selection_bias(record, figures, count);
    for (size_t i = 0; i < count; i++) {
        const struct em_router_record *r = &record[i];
        if (!figures[i].tokens) continue;
        if (r->threshold && r->threshold_rate > 0 && figures[i].observed)
            update_threshold(r, &figures[i]);
        if (r->sparsity) update_sparsity(r, &figures[i]);
    }
}
