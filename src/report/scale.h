// From figures to places on a picture: ticks, short numbers, thinning of long series, levels of
// maps.
#ifndef EM_REPORT_SCALE_H
#define EM_REPORT_SCALE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/fail.h"

enum { EM_TICKS_MAX = 12 };

// An axis from the data's range: its ends, and round values between them.
struct em_axis {
    double lo, hi; // lo < hi; of a logarithmic axis the values, not their logarithms
    bool log;
    double tick[EM_TICKS_MAX];
    size_t tick_count;
};
// About `target` ticks. Any input gives an axis: without a finite range it is 0..1; a logarithmic
// axis without positive values becomes linear.
void em_axis_fit(struct em_axis *a, double lo, double hi, size_t target, bool log);
double em_axis_place(const struct em_axis *a, double v); // 0 at lo, 1 at hi

// "0.0031", "1.25", "12.4k", "3.1M", "2e-05"; "–" where there is no figure.
enum { EM_FIGURE = 40 };
const char *em_figure(double v, char out[EM_FIGURE]);
const char *em_decimal(double v, int digits, char out[EM_FIGURE]); // "2.310"
const char *em_bytes(double v, char out[EM_FIGURE]);               // "4.2 MB", decimal
const char *em_percent(double v, char out[EM_FIGURE]); // 0.123 -> "12"; below 1 %: "0.4"

// Thins a series to at most about `limit` points and keeps its look: of each stretch the first, the
// lowest, the highest and the last. `keep` (at least `count` long) gets the indices; returns how
// many.
size_t em_thin(const double *y, size_t count, size_t limit, size_t *keep);

// The level of a share relative to chance: -EM_LEVELS at a quarter or less, 0 at 1x, EM_LEVELS at
// four times or more, even steps of log2 between.
enum { EM_LEVELS = 8 };
int em_level(double ratio);

// The colours of the levels on a light and a dark page, blue below chance and orange above it: told
// apart by lightness and hue with any colour vision.
struct em_rgb {
    unsigned char r, g, b;
};
struct em_rgb em_level_colour(int level, bool dark);
// Text that reads on it, by WCAG's 4.5 to 1: black, or else white.
bool em_level_text_is_black(int level, bool dark);

#endif
