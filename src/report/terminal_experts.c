// Sketches of experts in a terminal: maps as shaded cells, texts in the experts' colours.
#include <math.h>

#include "report/markup.h"
#include "report/scale.h"
#include "report/terminal_priv.h"

// Levels from blue over grey to orange, as entries of the 256 colours, and which of them take black
// text.
static const int level_colour[] = {39, 32, 25, 24, 236, 94, 130, 172, 214};
static const bool black_text[] = {true, true, false, false, false, false, false, true, true};
enum { LEVEL_COLOURS = sizeof level_colour / sizeof *level_colour };

static ember_status put_share(struct em_buf *out, struct em_terminal t, double share, double ratio)
{
    static const char *const blocks[] = {"·", "░", "▒", "▓", "█"};
    static const char ascii[] = ".-+*#";
    const int level = em_level(ratio);
    char percent[EM_FIGURE];
    em_percent(share, percent);
    if (share < 0.0095) em_decimal(share * 100, 0, percent);
    if (t.colour) {
        const int at = (level + EM_LEVELS) * LEVEL_COLOURS / (2 * EM_LEVELS + 1);
        return em_buf_printf(out, "\033[48;5;%d;38;5;%dm%4s \033[0m", level_colour[at],
                             black_text[at] ? 16 : 255, percent);
    }
    const int shade = (level + EM_LEVELS) * 5 / (2 * EM_LEVELS + 1);
    if (t.unicode) return em_buf_printf(out, "%3s%s ", percent, blocks[shade]);
    return em_buf_printf(out, "%3s%c ", percent, ascii[shade]);
}

static ember_status layer_line(const struct em_report_layer *l, struct em_buf *out)
{
    char domain[EM_FIGURE], shuffled[EM_FIGURE], token[EM_FIGURE], shuffled_token[EM_FIGURE];
    char violation[EM_FIGURE];
    const struct em_expert_metrics *m = &l->metrics;
    return em_buf_printf(
        out, "layer %zu: NMI domain %s (%s), token %s (%s); busiest +%s %%, dead %zu\n", l->layer,
        em_decimal(m->domain.value, 3, domain), em_decimal(m->domain.shuffled, 3, shuffled),
        em_decimal(m->token.value, 3, token), em_decimal(m->token.shuffled, 3, shuffled_token),
        em_percent(m->max_violation, violation), m->dead);
}

// A row for each label; more experts than fit go on on the next line.
static ember_status share_rows(const char *const *name, size_t rows, const double *share, size_t E,
                               struct em_terminal terminal, struct em_buf *out)
{
    const size_t fit = (em_terminal_columns(terminal) - EM_TERMINAL_NAME) / 5;
    for (size_t row = 0; row < rows; row++) {
        double seen = 0;
        for (size_t e = 0; e < E; e++)
            seen += share[row * E + e];
        if (!(seen > 0)) continue; // no token had this label
        for (size_t e = 0; e < E; e++) {
            if (e % fit == 0)
                EM_TRY(em_terminal_field(out, e ? "" : name[row], EM_TERMINAL_NAME - 1, true));
            if (e % fit == 0) EM_TRY(em_buf_putc(out, ' '));
            EM_TRY(put_share(out, terminal, share[row * E + e], share[row * E + e] * (double)E));
            if (e % fit == fit - 1 && e + 1 < E) EM_TRY(em_buf_putc(out, '\n'));
        }
        EM_TRY(em_buf_putc(out, '\n'));
    }
    return EMBER_OK;
}

ember_status em_sketch_experts(const struct em_report *r, struct em_terminal terminal,
                               struct em_buf *out)
{
    if (!r->layer_count) return EMBER_OK;
    const size_t from = out->size;
    EM_TRY(em_terminal_heading(out, terminal, "Experts",
                               "percent of a domain's held-out tokens that go to each"));
    EM_TRY(em_buf_puts(
        out, "NMI of expert with domain and with token; in parentheses, labels shuffled\n"));
    for (size_t i = 0; i < r->layer_count; i++) {
        const struct em_report_layer *l = &r->layers[i];
        EM_TRY(layer_line(l, out));
        if (!l->domain_share || !l->experts) continue;
        for (size_t d = 0; d < r->domain_count; d++)
            EM_TRY(share_rows(&r->domains[d].name, 1, l->domain_share + d * l->experts, l->experts,
                              terminal, out));
    }
    if (!terminal.unicode) em_terminal_ascii(out, from);
    return EMBER_OK;
}

// ---- tokens ----

// The layer whose experts tell most of the kind of a token.
static const struct em_report_layer *telling_layer(const struct em_report *r)
{
    const struct em_report_layer *best = NULL;
    for (size_t i = 0; i < r->layer_count; i++) {
        const struct em_report_layer *l = &r->layers[i];
        if (!l->excerpt || !l->split[EM_SPLIT_CLASS]) continue;
        if (!best || l->metrics.token_class.value > best->metrics.token_class.value) best = l;
    }
    return best;
}

// Stretches of one expert: its number in front, its colour behind. Colours of the 256 that black
// text reads on.
static ember_status put_stretch(struct em_buf *out, struct em_terminal t, int32_t expert,
                                const char *text, size_t n)
{
    static const int colour[] = {215, 117, 115, 218, 222, 183, 152, 250};
    enum { COLOURS = sizeof colour / sizeof *colour };
    if (t.colour && expert >= 0)
        EM_TRY(em_buf_printf(out, "\033[48;5;%d;38;5;16m", colour[expert % COLOURS]));
    if (expert >= 0) EM_TRY(em_buf_printf(out, t.colour ? "%d " : "[%d]", (int)expert));
    struct em_buf clean = {0};
    ember_status status = em_text_clean(&clean, text, n);
    for (size_t i = 0; i < clean.size; i++) // one line, however the text is broken
        if (clean.data[i] == '\n' || clean.data[i] == '\t') clean.data[i] = ' ';
    if (status == EMBER_OK && clean.size) status = em_buf_add(out, clean.data, clean.size);
    em_buf_deinit(&clean);
    EM_TRY(status);
    return t.colour && expert >= 0 ? em_buf_puts(out, "\033[0m") : EMBER_OK;
}

static ember_status sketch_excerpt(const struct em_report_excerpt *x, const int32_t *expert,
                                   struct em_terminal terminal, struct em_buf *out)
{
    enum { MOST_TOKENS = 64 };
    const size_t count = x->count < MOST_TOKENS ? x->count : MOST_TOKENS;
    EM_TRY(em_terminal_field(out, x->domain, EM_TERMINAL_NAME - 1, true));
    EM_TRY(em_buf_putc(out, ' '));
    for (size_t t = 0; t < count;) {
        struct em_buf text = {0};
        ember_status status = EMBER_OK;
        const int32_t e = expert[t];
        for (; t < count && expert[t] == e && status == EMBER_OK; t++)
            status = em_buf_puts(&text, x->piece[t]);
        if (status == EMBER_OK)
            status = put_stretch(out, terminal, e, text.data ? text.data : "", text.size);
        em_buf_deinit(&text);
        EM_TRY(status);
    }
    return em_buf_putc(out, '\n');
}

ember_status em_sketch_tokens(const struct em_report *r, struct em_terminal terminal,
                              struct em_buf *out)
{
    const struct em_report_layer *l = telling_layer(r);
    const struct em_report_names *kinds = &r->split[EM_SPLIT_CLASS];
    if (!l) return EMBER_OK;
    const size_t from = out->size;
    char nmi[EM_FIGURE], shuffled[EM_FIGURE];
    EM_TRY(em_terminal_heading(out, terminal, "Kinds of tokens",
                               "of the layer whose experts tell them best, in percent"));
    EM_TRY(em_buf_printf(out, "layer %zu: NMI %s (%s)\n", l->layer,
                         em_decimal(l->metrics.token_class.value, 3, nmi),
                         em_decimal(l->metrics.token_class.shuffled, 3, shuffled)));
    EM_TRY(
        share_rows(kinds->name, kinds->count, l->split[EM_SPLIT_CLASS], l->experts, terminal, out));
    EM_TRY(em_buf_putc(out, '\n'));
    EM_TRY(em_terminal_heading(out, terminal, "Text by expert",
                               "the number of a stretch's expert in front"));
    for (size_t d = 0; d < r->excerpt_count; d++)
        EM_TRY(sketch_excerpt(&r->excerpts[d], l->excerpt[d], terminal, out));
    if (!terminal.unicode) em_terminal_ascii(out, from);
    return EMBER_OK;
}
