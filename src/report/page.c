// report.html: one file without a reference to anything outside it; its policy forbids the browser
// to load any. Everything reads without the script.
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "report/markup.h"
#include "report/page_experts.h"
#include "report/page_style.h"
#include "report/report.h"
#include "report/scale.h"
#include "report/svg.h"

static ember_status head(const struct em_report *r, struct em_buf *out)
{
    EM_TRY(em_buf_puts(out,
                       "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                       "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                       "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
                       "form-action 'none'\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                       "<title>"));
    EM_TRY(em_html_text(out, r->title ? r->title : "Training report"));
    EM_TRY(em_buf_puts(out, " – Ember</title>\n<style>"));
    EM_TRY(em_page_style(out));
    EM_TRY(em_buf_puts(out, "</style></head>\n<body>\n<header><h1>"));
    EM_TRY(em_html_text(out, r->title ? r->title : "Training report"));
    EM_TRY(em_buf_puts(out, "</h1>"));
    if (r->subtitle) {
        EM_TRY(em_buf_puts(out, "<p>"));
        EM_TRY(em_html_text(out, r->subtitle));
        EM_TRY(em_buf_puts(out, "</p>"));
    }
    EM_TRY(em_buf_puts(out, "</header>\n"));
    if (r->tile_count) EM_TRY(em_buf_puts(out, "<dl class=\"tiles\">"));
    for (size_t i = 0; i < r->tile_count; i++) {
        EM_TRY(em_buf_puts(out, "<div><dt>"));
        EM_TRY(em_html_text(out, r->tiles[i].name));
        EM_TRY(em_buf_puts(out, "</dt><dd>"));
        EM_TRY(em_html_text(out, r->tiles[i].value));
        EM_TRY(em_buf_puts(out, "</dd></div>"));
    }
    if (r->tile_count) EM_TRY(em_buf_puts(out, "</dl>\n"));
    for (size_t i = 0; i < r->warning_count; i++) {
        EM_TRY(em_buf_puts(out, "<p class=\"warn\" role=\"alert\">"));
        EM_TRY(em_html_text(out, r->warnings[i]));
        EM_TRY(em_buf_puts(out, "</p>\n"));
    }
    return EMBER_OK;
}

// "12,345,678"
static ember_status add_grouped(struct em_buf *out, uint64_t n)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) EM_TRY(em_buf_putc(out, ','));
        EM_TRY(em_buf_putc(out, digits[i]));
    }
    return EMBER_OK;
}

static ember_status bpb_cell(struct em_buf *out, double v, const char *class)
{
    char text[EM_FIGURE];
    return em_buf_printf(out, "<td class=\"%s\">%s</td>", class, em_decimal(v, 3, text));
}

// The three figures of a domain on one line: a bar for the model, a stroke for xz, a ring for the
// untrained model.
static ember_status bpb_bar(struct em_buf *out, const struct em_report_domain *d, double most)
{
    const double width = 300, mid = 8;
    EM_TRY(em_buf_puts(out, "<td class=\"bar\"><svg aria-hidden=\"true\" viewBox=\"0 0 306 16\">"
                            "<path class=\"gl\" d=\"M0 8H300\"/>"));
    if (isfinite(d->bpb)) {
        EM_TRY(em_buf_puts(out, "<rect class=\"b0\" rx=\"2\" y=\"3\" height=\"10\" width=\""));
        EM_TRY(em_svg_number(out, d->bpb / most * width));
        EM_TRY(em_buf_puts(out, "\"/>"));
    }
    if (isfinite(d->xz_bpb)) {
        EM_TRY(em_buf_puts(out, "<rect class=\"b1\" y=\"0\" height=\"16\" width=\"3\" x=\""));
        EM_TRY(em_svg_number(out, d->xz_bpb / most * width - 1.5));
        EM_TRY(em_buf_puts(out, "\"/>"));
    }
    if (isfinite(d->untrained_bpb)) {
        EM_TRY(em_buf_printf(out, "<circle class=\"b2\" r=\"4\" cy=\"%d\" cx=\"", (int)mid));
        EM_TRY(em_svg_number(out, d->untrained_bpb / most * width));
        EM_TRY(em_buf_puts(out, "\"/>"));
    }
    return em_buf_puts(out, "</svg></td>");
}

struct shown { // figures that some domain has
    bool untrained, xz;
};

static ember_status domain_row(struct em_buf *out, const struct em_report_domain *d, double most,
                               struct shown shown, bool sum)
{
    EM_TRY(
        em_buf_puts(out, sum ? "<tr class=\"sum\"><th scope=\"row\">" : "<tr><th scope=\"row\">"));
    EM_TRY(em_html_text(out, d->name));
    EM_TRY(em_buf_puts(out, "</th><td class=\"dim wide\">"));
    EM_TRY(add_grouped(out, d->bytes));
    char per_token[EM_FIGURE];
    EM_TRY(em_buf_printf(
        out, "</td><td class=\"dim wide\">%s</td>",
        em_decimal(d->tokens ? (double)d->bytes / (double)d->tokens : (double)NAN, 2, per_token)));
    if (shown.untrained) EM_TRY(bpb_cell(out, d->untrained_bpb, "dim"));
    if (shown.xz) EM_TRY(bpb_cell(out, d->xz_bpb, ""));
    EM_TRY(bpb_cell(out, d->bpb, "best"));
    EM_TRY(bpb_bar(out, d, most));
    return em_buf_puts(out, "</tr>\n");
}

// All domains as one text: bits add up, so bits per byte are means weighted by bytes.
static struct em_report_domain sum_domains(const struct em_report *r)
{
    struct em_report_domain sum = {.name = "all"};
    double bits = 0, untrained = 0, xz = 0;
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct em_report_domain *d = &r->domains[i];
        sum.bytes += d->bytes;
        sum.tokens += d->tokens;
        bits += d->bpb * (double)d->bytes;
        untrained += d->untrained_bpb * (double)d->bytes;
        xz += d->xz_bpb * (double)d->bytes;
    }
    sum.bpb = bits / (double)sum.bytes;
    sum.untrained_bpb = untrained / (double)sum.bytes;
    sum.xz_bpb = xz / (double)sum.bytes;
    return sum;
}

static ember_status held_out(const struct em_report *r, struct em_buf *out)
{
    if (!r->domain_count) return EMBER_OK;
    struct shown shown = {0};
    double most = 0;
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct em_report_domain *d = &r->domains[i];
        shown.xz = shown.xz || isfinite(d->xz_bpb);
        shown.untrained = shown.untrained || isfinite(d->untrained_bpb);
        most = fmax(most, fmax(d->bpb, fmax(d->untrained_bpb, d->xz_bpb))); // fmax skips NAN
    }
    if (!(most > 0)) most = 1;
    EM_TRY(em_buf_printf(
        out,
        "<h2>Held-out text</h2><p>Bits per byte of text that the model was not trained on; "
        "less is better.</p>\n<div class=\"card\"><div class=\"scroll\"><table><thead><tr>"
        "<th>domain</th><th class=\"wide\">bytes</th><th class=\"wide\">bytes a "
        "token</th>%s%s"
        "<th>this model</th><th class=\"bar\"><span class=\"key k0\"></span>this model"
        "%s%s</th></tr></thead><tbody>\n",
        shown.untrained ? "<th>untrained</th>" : "", shown.xz ? "<th>xz -9e</th>" : "",
        shown.xz ? "<span class=\"key k1\"></span>xz -9e" : "",
        shown.untrained ? "<span class=\"key k2\"></span>untrained" : ""));
    for (size_t i = 0; i < r->domain_count; i++)
        EM_TRY(domain_row(out, &r->domains[i], most, shown, false));
    if (r->domain_count > 1) {
        const struct em_report_domain sum = sum_domains(r);
        EM_TRY(domain_row(out, &sum, most, shown, true));
    }
    EM_TRY(em_buf_puts(out, "</tbody></table></div>"));
    if (shown.xz)
        EM_TRY(em_buf_puts(
            out, "<p class=\"note\" style=\"margin:10px 0 0\">xz -9e compresses the same "
                 "held-out bytes of each domain on their own: it has not seen the training "
                 "text, and starts from nothing.</p>"));
    return em_buf_puts(out, "</div>\n");
}

static ember_status curves(const struct em_report *r, struct em_buf *out)
{
    if (!r->curve_count) return EMBER_OK;
    EM_TRY(em_buf_puts(out,
                       "<h2>Training</h2><p>Strong lines are smoothed where a pale one shows the "
                       "figures of single steps.</p>\n<div class=\"grid\">\n"));
    for (size_t i = 0; i < r->curve_count; i++)
        EM_TRY(em_svg_curve(&r->curves[i], out));
    return em_buf_puts(out, "</div>\n");
}

static ember_status samples(const struct em_report *r, struct em_buf *out)
{
    if (!r->sample_count) return EMBER_OK;
    EM_TRY(em_buf_puts(out, "<h2>Samples</h2><p>What the trained model goes on with after a prompt "
                            "(<b>marked</b>).</p>\n<div class=\"grid\">\n"));
    for (size_t i = 0; i < r->sample_count; i++) {
        const struct em_report_sample *s = &r->samples[i];
        EM_TRY(em_buf_puts(out, "<div class=\"card sample\"><h3>"));
        EM_TRY(em_html_text(out, s->domain));
        EM_TRY(em_buf_puts(out, "</h3><pre><b>"));
        EM_TRY(em_html_text(out, s->prompt));
        EM_TRY(em_buf_puts(out, "</b>"));
        EM_TRY(em_html_text(out, s->text));
        EM_TRY(em_buf_puts(out, "</pre></div>\n"));
    }
    return em_buf_puts(out, "</div>\n");
}

static ember_status fact_tables(const struct em_report *r, struct em_buf *out)
{
    if (!r->facts_count) return EMBER_OK;
    EM_TRY(em_buf_puts(out, "<h2>The run</h2><p></p>\n<div class=\"grid\">\n"));
    for (size_t i = 0; i < r->facts_count; i++) {
        const struct em_report_facts *f = &r->facts[i];
        EM_TRY(em_buf_puts(out, "<div class=\"card\"><h3>"));
        EM_TRY(em_html_text(out, f->title));
        EM_TRY(em_buf_puts(out, "</h3><table class=\"facts\"><tbody>"));
        for (size_t j = 0; j < f->count; j++) {
            EM_TRY(em_buf_puts(out, "<tr><th scope=\"row\">"));
            EM_TRY(em_html_text(out, f->facts[j].name));
            EM_TRY(em_buf_puts(out, "</th><td>"));
            EM_TRY(em_html_text(out, f->facts[j].value));
            EM_TRY(em_buf_puts(out, "</td></tr>"));
        }
        EM_TRY(em_buf_puts(out, "</tbody></table></div>\n"));
    }
    return em_buf_puts(out, "</div>\n");
}

static ember_status foot(const struct em_report *r, struct em_buf *out)
{
    if (r->config) {
        EM_TRY(
            em_buf_puts(out, "<details><summary>Configuration</summary><div class=\"card\"><pre>"));
        EM_TRY(em_html_text(out, r->config));
        EM_TRY(em_buf_puts(out, "</pre></div></details>\n"));
    }
    EM_TRY(em_buf_puts(out, "<footer>Written by Ember"));
    if (r->version) {
        EM_TRY(em_buf_putc(out, ' '));
        EM_TRY(em_html_text(out, r->version));
    }
    if (r->finished > 0 && r->finished < 1e11) {
        const time_t seconds = (time_t)r->finished;
        struct tm utc;
        if (gmtime_r(&seconds, &utc))
            EM_TRY(em_buf_printf(out, ", %04d-%02d-%02d %02d:%02d UTC", utc.tm_year + 1900,
                                 utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min));
    }
    EM_TRY(em_buf_puts(out, ". The page is one file and loads nothing; the same figures are in "
                            "the JSON file beside it.</footer>\n<script>"));
    EM_TRY(em_buf_puts(out, em_page_script));
    return em_buf_puts(out, "</script></body></html>\n");
}

ember_status em_report_html(const struct em_report *r, struct em_buf *out)
{
    EM_TRY(head(r, out));
    EM_TRY(held_out(r, out));
    EM_TRY(curves(r, out));
    EM_TRY(em_page_experts(r, out));
    EM_TRY(samples(r, out));
    EM_TRY(fact_tables(r, out));
    return foot(r, out);
}

ember_status em_report_write_html(const struct em_report *r, const char *path)
{
    struct em_buf page;
    em_buf_init(&page, 0);
    ember_status status = em_report_html(r, &page);
    if (status == EMBER_OK) status = em_write_file(path, page.data, page.size);
    em_buf_deinit(&page);
    return status;
}
