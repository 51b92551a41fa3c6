#include "report/page_experts.h"

#include <math.h>

#include "base/alloc.h"
#include "report/markup.h"
#include "report/scale.h"
#include "report/svg.h"

// What there is a picture of, a layer each. The splits have theirs from MAP_SPLIT on.
enum layer_map {
    MAP_DOMAINS,
    MAP_LOAD,
    MAP_SHARED,
    MAP_WEIGHTS,
    MAP_OUTPUTS,
    MAP_SPLIT,
    MAPS = MAP_SPLIT + EM_SPLITS
};

static bool has_map(const struct em_report *r, const struct em_report_layer *l, size_t map)
{
    if (!l->experts) return false;
    switch (map) {
    case MAP_LOAD: return l->load && r->load_count;
    case MAP_DOMAINS: return l->domain_share && r->domain_count;
    case MAP_SHARED: return l->coactivation && l->active > 1 && l->experts > 1;
    case MAP_WEIGHTS: return l->weight_cosine && l->experts > 1;
    case MAP_OUTPUTS: return l->output_cka && l->experts > 1;
    default: return l->split[map - MAP_SPLIT] && r->split[map - MAP_SPLIT].count;
    }
}

static bool any_map(const struct em_report *r, size_t map)
{
    for (size_t i = 0; i < r->layer_count; i++)
        if (has_map(r, &r->layers[i], map)) return true;
    return false;
}

static ember_status domain_map(const struct em_report *r, const struct em_report_layer *l,
                               struct em_buf *out)
{
    const char **name = em_calloc(r->domain_count, sizeof *name);
    if (!name) return EMBER_E_NOMEM;
    for (size_t d = 0; d < r->domain_count; d++)
        name[d] = r->domains[d].name ? r->domains[d].name : "";
    const ember_status status =
        em_svg_shares(&(struct em_share_map){name, r->domain_count, l->domain_share}, l, out);
    em_free(name);
    return status;
}

static ember_status draw_map(const struct em_report *r, const struct em_report_layer *l, size_t map,
                             struct em_buf *out)
{
    switch (map) {
    case MAP_LOAD: return em_svg_load(r, l, out);
    case MAP_DOMAINS: return domain_map(r, l, out);
    case MAP_SHARED: return em_svg_coactivation(l, out);
    case MAP_WEIGHTS: return em_svg_similarity(l, l->weight_cosine, "Cosine of the weights", out);
    case MAP_OUTPUTS: return em_svg_similarity(l, l->output_cka, "Likeness of the outputs", out);
    default: {
        const struct em_report_names *names = &r->split[map - MAP_SPLIT];
        return em_svg_shares(
            &(struct em_share_map){names->name, names->count, l->split[map - MAP_SPLIT]}, l, out);
    }
    }
}

static ember_status layer_heading(const struct em_report_layer *l, struct em_buf *out)
{
    EM_TRY(em_buf_printf(out, "<div class=\"card\"><h3>Layer %zu <small>%zu of %zu experts a token",
                         l->layer, l->active, l->experts));
    if (l->within) {
        EM_TRY(em_buf_puts(out, ", "));
        EM_TRY(em_html_text(out, l->within));
    }
    return em_buf_puts(out, "</small></h3>");
}

static ember_status layer_maps(const struct em_report *r, size_t map, struct em_buf *out)
{
    EM_TRY(em_buf_puts(out, "<div class=\"grid\">\n"));
    for (size_t i = 0; i < r->layer_count; i++) {
        const struct em_report_layer *l = &r->layers[i];
        if (!has_map(r, l, map)) continue;
        EM_TRY(layer_heading(l, out));
        EM_TRY(draw_map(r, l, map, out));
        EM_TRY(em_buf_puts(out, "</div>\n"));
    }
    return em_buf_puts(out, "</div>\n");
}

// A heading, a sentence, the legend and a map of every layer; behind a summary where `folded`.
static ember_status map_section(const struct em_report *r, size_t map, bool folded,
                                const char *title, const char *says, struct em_buf *out)
{
    if (!any_map(r, map)) return EMBER_OK;
    const bool likeness = map == MAP_WEIGHTS || map == MAP_OUTPUTS;
    EM_TRY(em_buf_printf(out,
                         folded ? "<details><summary>%s</summary><p>%s</p><div class=\"legend\">"
                                : "<h2>%s</h2><p>%s</p><div class=\"legend\">",
                         title, says));
    EM_TRY(likeness ? em_svg_likeness(out) : em_svg_levels(out));
    EM_TRY(em_buf_puts(out, "</div>\n"));
    EM_TRY(layer_maps(r, map, out));
    return em_buf_puts(out, folded ? "</details>\n" : "");
}

// ---- the table of figures ----

static ember_status nmi_cells(struct em_buf *out, const struct em_nmi *m)
{
    char value[EM_FIGURE], shuffled[EM_FIGURE], ceiling[EM_FIGURE];
    EM_TRY(em_buf_printf(out, "<td class=\"best\">%s</td>", em_decimal(m->value, 3, value)));
    return em_buf_printf(out, "<td class=\"dim\">%s</td><td class=\"dim\">%s</td>",
                         em_decimal(m->shuffled, 3, shuffled), em_decimal(m->ceiling, 2, ceiling));
}

static ember_status balance_row(const struct em_report_layer *l, struct em_buf *out)
{
    const struct em_expert_metrics *m = &l->metrics;
    char violation[EM_FIGURE], load[EM_FIGURE], token[EM_FIGURE], mean_entropy[EM_FIGURE],
        information[EM_FIGURE], names[EM_DEAD_TEXT];
    const double mean =
        m->tokens ? (double)(m->slots + m->dropped) / (double)m->tokens : (double)l->active;
    char chosen[EM_FIGURE];
    EM_TRY(em_buf_printf(out, "<tr><th scope=\"row\">%zu</th><td class=\"dim\">%s of %zu</td>",
                         l->layer, em_decimal(mean, mean < (double)l->active, chosen), l->experts));
    EM_TRY(em_buf_printf(
        out, "<td>+%s %%</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%llu</td><td>%zu",
        em_percent(m->max_violation, violation), em_decimal(m->load_entropy, 3, load),
        em_decimal(m->token_entropy, 3, token), em_decimal(m->marginal_entropy, 3, mean_entropy),
        em_decimal(m->marginal_entropy - m->token_entropy, 3, information),
        (unsigned long long)m->dropped, m->dead));
    if (m->dead) EM_TRY(em_buf_printf(out, " <small>(%s)</small>", em_expert_dead_names(m, names)));
    return em_buf_puts(out, "</td></tr>\n");
}

static ember_status balance(const struct em_report *r, struct em_buf *out)
{
    EM_TRY(em_buf_puts(
        out, "<div class=\"card\" style=\"margin-top:20px\"><div class=\"scroll\"><table><thead>"
             "<tr><th>layer</th><th>experts</th><th>busiest expert<br>over an even share</th>"
             "<th>entropy<br>of the load</th><th>entropy<br>of a token</th>"
             "<th>entropy<br>of the mean</th><th>what a token<br>tells of its expert</th>"
             "<th>dropped</th><th>dead</th></tr></thead><tbody>\n"));
    for (size_t i = 0; i < r->layer_count; i++)
        EM_TRY(balance_row(&r->layers[i], out));
    return em_buf_puts(
        out, "</tbody></table></div><p class=\"note\" style=\"margin:10px 0 0\">Entropies are "
             "relative to an even split, which is 1: of the tokens over experts, of the router's "
             "probabilities for one token, and of their mean over tokens; the last two differ by "
             "the mutual information of expert and token. <i>Dropped</i> counts choices that went "
             "to no expert. An expert is dead below a tenth of its even share.</p></div>\n");
}

static ember_status dependence(const struct em_report *r, struct em_buf *out)
{
    static const char *const of[] = {"domain", "token", "kind of token", "position"};
    EM_TRY(em_buf_puts(out, "<div class=\"card\" style=\"margin-top:20px\"><div "
                            "class=\"scroll\"><table><thead><tr><th rowspan=\"2\">layer</th>"));
    for (size_t i = 0; i < 4; i++)
        EM_TRY(em_buf_printf(out, "<th class=\"of\" colspan=\"3\">NMI(expert; %s)</th>", of[i]));
    EM_TRY(em_buf_puts(out, "</tr><tr>"));
    for (size_t i = 0; i < 4; i++)
        EM_TRY(em_buf_puts(out, "<th>measured</th><th>shuffled</th><th>ceiling</th>"));
    EM_TRY(em_buf_puts(out, "</tr></thead><tbody>\n"));
    for (size_t i = 0; i < r->layer_count; i++) {
        const struct em_expert_metrics *m = &r->layers[i].metrics;
        const struct em_nmi *nmi[] = {&m->domain, &m->token, &m->token_class, &m->position};
        EM_TRY(em_buf_printf(out, "<tr><th scope=\"row\">%zu</th>", r->layers[i].layer));
        for (size_t j = 0; j < 4; j++)
            EM_TRY(nmi_cells(out, nmi[j]));
        EM_TRY(em_buf_puts(out, "</tr>\n"));
    }
    return em_buf_puts(
        out,
        "</tbody></table></div><p class=\"note\" style=\"margin:10px 0 0\">NMI, the normalised "
        "mutual information, is the share of what there is to know about the label that the "
        "expert tells: 0 nothing, 1 all. <i>Shuffled</i> is the same with labels dealt at random, "
        "what the count alone makes of no dependence; <i>ceiling</i> is the most that this many "
        "experts could tell.</p></div>\n");
}

// ---- curves and tables over layers ----

enum { MOST_LINES = EM_SERIES_COLOURS };

// How much of the load the busiest experts carry; at most as many layers as there are colours.
static ember_status concentration(const struct em_report *r, struct em_buf *out)
{
    size_t known = 0, points = 0;
    for (size_t i = 0; i < r->layer_count; i++)
        if (r->layers[i].coverage) {
            known++;
            points += r->layers[i].experts + 1;
        }
    if (!known) return EMBER_OK;
    const size_t every = (known + MOST_LINES - 1) / MOST_LINES;
    struct em_report_series line[MOST_LINES];
    char name[MOST_LINES][24];
    double *at = em_calloc(2 * points, sizeof *at);
    if (!at) return EMBER_E_NOMEM;
    size_t lines = 0, used = 0;
    for (size_t i = 0, seen = 0; i < r->layer_count; i++) {
        const struct em_report_layer *l = &r->layers[i];
        if (!l->coverage || seen++ % every) continue;
        double *x = at + 2 * used, *y = x + l->experts + 1;
        for (size_t n = 0; n <= l->experts; n++) {
            x[n] = 100 * (double)n / (double)l->experts;
            y[n] = n ? 100 * l->coverage[n - 1] : 0;
        }
        used += l->experts + 1;
        snprintf(name[lines], sizeof name[lines], "layer %zu", l->layer);
        line[lines] =
            (struct em_report_series){.name = name[lines], .x = x, .y = y, .count = l->experts + 1};
        lines++;
    }
    const struct em_report_curve curve = {.title = "Concentration of the load",
                                          .unit = "% of the tokens",
                                          .x_unit = "% of the experts, busiest first",
                                          .series = line,
                                          .count = lines,
                                          .zero_based = true};
    ember_status status = em_buf_puts(
        out, "<h2>Concentration</h2><p>What the busiest experts get together. An even load is a "
             "straight line; the sooner a curve is high, the more a cache of few experts "
             "holds.</p><div class=\"alone\">\n");
    if (status == EMBER_OK) status = em_svg_curve(&curve, out);
    if (status == EMBER_OK) status = em_buf_puts(out, "</div>\n");
    em_free(at);
    return status;
}

static ember_status saturation(const struct em_report *r, struct em_buf *out)
{
    if (!r->checkpoint_count) return EMBER_OK;
    EM_TRY(em_buf_puts(
        out, "<h2>Router saturation</h2><p>The share of a token's experts that an earlier "
             "checkpoint had chosen as well, in percent. Experts drawn at random would agree as "
             "<i>chance</i> says.</p><div class=\"card\"><div class=\"scroll\"><table><thead><tr>"
             "<th>layer</th>"));
    for (size_t c = 0; c < r->checkpoint_count; c++) {
        EM_TRY(em_buf_puts(out, "<th>"));
        EM_TRY(em_html_text(out, r->checkpoints[c]));
        EM_TRY(em_buf_puts(out, "</th>"));
    }
    EM_TRY(em_buf_puts(out, "<th>chance</th></tr></thead><tbody>\n"));
    for (size_t i = 0; i < r->layer_count; i++) {
        const struct em_report_layer *l = &r->layers[i];
        char figure[EM_FIGURE];
        if (!l->saturation) continue;
        EM_TRY(em_buf_printf(out, "<tr><th scope=\"row\">%zu</th>", l->layer));
        for (size_t c = 0; c < r->checkpoint_count; c++)
            EM_TRY(
                em_buf_printf(out, "<td>%s</td>", em_decimal(100 * l->saturation[c], 1, figure)));
        EM_TRY(em_buf_printf(out, "<td class=\"dim\">%s</td></tr>\n",
                             em_decimal(100 * (double)l->active / (double)l->experts, 1, figure)));
    }
    return em_buf_puts(out, "</tbody></table></div></div>\n");
}

// ---- texts with their experts ----

// One mark for all tokens in a row that go to the same expert: its number, its colour, and a line
// below that tells apart experts of one colour.
static ember_status excerpt_text(const struct em_report_excerpt *x, const int32_t *expert,
                                 struct em_buf *out)
{
    for (size_t t = 0; t < x->count;) {
        const int32_t e = expert[t];
        if (e < 0)
            EM_TRY(em_buf_puts(out, "<span class=\"none\">"));
        else
            EM_TRY(em_buf_printf(out, "<span class=\"e%d u%d\"><sup>%d</sup>",
                                 e % EM_SERIES_COLOURS, (e + e / EM_SERIES_COLOURS) % 4, e));
        // A character may be made of several tokens: it is cleaned when it is whole.
        struct em_buf text = {0};
        ember_status status = EMBER_OK;
        for (; t < x->count && expert[t] == e && status == EMBER_OK; t++)
            status = em_buf_puts(&text, x->piece[t]);
        if (status == EMBER_OK) status = em_html_text_n(out, text.data, text.size);
        em_buf_deinit(&text);
        EM_TRY(status);
        EM_TRY(em_buf_puts(out, "</span>"));
    }
    return EMBER_OK;
}

static ember_status excerpts(const struct em_report *r, struct em_buf *out)
{
    enum { MOST_LAYERS = 8 };
    if (!r->excerpt_count || !r->layer_count) return EMBER_OK;
    const size_t every = (r->layer_count + MOST_LAYERS - 1) / MOST_LAYERS;
    EM_TRY(em_buf_puts(
        out, "<h2>Text by expert</h2><p>The beginning of each domain's held-out text. Each stretch "
             "has the number of the expert with the largest weight for its tokens in front, and "
             "that expert's colour and line.</p>\n"));
    for (size_t i = 0; i < r->layer_count; i += every) {
        const struct em_report_layer *l = &r->layers[i];
        if (!l->excerpt) continue;
        EM_TRY(em_buf_printf(out, "<details%s><summary>Layer %zu</summary><div class=\"grid\">\n",
                             i ? "" : " open", l->layer));
        for (size_t d = 0; d < r->excerpt_count; d++) {
            EM_TRY(em_buf_puts(out, "<div class=\"card who\"><h3>"));
            EM_TRY(em_html_text(out, r->excerpts[d].domain));
            EM_TRY(em_buf_puts(out, "</h3><pre>"));
            EM_TRY(excerpt_text(&r->excerpts[d], l->excerpt[d], out));
            EM_TRY(em_buf_puts(out, "</pre></div>\n"));
        }
        EM_TRY(em_buf_puts(out, "</div></details>\n"));
    }
    return EMBER_OK;
}

ember_status em_page_experts(const struct em_report *r, struct em_buf *out)
{
    if (!r->layer_count) return EMBER_OK;
    EM_TRY(map_section(r, MAP_DOMAINS, false, "Experts",
                       "Which experts each domain's held-out tokens go to, in percent. Colour is "
                       "relative to an even split over the experts, 1×.",
                       out));
    if (!any_map(r, MAP_DOMAINS)) EM_TRY(em_buf_puts(out, "<h2>Experts</h2>"));
    EM_TRY(balance(r, out));
    EM_TRY(dependence(r, out));
    EM_TRY(map_section(r, MAP_SPLIT + EM_SPLIT_CLASS, true, "Kinds of tokens",
                       "Which experts letters, digits and the rest go to, in percent.", out));
    EM_TRY(map_section(r, MAP_SPLIT + EM_SPLIT_TOKEN, true, "The most frequent tokens",
                       "Which experts single tokens go to, in percent; ␣ is a space, ⏎ the end of "
                       "a line.",
                       out));
    EM_TRY(map_section(r, MAP_SPLIT + EM_SPLIT_POSITION, true, "Positions",
                       "Which experts tokens go to by their place in the sequence, in percent.",
                       out));
    EM_TRY(map_section(r, MAP_LOAD, false, "Expert load over training",
                       "The share of the training tokens that each expert got, with the last one "
                       "at the right. 1× is an even split.",
                       out));
    EM_TRY(concentration(r, out));
    EM_TRY(saturation(r, out));
    EM_TRY(map_section(r, MAP_SHARED, true, "Which experts share tokens",
                       "Of the tokens of a row's expert, the percentage that goes to the "
                       "column's as well. Colour is relative to chance, 1×.",
                       out));
    EM_TRY(map_section(
        r, MAP_WEIGHTS, true, "How alike the weights are",
        "The cosine between two experts' weights, in percent, as they are stored: experts that "
        "began as copies are alike, those that began at random are near 0.",
        out));
    EM_TRY(map_section(
        r, MAP_OUTPUTS, true, "How alike the outputs are",
        "Linear CKA, in percent, between what two experts make of the same held-out tokens, "
        "whichever expert these went to: 100 is the same up to a rotation and a "
        "scale, 0 is unrelated.",
        out));
    return excerpts(r, out);
}
