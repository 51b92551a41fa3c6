// Pictures as SVG elements inside the page. Colours are classes that page.c's style sheet sets for
// light and dark: h0..h16 are the levels of maps, s0..s7 the series. Without colour maps still
// read: cells have their figure, or a dot that grows with what is above chance.
#ifndef EM_REPORT_SVG_H
#define EM_REPORT_SVG_H

#include "base/buf.h"
#include "report/report.h"

enum { EM_SERIES_COLOURS = 8 };

// A number with two decimals at most, whatever the locale.
ember_status em_svg_number(struct em_buf *out, double v) EMBER_CHECKED;

ember_status em_svg_curve(const struct em_report_curve *c, struct em_buf *out) EMBER_CHECKED;

// Load of one layer's experts over training; experts from top to bottom, steps from left to right.
ember_status em_svg_load(const struct em_report *r, const struct em_report_layer *l,
                         struct em_buf *out) EMBER_CHECKED;
// Labels by experts: where the tokens of each label go.
struct em_share_map {
    const char *const *name; // [rows]
    size_t rows;
    const double *share; // [rows][E], em_expert_share
};
ember_status em_svg_shares(const struct em_share_map *map, const struct em_report_layer *l,
                           struct em_buf *out) EMBER_CHECKED;
// Experts by experts: which ones share tokens.
ember_status em_svg_coactivation(const struct em_report_layer *l, struct em_buf *out) EMBER_CHECKED;
// Experts by experts: how alike they are, -1..1, `what` being compared.
ember_status em_svg_similarity(const struct em_report_layer *l, const double *similarity,
                               const char *what, struct em_buf *out) EMBER_CHECKED;
// What the colours of shares mean, and those of similarities.
ember_status em_svg_levels(struct em_buf *out) EMBER_CHECKED;
ember_status em_svg_likeness(struct em_buf *out) EMBER_CHECKED;

#endif
