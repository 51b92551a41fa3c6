#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report/report.h"
#include "report/scale.h"
#include "report/xz.h"

static void figures_are_short_and_right(void **state)
{
    (void)state;
    const struct {
        double v;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {-2.5, "-2.5"},
                 {2.3125, "2.313"},
                 {0.25, "0.25"},
                 {0.0031, "0.0031"},
                 {0.00025, "2.5e-4"},
                 {3e-5, "3e-5"},
                 {9.96e-4, "1e-3"},
                 {12.345, "12.35"},
                 {123.456, "123.5"},
                 {1234.5, "1235"},
                 {9999, "9999"},
                 {12345, "12.3k"},
                 {3.4e6, "3400k"},
                 {3.4e7, "34M"},
                 {1e15, "1e15"},
                 {-1.5e20, "-1.5e20"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[EM_FIGURE];
        assert_string_equal(em_figure(cases[i].v, out), cases[i].text);
    }
    char out[EM_FIGURE];
    assert_string_equal(em_figure((double)NAN, out), "–");
    assert_string_equal(em_figure(1e-310, out), "0");
    assert_string_equal(em_decimal(2.5, 3, out), "2.500");
    assert_string_equal(em_decimal(-0.0004, 3, out), "0.000");
    assert_string_equal(em_decimal(0.9996, 3, out), "1.000");
    assert_string_equal(em_bytes(0, out), "0 B");
    assert_string_equal(em_bytes(4404412, out), "4.4 MB");
    assert_string_equal(em_bytes(999499, out), "999 kB");
    assert_string_equal(em_percent(0.123, out), "12");
    assert_string_equal(em_percent(0.004, out), "0.4");
    assert_string_equal(em_percent(0, out), "0");
}

static void axes_hold_their_data_and_have_round_ticks(void **state)
{
    (void)state;
    const double ranges[][2] = {{0, 10},
                                {1.7, 9.2},
                                {-3, 4},
                                {5, 5},
                                {0, 0},
                                {1e-300, 1},
                                {-1e308, 1e308},
                                {1e-310, 2e-310},
                                {7, -7},
                                {1e9, 1e9 + 1},
                                {-0.3, -0.1},
                                {(double)NAN, 3},
                                {0, (double)INFINITY}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (int log = 0; log < 2; log++) {
            struct em_axis a;
            em_axis_fit(&a, ranges[i][0], ranges[i][1], 5, log);
            assert_true(isfinite(a.lo) && isfinite(a.hi) && a.lo < a.hi);
            assert_true(a.tick_count <= EM_TICKS_MAX);
            if (isfinite(ranges[i][0]) && isfinite(ranges[i][1]) && ranges[i][0] <= ranges[i][1] &&
                fabs(ranges[i][1]) < 1e300) {
                assert_true(a.lo <= ranges[i][0] && a.hi >= ranges[i][1]);
                assert_true(em_axis_place(&a, ranges[i][0]) >= -1e-9);
                assert_true(em_axis_place(&a, ranges[i][1]) <= 1 + 1e-9);
            }
        }
    struct em_axis a;
    em_axis_fit(&a, 1.7, 9.2, 5, false);
    assert_true(a.lo == 0 && a.hi == 10 && a.tick_count == 6 && a.tick[1] == 2);
    em_axis_fit(&a, 0.5, 80, 5, true);
    assert_true(a.log && a.tick_count == 2 && a.tick[0] == 1 && fabs(a.tick[1] - 10) < 1e-12);
    assert_true(fabs(em_axis_place(&a, sqrt(0.5 * 80)) - 0.5) < 1e-12);
}

static void thinning_keeps_ends_and_extremes(void **state)
{
    (void)state;
    enum { N = 10007 };
    double y[N];
    size_t keep[N];
    for (size_t i = 0; i < N; i++)
        y[i] = sin((double)i / 500);
    y[1234] = 50;
    y[8000] = -50;
    y[9000] = (double)NAN;
    const size_t n = em_thin(y, N, 700, keep);
    assert_true(n <= 700 && n > 300);
    assert_int_equal(keep[0], 0);
    assert_int_equal(keep[n - 1], N - 1);
    bool high = false, low = false;
    for (size_t i = 0; i < n; i++) {
        if (i) assert_true(keep[i] > keep[i - 1]);
        high = high || keep[i] == 1234;
        low = low || keep[i] == 8000;
    }
    assert_true(high && low);
    assert_int_equal(em_thin(y, 10, 700, keep), 10);
    assert_int_equal(em_thin(y, 0, 700, keep), 0);
}

static void levels_are_symmetric_around_an_even_share(void **state)
{
    (void)state;
    assert_int_equal(em_level(1), 0);
    assert_int_equal(em_level(2), EM_LEVELS / 2);
    assert_int_equal(em_level(0.5), -EM_LEVELS / 2);
    assert_int_equal(em_level(4), EM_LEVELS);
    assert_int_equal(em_level(64), EM_LEVELS);
    assert_int_equal(em_level(0.25), -EM_LEVELS);
    assert_int_equal(em_level(0), -EM_LEVELS);
    assert_int_equal(em_level((double)NAN), -EM_LEVELS);
}

static double luminance(struct em_rgb c)
{
    const unsigned char v[] = {c.r, c.g, c.b};
    double sum = 0;
    for (size_t i = 0; i < 3; i++) {
        const double s = v[i] / 255.0, weight[] = {0.2126, 0.7152, 0.0722};
        sum += weight[i] * (s <= 0.04045 ? s / 12.92 : pow((s + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static double contrast(double a, double b)
{
    return a > b ? (a + 0.05) / (b + 0.05) : (b + 0.05) / (a + 0.05);
}

// What WCAG asks of text, on every colour of the maps; and lightness that falls (light page) or
// rises (dark page) with every level away from 0, so that no colour vision is needed to order them.
static void map_text_is_readable_and_levels_are_ordered(void **state)
{
    (void)state;
    for (int dark = 0; dark < 2; dark++) {
        for (int v = -EM_LEVELS; v <= EM_LEVELS; v++) {
            const double here = luminance(em_level_colour(v, dark));
            const double text = em_level_text_is_black(v, dark) ? 0 : 1;
            if (contrast(here, text) < 4.5)
                fail_msg("level %d, dark %d: contrast %.2f", v, dark, contrast(here, text));
            if (v == 0) continue;
            const double inner = luminance(em_level_colour(v > 0 ? v - 1 : v + 1, dark));
            assert_true(dark ? here > inner : here < inner);
        }
    }
}

static void smoothing_is_a_corrected_running_mean(void **state)
{
    (void)state;
    double y[] = {3, 3, (double)NAN, 3, 3}, out[5];
    em_smooth(y, 5, 10, out);
    for (size_t i = 0; i < 5; i++)
        assert_true(fabs(out[i] - 3) < 1e-12);
    const double steps[] = {0, 1};
    em_smooth(steps, 2, 1, out);
    assert_true(out[0] == 0 && fabs(out[1] - 1 / (1 + exp(-1))) < 1e-12);
    em_smooth(steps, 2, 0, out);
    assert_true(out[1] == 1);
}

static void xz_is_sized_or_refused(void **state)
{
    (void)state;
    uint64_t size = 77;
    char text[4096];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "abcd"[i % 4];
    const ember_status status = em_xz_size(text, sizeof text, &size);
    if (!em_xz_available()) {
        assert_int_equal(status, EMBER_E_UNSUPPORTED);
        assert_int_equal(size, 77);
        return;
    }
    assert_int_equal(status, EMBER_OK);
    assert_true(size > 60 && size < 140 && size % 4 == 0);
    assert_int_equal(em_xz_size(text, 0, &size), EMBER_OK);
    assert_int_equal(size, 32); // an empty .xz file: header, index, footer
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_short_and_right),
        cmocka_unit_test(axes_hold_their_data_and_have_round_ticks),
        cmocka_unit_test(thinning_keeps_ends_and_extremes),
        cmocka_unit_test(levels_are_symmetric_around_an_even_share),
        cmocka_unit_test(map_text_is_readable_and_levels_are_ordered),
        cmocka_unit_test(smoothing_is_a_corrected_running_mean),
        cmocka_unit_test(xz_is_sized_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
