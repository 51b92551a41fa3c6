// Heat maps of expert use. Colour is a share relative to an even split (1x), in steps of log2 from
// a quarter to four times: the same scale in every map, so that one legend serves all.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "report/markup.h"
#include "report/scale.h"
#include "report/svg.h"

enum { LOAD_COLUMNS = 96, LEVELS = 2 * EM_LEVELS + 1 };

static ember_status open_svg(struct em_buf *out, double width, double height)
{
    EM_TRY(em_buf_puts(out, "<svg role=\"img\" class=\"map\" viewBox=\"0 0 "));
    EM_TRY(em_svg_number(out, width));
    EM_TRY(em_buf_putc(out, ' '));
    EM_TRY(em_svg_number(out, height));
    EM_TRY(em_buf_puts(out, "\" style=\"max-width:"));
    EM_TRY(em_svg_number(out, width));
    return em_buf_puts(out, "px\" aria-label=\"");
}

static ember_status text_at(struct em_buf *out, const char *class, double x, double y)
{
    EM_TRY(em_buf_printf(out, "<text class=\"%s\" x=\"", class));
    EM_TRY(em_svg_number(out, x));
    EM_TRY(em_buf_puts(out, "\" y=\""));
    EM_TRY(em_svg_number(out, y));
    return em_buf_puts(out, "\">");
}

static ember_status rect_at(struct em_buf *out, int level, double x, double y, double w, double h)
{
    EM_TRY(em_buf_printf(out, "<rect class=\"h%d\" x=\"", level + EM_LEVELS));
    EM_TRY(em_svg_number(out, x));
    EM_TRY(em_buf_puts(out, "\" y=\""));
    EM_TRY(em_svg_number(out, y));
    EM_TRY(em_buf_puts(out, "\" width=\""));
    EM_TRY(em_svg_number(out, w));
    EM_TRY(em_buf_puts(out, "\" height=\""));
    EM_TRY(em_svg_number(out, h));
    return em_buf_puts(out, "\"");
}

// Cells above chance have a dot that grows with them: without colour the two ends of the scale are
// both dark.
static ember_status draw_dots(struct em_buf *out, const signed char *level, size_t rows,
                              size_t columns, double x, double y, double w, double h)
{
    bool open = false;
    for (size_t i = 0; i < rows * columns; i++) {
        if (level[i] <= EM_LEVELS / 4 || level[i] > EM_LEVELS) continue;
        const double part = (double)level[i] / EM_LEVELS;
        const double wide = w * (0.25 + 0.35 * part), high = h * (0.1 + 0.5 * part);
        if (!open) EM_TRY(em_buf_puts(out, "<path class=\"dot\" d=\""));
        open = true;
        EM_TRY(em_buf_putc(out, 'M'));
        EM_TRY(em_svg_number(out, x + ((double)(i % columns) + 0.5) * w - wide / 2));
        EM_TRY(em_buf_putc(out, ' '));
        EM_TRY(em_svg_number(out, y + ((double)(i / columns) + 0.5) * h - high / 2));
        EM_TRY(em_buf_putc(out, 'h'));
        EM_TRY(em_svg_number(out, wide));
        EM_TRY(em_buf_putc(out, 'v'));
        EM_TRY(em_svg_number(out, high));
        EM_TRY(em_buf_putc(out, 'h'));
        EM_TRY(em_svg_number(out, -wide));
        EM_TRY(em_buf_putc(out, 'z'));
    }
    return open ? em_buf_puts(out, "\"/>") : EMBER_OK;
}

// Rows by columns of levels, as one path a level with equal neighbours joined: a map of thousands
// of cells stays a few kilobytes.
static ember_status draw_cells(struct em_buf *out, const signed char *level, size_t rows,
                               size_t columns, double x, double y, double w, double h)
{
    for (int v = -EM_LEVELS; v <= EM_LEVELS; v++) {
        bool open = false;
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < columns; c++) {
                if (level[r * columns + c] != v) continue;
                size_t end = c + 1;
                while (end < columns && level[r * columns + end] == v)
                    end++;
                if (!open) EM_TRY(em_buf_printf(out, "<path class=\"h%d\" d=\"", v + EM_LEVELS));
                open = true;
                EM_TRY(em_buf_putc(out, 'M'));
                EM_TRY(em_svg_number(out, x + (double)c * w));
                EM_TRY(em_buf_putc(out, ' '));
                EM_TRY(em_svg_number(out, y + (double)r * h));
                EM_TRY(em_buf_putc(out, 'h'));
                EM_TRY(em_svg_number(out, (double)(end - c) * w));
                EM_TRY(em_buf_putc(out, 'v'));
                EM_TRY(em_svg_number(out, h));
                EM_TRY(em_buf_puts(out, "H"));
                EM_TRY(em_svg_number(out, x + (double)c * w));
                EM_TRY(em_buf_putc(out, 'z'));
                c = end - 1;
            }
        if (open) EM_TRY(em_buf_puts(out, "\"/>"));
    }
    return EMBER_OK;
}

// Labels for at most about 16 rows or columns; 1 in `every` is named.
static size_t label_every(size_t n)
{
    return n <= 16 ? 1 : (n + 7) / 8;
}

ember_status em_svg_load(const struct em_report *r, const struct em_report_layer *l,
                         struct em_buf *out)
{
    const size_t E = l->experts, n = r->load_count;
    const size_t columns = n < LOAD_COLUMNS ? n : LOAD_COLUMNS;
    const double left = 26, right = 52, width = 520, top = 2;
    const double h = E <= 16 ? 16 : E <= 32 ? 9 : 5;
    const double w = (width - left - right) / (double)columns;
    size_t cells;
    if (!em_mul_size(E, columns, &cells)) return em_fail(EMBER_E_NOMEM, "report: %zu experts", E);
    signed char *level = em_alloc(cells);
    if (!level) return EMBER_E_NOMEM;
    for (size_t c = 0; c < columns; c++) {
        // A column is the mean of its snapshots.
        const size_t first = n * c / columns, end = n * (c + 1) / columns;
        for (size_t e = 0; e < E; e++) {
            double sum = 0;
            for (size_t i = first; i < end; i++)
                sum += l->load[i * E + e];
            level[e * columns + c] = (signed char)em_level(sum / (double)(end - first) * (double)E);
        }
    }
    char figure[EM_FIGURE];
    ember_status status;
    EM_TRY_GOTO(status, done, open_svg(out, width, top + (double)E * h + 18));
    EM_TRY_GOTO(status, done,
                em_buf_printf(out,
                              "Share of the tokens that each of %zu experts of layer %zu got over "
                              "training\">",
                              E, l->layer));
    EM_TRY_GOTO(status, done, draw_cells(out, level, E, columns, left, top, w, h));
    EM_TRY_GOTO(status, done, draw_dots(out, level, E, columns, left, top, w, h));
    for (size_t e = 0; e < E; e += label_every(E)) {
        const double y = top + ((double)e + 0.5) * h + 3.5;
        EM_TRY_GOTO(status, done, text_at(out, "ty", left - 6, y));
        EM_TRY_GOTO(status, done, em_buf_printf(out, "%zu</text>", e));
        EM_TRY_GOTO(status, done, text_at(out, "tr", left + (double)columns * w + 8, y));
        EM_TRY_GOTO(
            status, done,
            em_buf_printf(out, "%s %%</text>", em_percent(l->load[(n - 1) * E + e], figure)));
    }
    const double below = top + (double)E * h + 13;
    EM_TRY_GOTO(status, done, text_at(out, "tr", left, below));
    EM_TRY_GOTO(status, done,
                em_buf_printf(out, "step %s</text>", em_figure(r->load_steps[0], figure)));
    EM_TRY_GOTO(status, done, text_at(out, "ty", left + (double)columns * w, below));
    EM_TRY_GOTO(status, done,
                em_buf_printf(out, "%s</text>", em_figure(r->load_steps[n - 1], figure)));
    EM_TRY_GOTO(status, done, em_buf_puts(out, "</svg>\n"));
done:
    em_free(level);
    return status;
}

// A name cut to what fits beside a map.
static ember_status add_name(struct em_buf *out, const char *name)
{
    enum { FITS = 14 };
    struct em_buf clean = {0};
    ember_status status = em_text_clean(&clean, name, strlen(name));
    size_t bytes = 0;
    for (size_t shown = 0; status == EMBER_OK && bytes < clean.size && shown < FITS; shown++)
        bytes += em_utf8_length(clean.data + bytes, clean.size - bytes);
    if (status == EMBER_OK) status = em_html_text_n(out, clean.data, bytes);
    if (status == EMBER_OK && bytes < clean.size) status = em_buf_puts(out, "…");
    em_buf_deinit(&clean);
    return status;
}

static ember_status share_cell(const struct em_share_map *m, const struct em_report_layer *l,
                               size_t row, size_t e, double x, double y, double w, double h,
                               struct em_buf *out)
{
    const double share = m->share[row * l->experts + e], ratio = share * (double)l->experts;
    const int level = em_level(ratio);
    char percent[EM_FIGURE], times[EM_FIGURE];
    em_percent(share, percent);
    EM_TRY(rect_at(out, level, x, y, w - 1, h - 1));
    EM_TRY(em_buf_puts(out, "><title>"));
    EM_TRY(em_html_text(out, m->name[row]));
    EM_TRY(em_buf_printf(out, ": %s %% to expert %zu, %s× an even split</title></rect>", percent, e,
                         em_decimal(ratio, 2, times)));
    if (w < 24) {
        const signed char dot = (signed char)level;
        return draw_dots(out, &dot, 1, 1, x, y, w - 1, h - 1);
    }
    if (level > EM_LEVELS / 4) { // as the dots of small cells: above chance, without colour too
        EM_TRY(em_buf_puts(out, "<path class=\"dot\" d=\"M"));
        EM_TRY(em_svg_number(out, x));
        EM_TRY(em_buf_putc(out, ' '));
        EM_TRY(em_svg_number(out, y + h - 4));
        EM_TRY(em_buf_putc(out, 'h'));
        EM_TRY(em_svg_number(out, (w - 1) * level / EM_LEVELS));
        EM_TRY(em_buf_puts(out, "v3H"));
        EM_TRY(em_svg_number(out, x));
        EM_TRY(em_buf_puts(out, "z\"/>"));
    }
    char class[16];
    snprintf(class, sizeof class, "tc c%d", level + EM_LEVELS);
    EM_TRY(text_at(out, class, x + (w - 1) / 2, y + h / 2 + 3.5));
    return em_buf_printf(out, "%s</text>", percent);
}

// A label that no token had has a row of zeros.
static bool is_seen(const struct em_share_map *m, size_t row, size_t E)
{
    for (size_t e = 0; e < E; e++)
        if (m->share[row * E + e] > 0) return true;
    return false;
}

ember_status em_svg_shares(const struct em_share_map *m, const struct em_report_layer *l,
                           struct em_buf *out)
{
    const size_t E = l->experts;
    const double left = 96, width = 520, top = 16, h = m->rows > 8 ? 20 : 26;
    const double w = fmin((width - left) / (double)E, 54);
    size_t seen = 0;
    for (size_t row = 0; row < m->rows; row++)
        seen += is_seen(m, row, E);
    EM_TRY(open_svg(out, width, top + (double)seen * h + 2));
    EM_TRY(em_buf_printf(out, "Share of each row's tokens that the %zu experts of layer %zu get\">",
                         E, l->layer));
    for (size_t e = 0; e < E; e += label_every(E)) {
        EM_TRY(text_at(out, "tx", left + ((double)e + 0.5) * w, top - 5));
        EM_TRY(em_buf_printf(out, "%zu</text>", e));
    }
    for (size_t row = 0, drawn = 0; row < m->rows; row++) {
        if (!is_seen(m, row, E)) continue;
        const double y = top + (double)drawn++ * h;
        EM_TRY(text_at(out, "ty name", left - 8, y + h / 2 + 3.5));
        EM_TRY(add_name(out, m->name[row]));
        EM_TRY(em_buf_puts(out, "</text>"));
        for (size_t e = 0; e < E; e++)
            EM_TRY(share_cell(m, l, row, e, left + (double)e * w, y, w, h, out));
    }
    return em_buf_puts(out, "</svg>\n");
}

// Experts by experts; `level` has E * E members, that of the diagonal outside the scale. Few
// experts have their figures in the cells, in percent.
static ember_status svg_pairs(const struct em_report_layer *l, const signed char *level,
                              const double *v, const char *what, struct em_buf *out)
{
    const size_t E = l->experts;
    const double left = 26, top = 16, side = fmin(300 / (double)E, 30);
    EM_TRY(open_svg(out, left + (double)E * side + 4, top + (double)E * side + 4));
    EM_TRY(
        em_buf_printf(out, "%s of the %zu experts of layer %zu, two by two\">", what, E, l->layer));
    EM_TRY(draw_cells(out, level, E, E, left, top, side, side));
    if (side < 24) EM_TRY(draw_dots(out, level, E, E, left, top, side, side));
    for (size_t i = 0; side >= 24 && i < E * E; i++) {
        char class[16], figure[EM_FIGURE];
        if (level[i] > EM_LEVELS) continue;
        snprintf(class, sizeof class, "tc c%d", level[i] + EM_LEVELS);
        EM_TRY(text_at(out, class, left + ((double)(i % E) + 0.5) * side,
                       top + ((double)(i / E) + 0.5) * side + 3.5));
        EM_TRY(em_buf_printf(out, "%s</text>", em_decimal(100 * v[i], 0, figure)));
    }
    for (size_t e = 0; e < E; e += label_every(E)) {
        EM_TRY(text_at(out, "tx", left + ((double)e + 0.5) * side, top - 5));
        EM_TRY(em_buf_printf(out, "%zu</text>", e));
        EM_TRY(text_at(out, "ty", left - 6, top + ((double)e + 0.5) * side + 3.5));
        EM_TRY(em_buf_printf(out, "%zu</text>", e));
    }
    return em_buf_puts(out, "</svg>\n");
}

static int level_of_likeness(double v)
{
    return isfinite(v) ? (int)lround(fmin(fmax(v, -1), 1) * EM_LEVELS) : EM_LEVELS + 1;
}

// A matrix of figures as levels; the diagonal says nothing.
static ember_status pair_levels(const struct em_report_layer *l, const double *v,
                                int (*level)(double), double scale, signed char **out)
{
    const size_t E = l->experts;
    size_t cells;
    if (!em_mul_size(E, E, &cells)) return em_fail(EMBER_E_NOMEM, "report: %zu experts", E);
    signed char *levels = em_alloc(cells);
    if (!levels) return EMBER_E_NOMEM;
    for (size_t i = 0; i < cells; i++)
        levels[i] = i % (E + 1) ? (signed char)level(v[i] / scale) : EM_LEVELS + 1;
    *out = levels;
    return EMBER_OK;
}

ember_status em_svg_coactivation(const struct em_report_layer *l, struct em_buf *out)
{
    const size_t E = l->experts;
    const double chance = E > 1 ? (double)(l->active - 1) / (double)(E - 1) : 1;
    signed char *level;
    EM_TRY(pair_levels(l, l->coactivation, em_level, chance, &level));
    const ember_status status = svg_pairs(l, level, l->coactivation, "Tokens in common", out);
    em_free(level);
    return status;
}

ember_status em_svg_similarity(const struct em_report_layer *l, const double *similarity,
                               const char *what, struct em_buf *out)
{
    signed char *level;
    EM_TRY(pair_levels(l, similarity, level_of_likeness, 1, &level));
    const ember_status status = svg_pairs(l, level, similarity, what, out);
    em_free(level);
    return status;
}

struct mark {
    int level;
    const char *text;
};

static ember_status legend(struct em_buf *out, const struct mark *mark, size_t marks,
                           const char *low, const char *high, const char *says)
{
    const double w = 15, h = 11, left = 60;
    signed char level[LEVELS];
    for (int v = -EM_LEVELS; v <= EM_LEVELS; v++)
        level[v + EM_LEVELS] = (signed char)v;
    EM_TRY(open_svg(out, LEVELS * w + 2 * left, 32));
    EM_TRY(em_buf_printf(out, "%s\">", says));
    EM_TRY(draw_cells(out, level, 1, LEVELS, left, 2, w, h));
    EM_TRY(draw_dots(out, level, 1, LEVELS, left, 2, w, h));
    for (size_t i = 0; i < marks; i++) {
        EM_TRY(text_at(out, "tx", left + ((double)(mark[i].level + EM_LEVELS) + 0.5) * w, h + 15));
        EM_TRY(em_buf_printf(out, "%s</text>", mark[i].text));
    }
    EM_TRY(text_at(out, "ty", left - 8, h));
    EM_TRY(em_buf_printf(out, "%s</text>", low));
    EM_TRY(text_at(out, "tr", left + LEVELS * w + 8, h));
    return em_buf_printf(out, "%s</text></svg>\n", high);
}

ember_status em_svg_levels(struct em_buf *out)
{
    static const struct mark marks[] = {{-EM_LEVELS, "¼×"},
                                        {-EM_LEVELS / 2, "½×"},
                                        {0, "1×"},
                                        {EM_LEVELS / 2, "2×"},
                                        {EM_LEVELS, "4×"}};
    return legend(out, marks, sizeof marks / sizeof *marks, "fewer", "more",
                  "Colours: from blue, a quarter of an even split or less, to orange with dots, "
                  "four times or more");
}

ember_status em_svg_likeness(struct em_buf *out)
{
    static const struct mark marks[] = {{-EM_LEVELS, "−1"}, {0, "0"}, {EM_LEVELS, "1"}};
    return legend(out, marks, sizeof marks / sizeof *marks, "opposite", "alike",
                  "Colours: from blue, opposite, over 0 to orange with dots, the same");
}
