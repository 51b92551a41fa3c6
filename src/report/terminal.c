// Sketches of the report's pictures in a terminal: curves as braille dots; in ASCII where the
// terminal has no UTF-8.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "report/markup.h"
#include "report/report.h"
#include "report/scale.h"
#include "report/terminal_priv.h"

enum { COLUMNS_MIN = 40, COLUMNS_MAX = 400, CURVE_ROWS = 10 };

static bool utf8_locale(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
    }
    return false;
}

struct em_terminal em_terminal_of(int fd)
{
    struct em_terminal t = {.columns = 80, .unicode = utf8_locale()};
    if (!isatty(fd)) return t;
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col) t.columns = size.ws_col;
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    t.colour = term && *term && strcmp(term, "dumb") && !(no_color && *no_color);
    return t;
}

size_t em_terminal_columns(struct em_terminal t)
{
    return t.columns < COLUMNS_MIN   ? COLUMNS_MIN
           : t.columns > COLUMNS_MAX ? COLUMNS_MAX
                                     : t.columns;
}

ember_status em_terminal_field(struct em_buf *out, const char *text, size_t columns, bool right)
{
    struct em_buf clean;
    em_buf_init(&clean, 0);
    ember_status status = EMBER_OK;
    if (text) status = em_text_clean(&clean, text, strlen(text));
    size_t bytes = 0, shown = 0;
    while (status == EMBER_OK && bytes < clean.size && shown < columns) {
        const size_t step = em_utf8_length(clean.data + bytes, clean.size - bytes);
        if (clean.data[bytes] == '\n' || clean.data[bytes] == '\t') clean.data[bytes] = ' ';
        bytes += step ? step : 1;
        shown++;
    }
    for (size_t i = shown; status == EMBER_OK && right && i < columns; i++)
        status = em_buf_putc(out, ' ');
    if (status == EMBER_OK) status = em_buf_add(out, clean.data, bytes);
    for (size_t i = shown; status == EMBER_OK && !right && i < columns; i++)
        status = em_buf_putc(out, ' ');
    em_buf_deinit(&clean);
    return status;
}

void em_terminal_ascii(struct em_buf *out, size_t from)
{
    if (from >= out->size) return;
    size_t to = from;
    for (size_t i = from; i < out->size;) {
        const size_t step = em_utf8_length(out->data + i, out->size - i);
        const bool dash =
            step == 3 && (!memcmp(out->data + i, "–", 3) || !memcmp(out->data + i, "−", 3));
        out->data[to++] = step == 1 ? out->data[i] : dash ? '-' : '?';
        i += step ? step : 1;
    }
    out->data[to] = 0;
    out->size = to;
}

ember_status em_terminal_heading(struct em_buf *out, struct em_terminal t, const char *title,
                                 const char *unit)
{
    const size_t columns = em_terminal_columns(t);
    const size_t wide = title ? em_text_columns(title) : 0, shown = wide < columns ? wide : columns;
    EM_TRY(em_buf_puts(out, t.colour ? "\033[1m" : ""));
    EM_TRY(em_terminal_field(out, title, shown, false));
    EM_TRY(em_buf_puts(out, t.colour ? "\033[0m" : ""));
    if (unit && shown + 2 < columns) {
        const size_t unit_wide = em_text_columns(unit), left = columns - shown - 2;
        EM_TRY(em_buf_puts(out, ", "));
        EM_TRY(em_terminal_field(out, unit, unit_wide < left ? unit_wide : left, false));
    }
    return em_buf_putc(out, '\n');
}

// Dots of a drawing: a cell has 2 x 4 of them in braille, 1 x 2 in ASCII.
struct canvas {
    size_t columns, rows, dots_x, dots_y; // cells; dots of a cell
    unsigned char *dot;  // [rows][columns] bits of a braille cell, or of upper and lower half
    unsigned char *line; // [rows][columns] 1 + the line drawn there last
};

static void canvas_dot(struct canvas *k, double x, double y, size_t line)
{
    // Braille's bits by column and row (U+2800 plus these).
    static const unsigned char bit[2][4] = {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}};
    const size_t wide = k->columns * k->dots_x, high = k->rows * k->dots_y;
    size_t px = (size_t)lround(fmin(fmax(x, 0), 1) * (double)(wide - 1));
    size_t py = (size_t)lround((1 - fmin(fmax(y, 0), 1)) * (double)(high - 1));
    const size_t cell = py / k->dots_y * k->columns + px / k->dots_x;
    k->dot[cell] |= k->dots_x == 2 ? bit[px % 2][py % 4] : (unsigned char)(1u << py % 2);
    k->line[cell] = (unsigned char)(line + 1);
}

struct sketch {
    struct em_axis x, y;
    struct canvas canvas;
};

static bool drawable(const struct em_report_curve *c, const struct em_report_series *s, size_t i)
{
    return isfinite(s->x[i]) && isfinite(s->y[i]) && !(c->log_y && s->y[i] <= 0);
}

static void sketch_axes(const struct em_report_curve *c, struct sketch *k)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (size_t s = 0; s < c->count; s++)
        for (size_t i = 0; i < c->series[s].count; i++) {
            if (c->series[s].faint || !drawable(c, &c->series[s], i)) continue;
            x0 = fmin(x0, c->series[s].x[i]);
            x1 = fmax(x1, c->series[s].x[i]);
            y0 = fmin(y0, c->series[s].y[i]);
            y1 = fmax(y1, c->series[s].y[i]);
        }
    if (c->zero_based && y0 <= y1) y0 = fmin(y0, 0);
    em_axis_fit(&k->x, x0, x1, 4, false);
    if (x0 < x1) {
        k->x.lo = x0;
        k->x.hi = x1;
    }
    em_axis_fit(&k->y, y0, y1, 4, c->log_y);
}

static void sketch_line(const struct em_report_curve *c, const struct em_report_series *s,
                        size_t line, struct sketch *k)
{
    const size_t wide = k->canvas.columns * k->canvas.dots_x;
    size_t before = s->count;
    for (size_t i = 0; i < s->count; i++) {
        if (!drawable(c, s, i)) {
            before = s->count;
            continue;
        }
        const double x = em_axis_place(&k->x, s->x[i]), y = em_axis_place(&k->y, s->y[i]);
        if (before == s->count) {
            canvas_dot(&k->canvas, x, y, line);
        } else {
            const double from_x = em_axis_place(&k->x, s->x[before]);
            const double from_y = em_axis_place(&k->y, s->y[before]);
            // One dot a column and, where it is steep, one a row.
            const double steps = fmax(fmax((x - from_x) * (double)wide, fabs(y - from_y) * 60), 1);
            const size_t n = (size_t)fmin(ceil(steps), 4096);
            for (size_t j = 1; j <= n; j++) {
                const double t = (double)j / (double)n;
                canvas_dot(&k->canvas, from_x + t * (x - from_x), from_y + t * (y - from_y), line);
            }
        }
        before = i;
    }
}

static const int line_colour[] = {208, 75, 79, 176, 221, 141, 116, 250};
static const char line_mark[] = "*+ox#%@&";
enum { LINES = sizeof line_mark - 1 };

static ember_status put_cell(struct em_buf *out, struct em_terminal t, unsigned char dots,
                             unsigned char line)
{
    if (!line) return em_buf_putc(out, ' ');
    const size_t which = (size_t)(line - 1) % LINES;
    if (!t.unicode) return em_buf_putc(out, line_mark[which]);
    // U+2800 + dots as UTF-8.
    const char braille[] = {(char)0xe2, (char)(0xa0 | dots >> 6), (char)(0x80 | (dots & 0x3f)), 0};
    if (!t.colour) return em_buf_puts(out, braille);
    return em_buf_printf(out, "\033[38;5;%dm%s\033[0m", line_colour[which], braille);
}

static ember_status sketch_rows(const struct sketch *k, struct em_terminal t, struct em_buf *out)
{
    const struct canvas *v = &k->canvas;
    char figure[EM_FIGURE];
    for (size_t row = 0; row < v->rows; row++) {
        const char *label = NULL;
        for (size_t i = 0; i < k->y.tick_count && !label; i++) {
            const double place = (1 - em_axis_place(&k->y, k->y.tick[i])) * (double)(v->rows - 1);
            if (lround(place) == (long)row) label = em_figure(k->y.tick[i], figure);
        }
        EM_TRY(em_terminal_field(out, label, 7, true));
        EM_TRY(em_buf_puts(out, t.unicode ? label ? " ┤" : " │" : " |"));
        for (size_t i = 0; i < v->columns; i++)
            EM_TRY(put_cell(out, t, v->dot[row * v->columns + i], v->line[row * v->columns + i]));
        EM_TRY(em_buf_putc(out, '\n'));
    }
    EM_TRY(em_buf_puts(out, t.unicode ? "        └" : "        +"));
    for (size_t i = 0; i < v->columns; i++)
        EM_TRY(em_buf_puts(out, t.unicode ? "─" : "-"));
    EM_TRY(em_buf_puts(out, "\n         "));
    EM_TRY(em_terminal_field(out, em_figure(k->x.lo, figure), v->columns - 8, false));
    EM_TRY(em_terminal_field(out, em_figure(k->x.hi, figure), 8, true));
    return em_buf_putc(out, '\n');
}

// "prose 2.312  bible 1.741", marked as the lines are.
static ember_status sketch_legend(const struct em_report_curve *c, struct em_terminal t,
                                  struct em_buf *out)
{
    size_t line = 0;
    EM_TRY(em_buf_puts(out, "        "));
    for (size_t s = 0; s < c->count; s++) {
        const struct em_report_series *v = &c->series[s];
        char figure[EM_FIGURE];
        size_t i = v->count;
        if (v->faint) continue;
        while (i > 0 && !drawable(c, v, i - 1))
            i--;
        const size_t which = line++ % LINES;
        if (t.colour)
            EM_TRY(em_buf_printf(out, " \033[38;5;%dm%s\033[0m ", line_colour[which],
                                 t.unicode ? "━" : "-"));
        else
            EM_TRY(t.unicode ? em_buf_putc(out, ' ')
                             : em_buf_printf(out, " %c ", line_mark[which]));
        const size_t wide = v->name ? em_text_columns(v->name) : 0;
        EM_TRY(em_terminal_field(out, v->name, wide < EM_TERMINAL_NAME ? wide : EM_TERMINAL_NAME,
                                 false));
        EM_TRY(em_buf_printf(out, " %s ", i ? em_figure(v->y[i - 1], figure) : "-"));
    }
    return em_buf_putc(out, '\n');
}

ember_status em_sketch_curve(const struct em_report_curve *c, struct em_terminal terminal,
                             struct em_buf *out)
{
    const size_t from = out->size;
    struct sketch k = {.canvas = {.columns = em_terminal_columns(terminal) - 10,
                                  .rows = CURVE_ROWS,
                                  .dots_x = terminal.unicode ? 2 : 1,
                                  .dots_y = terminal.unicode ? 4 : 2}};
    const size_t cells = k.canvas.columns * k.canvas.rows;
    k.canvas.dot = em_calloc(2 * cells, 1);
    if (!k.canvas.dot) return EMBER_E_NOMEM;
    k.canvas.line = k.canvas.dot + cells;
    sketch_axes(c, &k);
    // The last line drawn is on top: the first series, which the title speaks of.
    size_t lines = 0;
    for (size_t s = 0; s < c->count; s++)
        lines += !c->series[s].faint;
    for (size_t s = c->count; s-- > 0;)
        if (!c->series[s].faint) sketch_line(c, &c->series[s], --lines % 255, &k);
    ember_status status;
    EM_TRY_GOTO(status, done, em_terminal_heading(out, terminal, c->title, c->unit));
    EM_TRY_GOTO(status, done, sketch_rows(&k, terminal, out));
    EM_TRY_GOTO(status, done, sketch_legend(c, terminal, out));
    if (!terminal.unicode) em_terminal_ascii(out, from);
done:
    em_free(k.canvas.dot);
    return status;
}

ember_status em_sketch_domains(const struct em_report *r, struct em_terminal terminal,
                               struct em_buf *out)
{
    if (!r->domain_count) return EMBER_OK;
    const size_t from = out->size;
    bool xz = false, untrained = false;
    for (size_t i = 0; i < r->domain_count; i++) {
        xz = xz || isfinite(r->domains[i].xz_bpb);
        untrained = untrained || isfinite(r->domains[i].untrained_bpb);
    }
    EM_TRY(em_terminal_heading(out, terminal, "Held-out text", "bits per byte"));
    EM_TRY(em_buf_printf(out, "%-16s %12s %s%s%11s\n", "domain", "bytes",
                         untrained ? " untrained " : "", xz ? "   xz -9e " : "", "this model"));
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct em_report_domain *d = &r->domains[i];
        char figure[EM_FIGURE];
        EM_TRY(em_terminal_field(out, d->name, 16, false));
        EM_TRY(em_buf_printf(out, " %12llu ", (unsigned long long)d->bytes));
        if (untrained)
            EM_TRY(em_terminal_field(out, em_decimal(d->untrained_bpb, 3, figure), 10, true));
        if (xz) EM_TRY(em_terminal_field(out, em_decimal(d->xz_bpb, 3, figure), 10, true));
        EM_TRY(em_terminal_field(out, em_decimal(d->bpb, 3, figure), untrained ? 12 : 11, true));
        EM_TRY(em_buf_putc(out, '\n'));
    }
    if (!terminal.unicode) em_terminal_ascii(out, from);
    return EMBER_OK;
}

ember_status em_report_terminal(const struct em_report *r, struct em_terminal terminal,
                                struct em_buf *out)
{
    if (r->curve_count) {
        EM_TRY(em_sketch_curve(&r->curves[0], terminal, out));
        EM_TRY(em_buf_putc(out, '\n'));
    }
    if (r->layer_count) {
        EM_TRY(em_sketch_experts(r, terminal, out));
        EM_TRY(em_buf_putc(out, '\n'));
    }
    return em_sketch_domains(r, terminal, out);
}
