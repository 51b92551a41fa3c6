#include "nn/sequence_mixing/recurrent/wiring.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

// A neural circuit policy's numbers.
struct policy {
    size_t inter, command, motor, sensory_fanout, inter_fanout, recurrent, motor_fanin;
};

ember_status em_wiring_allocate(struct em_wiring *w, struct em_arena *arena)
{
    size_t square, sensory;
    if (!em_mul_size(w->units, w->units, &square) || !em_mul_size(w->inputs, w->units, &sensory) ||
        !(w->synapse = em_arena_alloc(arena, square)) ||
        !(w->sensory = em_arena_alloc(arena, sensory ? sensory : 1)))
        return em_fail(EMBER_E_NOMEM, "a wiring of %zu inputs and %zu units: out of memory",
                       w->inputs, w->units);
    return EMBER_OK;
}

size_t em_wiring_first(const struct em_wiring *w, size_t l)
{
    size_t first = 0;
    for (size_t i = w->layers; i-- > l + 1;)
        first += w->layer[i];
    return first;
}

// ---- drawing ----

static int8_t polarity(struct em_rng *rng, bool mostly_positive)
{
    return em_rng_below(rng, mostly_positive ? 3 : 2) ? 1 : -1;
}

// `k` of [0, n), into chosen[]; the rest follows, as far as it was shuffled.
static void choose(struct em_rng *rng, size_t *chosen, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++)
        chosen[i] = i;
    for (size_t i = 0; i < k; i++) {
        const size_t j = i + (size_t)em_rng_below(rng, n - i), swap = chosen[i];
        chosen[i] = chosen[j];
        chosen[j] = swap;
    }
}

static size_t clamp(size_t x, size_t low, size_t high)
{
    return x < low ? low : x > high ? high : x;
}

// A bundle of synapses between two groups.
struct bundle {
    struct em_rng *rng;
    int8_t *table; // [sources of the whole wiring][units]
    size_t units, from, sources, to, destinations, *chosen;
};

static void connect(const struct bundle *b, size_t source, size_t destination)
{
    b->table[(b->from + source) * b->units + b->to + destination] = polarity(b->rng, false);
}

static bool reaches(const struct bundle *b, size_t destination)
{
    for (size_t s = 0; s < b->sources; s++)
        if (b->table[(b->from + s) * b->units + b->to + destination]) return true;
    return false;
}

static bool leads(const struct bundle *b, size_t source)
{
    for (size_t d = 0; d < b->destinations; d++)
        if (b->table[(b->from + source) * b->units + b->to + d]) return true;
    return false;
}

// Every source goes to `fanout` destinations; who was not reached gets about as many sources as the
// others have.
static void fan_out(const struct bundle *b, size_t fanout)
{
    for (size_t s = 0; s < b->sources; s++) {
        choose(b->rng, b->chosen, b->destinations, fanout);
        for (size_t i = 0; i < fanout; i++)
            connect(b, s, b->chosen[i]);
    }
    const size_t fanin = clamp(b->sources * fanout / b->destinations, 1, b->sources);
    for (size_t d = 0; d < b->destinations && b->sources; d++) {
        if (reaches(b, d)) continue;
        choose(b->rng, b->chosen, b->sources, fanin);
        for (size_t i = 0; i < fanin; i++)
            connect(b, b->chosen[i], d);
    }
}

// Every destination has `fanin` sources; sources that lead nowhere get some destinations.
static void fan_in(const struct bundle *b, size_t fanin)
{
    for (size_t d = 0; d < b->destinations; d++) {
        choose(b->rng, b->chosen, b->sources, fanin);
        for (size_t i = 0; i < fanin; i++)
            connect(b, b->chosen[i], d);
    }
    const size_t fanout = clamp(b->destinations * fanin / b->sources, 1, b->destinations);
    for (size_t s = 0; s < b->sources; s++) {
        if (leads(b, s)) continue;
        choose(b->rng, b->chosen, b->destinations, fanout);
        for (size_t i = 0; i < fanout; i++)
            connect(b, s, b->chosen[i]);
    }
}

static void draw_policy(const struct em_wiring *w, const struct policy *p, struct em_rng *rng,
                        size_t *chosen)
{
    const size_t command = p->motor, inter = p->motor + p->command;
    fan_out(&(struct bundle){rng, w->sensory, w->units, 0, w->inputs, inter, p->inter, chosen},
            p->sensory_fanout);
    fan_out(
        &(struct bundle){rng, w->synapse, w->units, inter, p->inter, command, p->command, chosen},
        p->inter_fanout);
    const struct bundle among = {rng,        w->synapse, w->units,   command,
                                 p->command, command,    p->command, chosen};
    for (size_t i = 0; i < p->recurrent; i++) {
        const size_t source = (size_t)em_rng_below(rng, p->command);
        connect(&among, source, (size_t)em_rng_below(rng, p->command));
    }
    fan_in(&(struct bundle){rng, w->synapse, w->units, command, p->command, 0, p->motor, chosen},
           p->motor_fanin);
}

static ember_status make_policy(const struct policy *p, const struct em_wiring_request *r,
                                struct em_arena *arena, struct em_wiring *w)
{
    if (!p->inter || !p->command || !p->motor || p->inter > EM_WIRING_UNITS ||
        p->command > EM_WIRING_UNITS || p->motor > EM_WIRING_UNITS ||
        p->recurrent > (size_t)EM_WIRING_UNITS * 16)
        return em_fail(EMBER_E_CONFIG,
                       "wiring \"%.60s\": %zu inter, %zu command and %zu motor neurons; each has "
                       "to be 1 to %d",
                       r->specification, p->inter, p->command, p->motor, EM_WIRING_UNITS);
    if (p->sensory_fanout > p->inter || p->inter_fanout > p->command || p->motor_fanin > p->command)
        return em_fail(EMBER_E_CONFIG,
                       "wiring \"%.60s\": sensory fanout %zu of %zu inter neurons, inter fanout "
                       "%zu and motor fanin %zu of %zu command neurons",
                       r->specification, p->sensory_fanout, p->inter, p->inter_fanout,
                       p->motor_fanin, p->command);
    *w = (struct em_wiring){.inputs = r->inputs,
                            .units = p->inter + p->command + p->motor,
                            .outputs = p->motor,
                            .layers = 3,
                            .layer = {p->inter, p->command, p->motor}};
    if (!arena) return EMBER_OK;
    EM_TRY(em_wiring_allocate(w, arena));
    size_t most = w->units > w->inputs ? w->units : w->inputs;
    size_t *chosen = em_calloc(most, sizeof *chosen);
    if (!chosen) return EMBER_E_NOMEM;
    struct em_rng rng;
    em_rng_seed(&rng, r->seed, 0x776972);
    draw_policy(w, p, &rng, chosen);
    em_free(chosen);
    return EMBER_OK;
}

// The share of an AutoNCP's neurons and synapses, by ncps's rules.
static ember_status auto_policy(const char *specification, size_t units, size_t outputs,
                                double sparsity, struct policy *p)
{
    if (units > EM_WIRING_UNITS || outputs + 2 >= units || !outputs)
        return em_fail(EMBER_E_CONFIG,
                       "wiring \"%.60s\": of %zu units 1 to units - 3 can be outputs, not %zu",
                       specification, units, outputs);
    if (!(sparsity >= 0.1 && sparsity <= 1))
        return em_fail(EMBER_E_CONFIG, "wiring \"%.60s\": the sparsity has to be 0.1 to 1, not %g",
                       specification, sparsity);
    const size_t others = units - outputs;
    const double density = 1 - sparsity;
    *p = (struct policy){.motor = outputs};
    p->command = clamp((size_t)(0.4 * (double)others), 1, others - 1);
    p->inter = others - p->command;
    p->sensory_fanout = clamp((size_t)((double)p->inter * density), 1, p->inter);
    p->inter_fanout = clamp((size_t)((double)p->command * density), 1, p->command);
    p->recurrent = clamp((size_t)((double)p->command * density * 2), 1, SIZE_MAX);
    p->motor_fanin = p->inter_fanout;
    return EMBER_OK;
}

static void draw_shares(int8_t *table, size_t n, double share, struct em_rng *rng)
{
    // One pass over all places, each taken with the chance that leaves the right number in the end.
    size_t left = (size_t)nearbyint((double)n * share);
    for (size_t i = 0; i < n; i++) {
        if (em_rng_below(rng, n - i) >= left) continue;
        table[i] = polarity(rng, true);
        left--;
    }
}

// Every synapse, or a share of them.
static ember_status make_shares(const struct em_wiring_request *r, double share,
                                struct em_arena *arena, struct em_wiring *w)
{
    const size_t outputs = r->outputs ? r->outputs : r->units;
    if (!r->units || r->units > EM_WIRING_UNITS || outputs > r->units)
        return em_fail(EMBER_E_CONFIG, "wiring: %zu of %zu units cannot be outputs", outputs,
                       r->units);
    *w = (struct em_wiring){.inputs = r->inputs,
                            .units = r->units,
                            .outputs = outputs,
                            .layers = 1,
                            .layer = {r->units}};
    if (!arena) return EMBER_OK;
    EM_TRY(em_wiring_allocate(w, arena));
    struct em_rng rng;
    em_rng_seed(&rng, r->seed, 0x66756c6c);
    draw_shares(w->synapse, w->units * w->units, share, &rng);
    draw_shares(w->sensory, w->inputs * w->units, share, &rng);
    return EMBER_OK;
}

static ember_status make_layers(const struct em_wiring_request *r, const double *number, size_t n,
                                struct em_arena *arena, struct em_wiring *w)
{
    *w = (struct em_wiring){.inputs = r->inputs, .layers = n};
    for (size_t i = 0; i < n; i++) {
        w->layer[i] = (size_t)number[i];
        w->units += w->layer[i];
    }
    w->outputs = w->layer[n - 1];
    if (!arena) return EMBER_OK;
    EM_TRY(em_wiring_allocate(w, arena));
    struct em_rng rng;
    em_rng_seed(&rng, r->seed, 0x6c6179);
    for (size_t l = 0; l < n; l++) {
        const size_t to = em_wiring_first(w, l), from = l ? em_wiring_first(w, l - 1) : 0,
                     sources = l ? w->layer[l - 1] : w->inputs;
        int8_t *table = l ? w->synapse : w->sensory;
        for (size_t s = 0; s < sources; s++)
            for (size_t d = 0; d < w->layer[l]; d++)
                table[(from + s) * w->units + to + d] = polarity(&rng, true);
    }
    return EMBER_OK;
}

// The numbers after the colon, at most `most`, each from 0 on; 0: none, or something else is there.
static size_t read_numbers(const char *text, double *number, size_t most)
{
    size_t n = 0;
    for (const char *p = text;;) {
        char *end;
        if (n == most || !((*p >= '0' && *p <= '9') || *p == '.')) return 0;
        number[n] = strtod(p, &end);
        if (end == p || !(number[n] >= 0 && number[n] <= EM_WIRING_UNITS * 16.0)) return 0;
        n++;
        if (!*end) return n;
        if (*end != ',') return 0;
        p = end + 1;
    }
}

ember_status em_wiring_make(const struct em_wiring_request *r, struct em_arena *arena,
                            struct em_wiring *w)
{
    const char *s = r->specification, *colon = strchr(s, ':');
    double number[8] = {0};
    size_t size[8];
    const size_t length = colon ? (size_t)(colon - s) : 0;
    if (!*s || strcmp(s, "full") == 0) return make_shares(r, 1, arena, w);
    if (strncmp(s, "ember-wiring", 12) == 0) return em_wiring_read(s, r->inputs, arena, w);
    const size_t n = colon ? read_numbers(colon + 1, number, 8) : 0;
    bool whole = true;
    for (size_t i = 0; i < n; i++) {
        size[i] = (size_t)number[i];
        if ((double)size[i] != number[i] && !(length == 4 && i == 2)) whole = false;
    }
    if (length == 6 && strncmp(s, "random", 6) == 0 && n == 1 && number[0] < 1)
        return make_shares(r, 1 - number[0], arena, w);
    if (length == 4 && strncmp(s, "auto", 4) == 0 && (n == 2 || n == 3) && whole) {
        struct policy p;
        EM_TRY(auto_policy(s, size[0], size[1], n == 3 ? number[2] : 0.5, &p));
        return make_policy(&p, r, arena, w);
    }
    if (length == 3 && strncmp(s, "ncp", 3) == 0 && n == 7 && whole)
        return make_policy(
            &(struct policy){size[0], size[1], size[2], size[3], size[4], size[5], size[6]}, r,
            arena, w);
    if (length == 6 && strncmp(s, "layers", 6) == 0 && n && whole) {
        for (size_t i = 0; i < n; i++)
            whole = whole && size[i] && size[i] <= EM_WIRING_UNITS;
        if (whole) return make_layers(r, number, n, arena, w);
    }
    return em_fail(
        EMBER_E_CONFIG,
        "wiring \"%.60s\" has to be full, random:SPARSITY, auto:UNITS,OUTPUTS[,SPARSITY], "
        "ncp: with 7 numbers, layers:N,.. or a wiring file's text",
        s);
}
