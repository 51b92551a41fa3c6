// Wiring files: words between white space or semicolons,
//   ember-wiring 1
//   inputs 2
//   units 5
//   outputs 1
//   layers 2 2 1
//   sensory 0>3+ 1>4- ..
//   synapses 3>1+ 1>0- ..
// Layers, sensory synapses and synapses are lists to the next keyword; sizes stand before them.
#include <stdlib.h>
#include <string.h>

#include "nn/sequence_mixing/recurrent/wiring.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ';';
}

struct reader {
    const char *at;
    char word[48];
    struct em_wiring *w;
    struct em_arena *arena;
    bool placed; // the tables are there
};

static ember_status next_word(struct reader *r)
{
    size_t n = 0;
    while (is_space(*r->at))
        r->at++;
    while (*r->at && !is_space(*r->at)) {
        if (n + 1 == sizeof r->word)
            return em_fail(EMBER_E_FORMAT, "wiring: the word \"%.47s..\" is too long", r->word);
        r->word[n++] = *r->at++;
        r->word[n] = '\0';
    }
    r->word[n] = '\0';
    return EMBER_OK;
}

// A number at *p, which moves on; SIZE_MAX: none, or too large a one.
static size_t number_at(const char **p)
{
    size_t n = 0;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        n = n * 10 + (size_t)(**p - '0');
        if (n > (size_t)EM_WIRING_UNITS * 16) return SIZE_MAX;
    }
    return *p == start ? SIZE_MAX : n;
}

static ember_status read_size(struct reader *r, const char *what, size_t least, size_t *to)
{
    EM_TRY(next_word(r));
    const char *p = r->word;
    const size_t n = number_at(&p);
    if (*p || n == SIZE_MAX || n < least || n > (size_t)EM_WIRING_UNITS)
        return em_fail(EMBER_E_FORMAT, "wiring: %s has to be a number from %zu to %d, not \"%s\"",
                       what, least, EM_WIRING_UNITS, r->word);
    *to = n;
    return EMBER_OK;
}

static ember_status read_synapse(const struct reader *r, bool sensory)
{
    const struct em_wiring *w = r->w;
    const char *p = r->word;
    const size_t from = number_at(&p), sources = sensory ? w->inputs : w->units;
    if (*p++ != '>')
        return em_fail(EMBER_E_FORMAT, "wiring: \"%s\" is no synapse like 3>1+ or 3>1-", r->word);
    const size_t to = number_at(&p);
    if ((*p != '+' && *p != '-') || p[1] || from >= sources || to >= w->units)
        return em_fail(EMBER_E_FORMAT,
                       "wiring: \"%s\" is no synapse from one of %zu to one of %zu, like 3>1+ or "
                       "3>1-",
                       r->word, sources, w->units);
    if (r->placed) (sensory ? w->sensory : w->synapse)[from * w->units + to] = *p == '+' ? 1 : -1;
    return EMBER_OK;
}

static ember_status read_header(struct reader *r)
{
    static const char *const name[] = {"inputs", "units", "outputs"};
    size_t *const to[] = {&r->w->inputs, &r->w->units, &r->w->outputs};
    EM_TRY(next_word(r));
    EM_TRY(next_word(r));
    if (strcmp(r->word, "1") != 0)
        return em_fail(EMBER_E_FORMAT, "wiring: version 1 is known, not \"%s\"", r->word);
    for (unsigned i = 0; i < 3; i++) {
        EM_TRY(next_word(r));
        if (strcmp(r->word, name[i]) != 0)
            return em_fail(EMBER_E_FORMAT, "wiring: %s is expected, not \"%s\"", name[i], r->word);
        EM_TRY(read_size(r, name[i], i ? 1 : 0, to[i]));
    }
    if (r->w->outputs > r->w->units)
        return em_fail(EMBER_E_FORMAT, "wiring: %zu outputs of %zu units", r->w->outputs,
                       r->w->units);
    return EMBER_OK;
}

// A number of the list of layers.
static ember_status read_layer(struct reader *r)
{
    const char *p = r->word;
    const size_t n = number_at(&p);
    if (*p || !n || n > r->w->units || r->w->layers == EM_WIRING_LAYERS)
        return em_fail(EMBER_E_FORMAT, "wiring: \"%s\" as layer %zu (at most %d) of %zu units",
                       r->word, r->w->layers + 1, EM_WIRING_LAYERS, r->w->units);
    r->w->layer[r->w->layers++] = n;
    return EMBER_OK;
}

static ember_status read_lists(struct reader *r)
{
    enum { NONE, LAYERS, SENSORY, SYNAPSES } list = NONE;
    for (;;) {
        EM_TRY(next_word(r));
        if (!*r->word) return EMBER_OK;
        if (strcmp(r->word, "layers") == 0)
            list = LAYERS;
        else if (strcmp(r->word, "sensory") == 0)
            list = SENSORY;
        else if (strcmp(r->word, "synapses") == 0)
            list = SYNAPSES;
        else if (list == LAYERS)
            EM_TRY(read_layer(r));
        else if (list == NONE)
            return em_fail(EMBER_E_FORMAT, "wiring: a list is expected, not \"%s\"", r->word);
        else
            EM_TRY(read_synapse(r, list == SENSORY));
    }
}

ember_status em_wiring_read(const char *text, size_t inputs, struct em_arena *arena,
                            struct em_wiring *w)
{
    struct reader r = {.at = text, .w = w, .arena = arena};
    *w = (struct em_wiring){0};
    EM_TRY(read_header(&r));
    if (inputs && w->inputs != inputs)
        return em_fail(EMBER_E_CONFIG, "wiring: it has %zu inputs, and %zu are there", w->inputs,
                       inputs);
    if (arena) {
        EM_TRY(em_wiring_allocate(w, arena));
        r.placed = true;
    }
    EM_TRY(read_lists(&r));
    size_t sum = 0;
    for (size_t i = 0; i < w->layers; i++)
        sum += w->layer[i];
    if (!w->layers) w->layer[w->layers++] = sum = w->units;
    if (sum != w->units || (w->layers > 1 && w->layer[w->layers - 1] != w->outputs))
        return em_fail(EMBER_E_FORMAT,
                       "wiring: its layers have %zu neurons of %zu, and the last of several has to "
                       "be the %zu outputs",
                       sum, w->units, w->outputs);
    return EMBER_OK;
}

static ember_status write_list(const char *name, const int8_t *table, size_t sources, size_t units,
                               struct em_buf *text)
{
    EM_TRY(em_buf_printf(text, "%s", name));
    for (size_t s = 0; s < sources; s++)
        for (size_t d = 0; d < units; d++)
            if (table[s * units + d])
                EM_TRY(
                    em_buf_printf(text, " %zu>%zu%c", s, d, table[s * units + d] > 0 ? '+' : '-'));
    return em_buf_printf(text, "\n");
}

ember_status em_wiring_write(const struct em_wiring *w, struct em_buf *text)
{
    EM_TRY(em_buf_printf(text, "ember-wiring 1\ninputs %zu\nunits %zu\noutputs %zu\nlayers",
                         w->inputs, w->units, w->outputs));
    for (size_t i = 0; i < w->layers; i++)
        EM_TRY(em_buf_printf(text, " %zu", w->layer[i]));
    EM_TRY(em_buf_printf(text, "\n"));
    EM_TRY(write_list("sensory", w->sensory, w->inputs, w->units, text));
    return write_list("synapses", w->synapse, w->units, w->units, text);
}
