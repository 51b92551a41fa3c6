// Line charts. Every line carries its name at its end with its last value, so that no legend has to
// be matched by colour.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "report/markup.h"
#include "report/scale.h"
#include "report/svg.h"

// The drawing in user units; text is set for about this width on the page.
static const double WIDTH = 520, HEIGHT = 250, LEFT = 48, TOP = 14, BOTTOM = 216;
// Room for the labels at the lines' ends: with names, and of a single line.
static const double NAMED = 104, UNNAMED = 50;
enum { POINTS_MAX = 720, LABELS_MAX = 16, LABEL_NAME = 12 };
static const double LABEL_HEIGHT = 13;

ember_status em_svg_number(struct em_buf *out, double v)
{
    const long n = lround(fmin(fmax(v, -1e6), 1e6) * 100);
    const long whole = labs(n) / 100, part = labs(n) % 100;
    const char *sign = n < 0 ? "-" : "";
    if (!part) return em_buf_printf(out, "%s%ld", sign, whole);
    if (part % 10 == 0) return em_buf_printf(out, "%s%ld.%ld", sign, whole, part / 10);
    return em_buf_printf(out, "%s%ld.%02ld", sign, whole, part);
}

struct plot {
    struct em_axis x, y;
    double right; // where the plot ends and the labels begin
};

static double place_x(const struct plot *p, double v)
{
    return LEFT + (p->right - LEFT) * em_axis_place(&p->x, v);
}

static double place_y(const struct plot *p, double v)
{
    return BOTTOM - (BOTTOM - TOP) * fmin(fmax(em_axis_place(&p->y, v), 0), 1);
}

static bool drawable(const struct em_report_curve *c, double y)
{
    return isfinite(y) && !(c->log_y && y <= 0);
}

static size_t named_lines(const struct em_report_curve *c)
{
    size_t n = 0;
    for (size_t s = 0; s < c->count; s++)
        n += !c->series[s].faint;
    return n;
}

// The range of what is drawn. The first hundredth of raw values does not stretch it: a loss starts
// high, and the rest of the run is what one wants to read.
static void fit_axes(const struct em_report_curve *c, struct plot *p)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (size_t s = 0; s < c->count; s++) {
        const struct em_report_series *line = &c->series[s];
        for (size_t i = 0; i < line->count; i++) {
            if (isfinite(line->x[i])) {
                x0 = fmin(x0, line->x[i]);
                x1 = fmax(x1, line->x[i]);
            }
            if (!drawable(c, line->y[i])) continue;
            if (line->faint && i < line->count / 100) continue;
            y0 = fmin(y0, line->y[i]);
            y1 = fmax(y1, line->y[i]);
        }
    }
    if (c->zero_based && y0 <= y1) y0 = fmin(y0, 0);
    em_axis_fit(&p->x, x0, x1, 5, false);
    // Steps fill the width: the axis ends where the data does, ticks stay round.
    if (x0 < x1) {
        p->x.lo = x0;
        p->x.hi = x1;
    }
    em_axis_fit(&p->y, y0, y1, 5, c->log_y);
    p->right = WIDTH - (named_lines(c) > 1 ? NAMED : UNNAMED);
}

static ember_status add_line(struct em_buf *out, const char *class, double x1, double y1, double x2,
                             double y2)
{
    EM_TRY(em_buf_printf(out, "<path class=\"%s\" d=\"M", class));
    EM_TRY(em_svg_number(out, x1));
    EM_TRY(em_buf_putc(out, ' '));
    EM_TRY(em_svg_number(out, y1));
    EM_TRY(em_buf_puts(out, "L"));
    EM_TRY(em_svg_number(out, x2));
    EM_TRY(em_buf_putc(out, ' '));
    EM_TRY(em_svg_number(out, y2));
    return em_buf_puts(out, "\"/>");
}

static ember_status add_label(struct em_buf *out, const char *class, double x, double y,
                              const char *text)
{
    EM_TRY(em_buf_printf(out, "<text class=\"%s\" x=\"", class));
    EM_TRY(em_svg_number(out, x));
    EM_TRY(em_buf_puts(out, "\" y=\""));
    EM_TRY(em_svg_number(out, y));
    EM_TRY(em_buf_puts(out, "\">"));
    EM_TRY(em_html_text(out, text));
    return em_buf_puts(out, "</text>");
}

static ember_status draw_axes(const struct em_report_curve *c, const struct plot *p,
                              struct em_buf *out)
{
    char figure[EM_FIGURE];
    for (size_t i = 0; i < p->y.tick_count; i++) {
        const double v = p->y.tick[i], y = place_y(p, v);
        EM_TRY(add_line(out, "gl", LEFT, y, p->right, y));
        EM_TRY(add_label(out, "ty", LEFT - 7, y + 3.5, em_figure(v, figure)));
    }
    for (size_t i = 0; i < p->x.tick_count; i++) {
        const double v = p->x.tick[i];
        if (v < p->x.lo || v > p->x.hi) continue;
        EM_TRY(add_line(out, "tick", place_x(p, v), BOTTOM, place_x(p, v), BOTTOM + 4));
        EM_TRY(add_label(out, "tx", place_x(p, v), BOTTOM + 17, em_figure(v, figure)));
    }
    EM_TRY(add_line(out, "axis", LEFT, BOTTOM, p->right, BOTTOM));
    return add_label(out, "tl", p->right, BOTTOM + 30, c->x_unit ? c->x_unit : "step");
}

static ember_status draw_series(const struct em_report_curve *c,
                                const struct em_report_series *line, const struct plot *p,
                                size_t colour, struct em_buf *out)
{
    size_t *keep = em_alloc((line->count ? line->count : 1) * sizeof *keep);
    if (!keep) return EMBER_E_NOMEM;
    const size_t n = em_thin(line->y, line->count, POINTS_MAX, keep);
    ember_status status;
    bool pen_down = false;
    EM_TRY_GOTO(status, done,
                em_buf_printf(out, "<path class=\"%s s%zu\" data-name=\"",
                              line->faint ? "raw" : "line", colour));
    EM_TRY_GOTO(status, done, em_html_text(out, line->name));
    EM_TRY_GOTO(status, done, em_buf_puts(out, "\" d=\""));
    for (size_t i = 0; i < n; i++) {
        const double x = line->x[keep[i]], y = line->y[keep[i]];
        if (!isfinite(x) || !drawable(c, y)) {
            pen_down = false;
            continue;
        }
        EM_TRY_GOTO(status, done, em_buf_putc(out, pen_down ? 'L' : 'M'));
        EM_TRY_GOTO(status, done, em_svg_number(out, place_x(p, x)));
        EM_TRY_GOTO(status, done, em_buf_putc(out, ' '));
        EM_TRY_GOTO(status, done, em_svg_number(out, place_y(p, y)));
        pen_down = true;
    }
    EM_TRY_GOTO(status, done, em_buf_puts(out, "\"/>"));
done:
    em_free(keep);
    return status;
}

struct end_label {
    double x, y, at; // where the line ends; the height that the label gets
    double value;
    size_t series, colour;
};

// Labels keep their order and move apart until none overlap: down from the top, then up from the
// bottom.
static void spread(struct end_label *l, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && l[j].y < l[j - 1].y; j--) {
            const struct end_label other = l[j];
            l[j] = l[j - 1];
            l[j - 1] = other;
        }
    double free_from = TOP - LABEL_HEIGHT / 2;
    for (size_t i = 0; i < n; i++) {
        l[i].at = fmax(l[i].y, free_from + LABEL_HEIGHT / 2);
        free_from = l[i].at + LABEL_HEIGHT / 2;
    }
    double free_to = BOTTOM + LABEL_HEIGHT / 2;
    for (size_t i = n; i-- > 0;) {
        l[i].at = fmin(l[i].at, free_to - LABEL_HEIGHT / 2);
        free_to = l[i].at - LABEL_HEIGHT / 2;
    }
}

static bool last_point(const struct em_report_curve *c, const struct em_report_series *line,
                       size_t *at)
{
    for (size_t i = line->count; i-- > 0;)
        if (isfinite(line->x[i]) && drawable(c, line->y[i])) {
            *at = i;
            return true;
        }
    return false;
}

static ember_status draw_end_label(const struct em_report_curve *c, const struct plot *p,
                                   const struct end_label *l, struct em_buf *out)
{
    char figure[EM_FIGURE];
    EM_TRY(em_buf_printf(out, "<circle class=\"dot s%zu\" r=\"2.6\" cx=\"", l->colour));
    EM_TRY(em_svg_number(out, l->x));
    EM_TRY(em_buf_puts(out, "\" cy=\""));
    EM_TRY(em_svg_number(out, l->y));
    EM_TRY(em_buf_puts(out, "\"/>"));
    EM_TRY(em_buf_printf(out, "<text class=\"end s%zu\" x=\"", l->colour));
    EM_TRY(em_svg_number(out, p->right + 8));
    EM_TRY(em_buf_puts(out, "\" y=\""));
    EM_TRY(em_svg_number(out, l->at + 3.8));
    EM_TRY(em_buf_puts(out, "\">"));
    const char *name = c->series[l->series].name;
    if (named_lines(c) > 1 && name) {
        size_t bytes = 0, rest = strlen(name);
        for (size_t shown = 0; rest && shown < LABEL_NAME; shown++) {
            const size_t step = em_utf8_length(name + bytes, rest);
            bytes += step ? step : 1;
            rest -= step ? step : 1;
        }
        EM_TRY(em_html_text_n(out, name, bytes));
        EM_TRY(em_buf_puts(out, rest ? "… " : " "));
    }
    EM_TRY(em_buf_puts(out, "<tspan class=\"v\">"));
    EM_TRY(em_buf_puts(out, em_figure(l->value, figure)));
    return em_buf_puts(out, "</tspan></text>");
}

static ember_status draw_end_labels(const struct em_report_curve *c, const struct plot *p,
                                    struct em_buf *out)
{
    struct end_label labels[LABELS_MAX];
    size_t n = 0, colour = 0;
    for (size_t s = 0; s < c->count; s++) {
        const struct em_report_series *line = &c->series[s];
        size_t i;
        if (line->faint) continue;
        const size_t own = colour++ % EM_SERIES_COLOURS;
        if (n == LABELS_MAX || !last_point(c, line, &i)) continue;
        const double y = place_y(p, line->y[i]);
        labels[n++] = (struct end_label){place_x(p, line->x[i]), y, y, line->y[i], s, own};
    }
    spread(labels, n);
    for (size_t i = 0; i < n; i++)
        EM_TRY(draw_end_label(c, p, &labels[i], out));
    return EMBER_OK;
}

// For those who hear the page: each line's first and last value.
static ember_status describe(const struct em_report_curve *c, struct em_buf *out)
{
    EM_TRY(em_html_text(out, c->title));
    if (c->unit) {
        EM_TRY(em_buf_puts(out, " in "));
        EM_TRY(em_html_text(out, c->unit));
    }
    for (size_t s = 0; s < c->count && s < LABELS_MAX; s++) {
        const struct em_report_series *line = &c->series[s];
        char first[EM_FIGURE], last[EM_FIGURE];
        size_t i;
        if (line->faint || !last_point(c, line, &i)) continue;
        EM_TRY(em_buf_puts(out, s ? "; " : ": "));
        EM_TRY(em_html_text(out, line->name));
        EM_TRY(em_buf_printf(out, " from %s to %s", em_figure(line->y[0], first),
                             em_figure(line->y[i], last)));
    }
    return EMBER_OK;
}

static ember_status add_exact(struct em_buf *out, const char *name, double v)
{
    char text[40];
    // %.17g reads back equal; a locale's comma is put right.
    snprintf(text, sizeof text, "%.17g", v);
    for (char *s = text; *s; s++)
        if (*s == ',') *s = '.';
    return em_buf_printf(out, " data-%s=\"%s\"", name, text);
}

ember_status em_svg_curve(const struct em_report_curve *c, struct em_buf *out)
{
    struct plot p;
    fit_axes(c, &p);
    EM_TRY(em_buf_puts(out, "<figure class=\"curve\"><figcaption>"));
    EM_TRY(em_html_text(out, c->title));
    if (c->unit) {
        EM_TRY(em_buf_puts(out, " <small>"));
        EM_TRY(em_html_text(out, c->unit));
        EM_TRY(em_buf_puts(out, p.y.log ? ", logarithmic</small>" : "</small>"));
    }
    EM_TRY(em_buf_puts(out, "</figcaption><svg role=\"img\" viewBox=\"0 0 "));
    EM_TRY(em_svg_number(out, WIDTH));
    EM_TRY(em_buf_putc(out, ' '));
    EM_TRY(em_svg_number(out, HEIGHT));
    EM_TRY(em_buf_puts(out, "\" aria-label=\""));
    EM_TRY(describe(c, out));
    EM_TRY(em_buf_printf(out, "\" data-log=\"%d\" data-xunit=\"", p.y.log));
    EM_TRY(em_html_text(out, c->x_unit ? c->x_unit : "step"));
    EM_TRY(em_buf_putc(out, '"'));
    EM_TRY(add_exact(out, "x0", p.x.lo));
    EM_TRY(add_exact(out, "x1", p.x.hi));
    EM_TRY(add_exact(out, "y0", p.y.lo));
    EM_TRY(add_exact(out, "y1", p.y.hi));
    EM_TRY(em_buf_printf(out, " data-box=\"%d %d %d %d\">", (int)LEFT, (int)p.right, (int)BOTTOM,
                         (int)TOP));
    EM_TRY(draw_axes(c, &p, out));
    // Raw values first: they lie behind. A raw series has the colour of the line after it.
    size_t colour = 0;
    for (size_t s = 0; s < c->count; s++) {
        EM_TRY(draw_series(c, &c->series[s], &p, colour % EM_SERIES_COLOURS, out));
        if (!c->series[s].faint) colour++;
    }
    EM_TRY(draw_end_labels(c, &p, out));
    return em_buf_puts(out, "</svg></figure>\n");
}

void em_smooth(const double *y, size_t count, double span, double *smooth)
{
    const double keep = span > 0 ? exp(-1 / span) : 0;
    double sum = 0, weight = 0;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(y[i])) {
            sum = sum * keep + y[i];
            weight = weight * keep + 1;
        }
        smooth[i] = weight > 0 ? sum / weight : y[i];
    }
}
