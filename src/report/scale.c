#include "report/scale.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// 1, 2 or 5 times a power of ten, the least that is not below `raw`.
static double round_step(double raw)
{
    const double power = pow(10, floor(log10(raw)));
    const double steps[] = {1, 2, 5};
    for (size_t i = 0; i < 3; i++)
        if (steps[i] * power >= raw * (1 - 1e-9)) return steps[i] * power;
    return 10 * power;
}

static void log_ticks(struct em_axis *a)
{
    const int first = (int)floor(log10(a->lo) + 1e-9), last = (int)ceil(log10(a->hi) - 1e-9);
    const int every = (last - first) / 8 + 1;
    // The fewer decades, the more ticks in each.
    static const double one[] = {1}, three[] = {1, 2, 5}, seven[] = {1, 1.5, 2, 3, 4, 5, 7};
    const bool narrow = a->hi / a->lo < 12, middle = a->hi / a->lo < 150;
    const double *in_decade = narrow ? seven : middle ? three : one;
    const size_t parts = narrow ? 7 : middle ? 3 : 1;
    for (int d = first; d <= last; d += every)
        for (size_t i = 0; i < parts && a->tick_count < EM_TICKS_MAX; i++) {
            const double v = in_decade[i] * pow(10, d);
            if (v >= a->lo * (1 - 1e-9) && v <= a->hi * (1 + 1e-9)) a->tick[a->tick_count++] = v;
        }
}

void em_axis_fit(struct em_axis *a, double lo, double hi, size_t target, bool log)
{
    *a = (struct em_axis){0};
    if (!isfinite(lo) || !isfinite(hi) || lo > hi) {
        lo = 0;
        hi = 1;
    }
    // Differences past the largest double, and ranges too narrow for steps, are widened or cut.
    lo = fmax(lo, -1e300);
    hi = fmin(hi, 1e300);
    if (lo > hi) lo = hi = 0;
    if (hi - lo <= 1e-12 * fmax(fabs(lo), fabs(hi))) {
        const double half = lo == 0 ? 0.5 : fabs(lo) * 0.1;
        lo = log && lo > 0 ? lo / 2 : lo - half;
        hi = log && hi > 0 ? hi * 2 : hi + half;
    }
    a->log = log && lo > 0 && hi > 0;
    if (a->log) {
        a->lo = lo;
        a->hi = hi;
        log_ticks(a);
        return;
    }
    if (target < 2) target = 2;
    if (target > EM_TICKS_MAX - 2) target = EM_TICKS_MAX - 2;
    const double step = round_step((hi - lo) / (double)target);
    if (!(step > 0) || !isfinite(step)) { // a range of subnormal numbers
        a->lo = lo;
        a->hi = hi;
        return;
    }
    const double first = floor(lo / step + 1e-9), last = ceil(hi / step - 1e-9);
    a->lo = fmin(first * step, lo);
    a->hi = fmax(last * step, hi);
    for (double i = first; i <= last && a->tick_count < EM_TICKS_MAX; i++)
        a->tick[a->tick_count++] = i * step;
}

double em_axis_place(const struct em_axis *a, double v)
{
    if (a->log) return v > 0 ? log(v / a->lo) / log(a->hi / a->lo) : 0;
    return (v - a->lo) / (a->hi - a->lo);
}

// Fixed point without printf's %f, whose decimal point is the locale's. |v| < 1e15, digits <= 6.
// "1.50" reads as a measurement, "1.5" as a tick: zeros at the end go where `strip` says so.
static void fixed(double v, int digits, bool strip, char out[EM_FIGURE])
{
    long long unit = 1;
    for (int i = 0; i < digits; i++)
        unit *= 10;
    long long n = llround(fabs(v) * (double)unit);
    const char *sign = v < 0 && n ? "-" : "";
    while (strip && digits > 0 && n % 10 == 0) {
        n /= 10;
        unit /= 10;
        digits--;
    }
    if (digits)
        snprintf(out, EM_FIGURE, "%s%lld.%0*lld", sign, n / unit, digits, n % unit);
    else
        snprintf(out, EM_FIGURE, "%s%lld", sign, n);
}

static void scientific(double v, char out[EM_FIGURE])
{
    int exponent = (int)floor(log10(fabs(v)));
    long long mantissa = llround(fabs(v) / pow(10, exponent) * 10);
    if (mantissa >= 100) {
        mantissa /= 10;
        exponent++;
    }
    const char *sign = v < 0 ? "-" : "";
    if (mantissa % 10)
        snprintf(out, EM_FIGURE, "%s%lld.%llde%d", sign, mantissa / 10, mantissa % 10, exponent);
    else
        snprintf(out, EM_FIGURE, "%s%llde%d", sign, mantissa / 10, exponent);
}

const char *em_figure(double v, char out[EM_FIGURE])
{
    static const char *const suffix[] = {"", "k", "M", "G", "T"};
    if (!isfinite(v)) return isnan(v) ? "–" : v > 0 ? "∞" : "−∞";
    const double size = fabs(v);
    if (size == 0) return "0";
    if (size < 1e-300 || size >= 1e15 || size < 1e-3) {
        if (size < 1e-300) return "0";
        scientific(v, out);
        return out;
    }
    size_t s = 0;
    double scaled = v;
    while (fabs(scaled) >= 9999.5 && s + 1 < sizeof suffix / sizeof *suffix) {
        scaled /= 1000;
        s++;
    }
    const double left = fabs(scaled);
    const int digits = left >= 1000 ? 0 : left >= 100 ? 1 : left >= 10 ? 2 : left >= 0.1 ? 3 : 4;
    fixed(scaled, s && digits > 1 ? digits - 1 : digits, true, out);
    const size_t n = strlen(out);
    snprintf(out + n, EM_FIGURE - n, "%s", suffix[s]);
    return out;
}

const char *em_decimal(double v, int digits, char out[EM_FIGURE])
{
    if (!isfinite(v) || fabs(v) >= 1e12) return em_figure(v, out);
    fixed(v, digits, false, out);
    return out;
}

const char *em_bytes(double v, char out[EM_FIGURE])
{
    static const char *const suffix[] = {"B", "kB", "MB", "GB", "TB"};
    if (!(v >= 0) || v >= 1e18) return "–";
    size_t s = 0;
    while (v >= 999.5 && s + 1 < sizeof suffix / sizeof *suffix) {
        v /= 1000;
        s++;
    }
    fixed(v, s && v < 9.95 ? 1 : 0, false, out);
    const size_t n = strlen(out);
    snprintf(out + n, EM_FIGURE - n, " %s", suffix[s]);
    return out;
}

const char *em_percent(double v, char out[EM_FIGURE])
{
    if (!isfinite(v)) return "–";
    const double p = v * 100;
    fixed(fmin(p, 1e9), p > 0 && p < 0.95 ? 1 : 0, false, out);
    return out;
}

size_t em_thin(const double *y, size_t count, size_t limit, size_t *keep)
{
    size_t n = 0;
    if (count <= limit || limit < 4) {
        for (; n < count; n++)
            keep[n] = n;
        return n;
    }
    const size_t stretches = limit / 4;
    for (size_t s = 0; s < stretches; s++) {
        // count * s stays far from wrapping: both are numbers of points in memory, s < limit.
        const size_t first = count / stretches * s + count % stretches * s / stretches;
        const size_t end = count / stretches * (s + 1) + count % stretches * (s + 1) / stretches;
        size_t low = first, high = first;
        for (size_t i = first; i < end; i++) {
            if (y[i] < y[low] || isnan(y[low])) low = i;
            if (y[i] > y[high] || isnan(y[high])) high = i;
        }
        const size_t points[] = {first, low < high ? low : high, low < high ? high : low, end - 1};
        for (size_t i = 0; i < 4; i++)
            if (!n || points[i] > keep[n - 1]) keep[n++] = points[i];
    }
    return n;
}

int em_level(double ratio)
{
    if (!(ratio > 0)) return -EM_LEVELS;
    const double level = log2(ratio) * EM_LEVELS / 2;
    return (int)lround(fmin(fmax(level, -EM_LEVELS), EM_LEVELS));
}

static unsigned char channel(double linear)
{
    const double v = fmin(fmax(linear, 0), 1);
    const double s = v <= 0.0031308 ? 12.92 * v : 1.055 * pow(v, 1 / 2.4) - 0.055;
    return (unsigned char)lround(s * 255);
}

// OKLab (Ottosson 2020) in polar form to sRGB: equal steps of it look equal.
static struct em_rgb oklch(double L, double C, double hue_degrees)
{
    const double h = hue_degrees * (3.14159265358979323846 / 180), a = C * cos(h), b = C * sin(h);
    const double l = pow(L + 0.3963377774 * a + 0.2158037573 * b, 3);
    const double m = pow(L - 0.1055613458 * a - 0.0638541728 * b, 3);
    const double s = pow(L - 0.0894841775 * a - 1.2914855480 * b, 3);
    return (struct em_rgb){channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
                           channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
                           channel(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

struct em_rgb em_level_colour(int level, bool dark)
{
    const double t = fmin(fabs((double)level) / EM_LEVELS, 1);
    const double hue = level < 0 ? 252 : 52;
    // Orange ends darker than blue on a light page (and lighter on a dark one), so that the two
    // ends differ in lightness too.
    if (dark) return oklch(0.27 + t * (level < 0 ? 0.33 : 0.50), 0.004 + t * 0.125, hue);
    return oklch(0.965 - t * (level < 0 ? 0.30 : 0.41), 0.004 + t * (level < 0 ? 0.115 : 0.145),
                 hue);
}

static double linear(unsigned char v)
{
    const double s = v / 255.0;
    return s <= 0.04045 ? s / 12.92 : pow((s + 0.055) / 1.055, 2.4);
}

bool em_level_text_is_black(int level, bool dark)
{
    const struct em_rgb c = em_level_colour(level, dark);
    const double luminance = 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
    return luminance > 0.1791; // sqrt(1.05 * 0.05) - 0.05: where both contrasts are equal, 4.58
}
