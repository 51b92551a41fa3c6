#include <ctype.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "report/markup.h"
#include "report/report.h"
#include "report/report_sample.h"
#include "report/svg.h"

static void expect_ok(ember_status status)
{
    if (status != EMBER_OK) fail_msg("%s: %s", ember_status_name(status), ember_last_error());
}

static struct em_buf page_of(const struct em_report *r)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    expect_ok(em_report_html(r, &b));
    return b;
}

static size_t occurrences(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, part)); s += strlen(part))
        n++;
    return n;
}

static void expect_part(const char *text, const char *part, size_t times)
{
    const size_t n = occurrences(text, part);
    if (n != times) fail_msg("%zu times, not %zu: %s", n, times, part);
}

// A page is well formed when every element opened is closed in turn, and every attribute is quoted.
static void expect_well_formed(const char *s)
{
    char stack[64][16];
    size_t depth = 0;
    assert_int_equal(strncmp(s, "<!doctype html>", 15), 0);
    for (s += 15; *s; s++) {
        if (*s == '>') fail_msg("a bare '>' before: %.40s", s);
        if (*s != '<') continue;
        const bool closes = s[1] == '/';
        char name[16] = {0};
        s += 1 + closes;
        for (size_t i = 0; isalnum((unsigned char)*s) && i < sizeof name - 1; s++)
            name[i++] = *s;
        if (!*name) fail_msg("a bare '<' before: %.40s", s);
        bool quoted = false, empty = false;
        for (; *s && (quoted || *s != '>'); s++) {
            if (*s == '"') quoted = !quoted;
            if (*s == '<') fail_msg("'<' inside a tag: %.40s", s);
            if (!quoted && *s == '=' && s[1] != '"') fail_msg("not quoted: %.40s", s);
            empty = *s == '/';
        }
        assert_true(*s == '>');
        if (closes) {
            if (!depth || strcmp(stack[depth - 1], name))
                fail_msg("</%s> closes nothing: %.60s", name, s);
            depth--;
        } else if (!empty && strcmp(name, "meta") && strcmp(name, "br")) {
            assert_true(depth < 64);
            strcpy(stack[depth++], name);
        }
        if (!closes && (!strcmp(name, "script") || !strcmp(name, "style"))) {
            s = strstr(s, closes ? "" : !strcmp(name, "script") ? "</script" : "</style");
            assert_non_null(s);
            s--;
        }
    }
    assert_int_equal(depth, 0);
}

static void expect_utf8(const struct em_buf *b)
{
    for (size_t i = 0; i < b->size;) {
        const size_t n = em_utf8_length(b->data + i, b->size - i);
        if (!n) fail_msg("not UTF-8 at %zu: %.30s", i, b->data + i);
        i += n;
    }
}

static void a_full_page_is_well_formed_and_self_contained(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    struct em_buf b = page_of(&s.report);
    expect_well_formed(b.data);
    expect_utf8(&b);
    // The name of the SVG namespace in the script is the only address, and it is not fetched.
    expect_part(b.data, "http", 2); // with http-equiv
    expect_part(b.data, "src=", 0);
    expect_part(b.data, "href", 0);
    expect_part(b.data, "url(", 0);
    expect_part(b.data, "@import", 0);
    expect_part(b.data, "default-src 'none'", 1);
    em_buf_deinit(&b);
}

static void text_of_the_run_cannot_become_markup(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    struct em_buf b = page_of(&s.report);
    expect_part(b.data, "<script>", 1); // the page's own
    expect_part(b.data, "<script>alert", 0);
    assert_true(
        occurrences(b.data, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;") >
        10);
    expect_part(b.data, "&lt;/pre&gt;&lt;script&gt;", 1); // the config
    expect_part(b.data, "\x1b", 0);
    em_buf_deinit(&b);
}

static void figures_that_are_missing_leave_no_trace_of_nan(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    const double none[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    const struct em_report_series series[] = {{"none", none, none, 3, false},
                                              {NULL, NULL, NULL, 0, false}};
    const struct em_report_curve curves[] = {
        {.title = "empty"},
        {.title = "none", .series = series, .count = 2},
        {.title = "log", .series = series, .count = 2, .log_y = true}};
    s.report.curves = curves;
    s.report.curve_count = 3;
    struct em_buf b = page_of(&s.report);
    expect_well_formed(b.data);
    expect_part(b.data, "nan", 0);
    expect_part(b.data, "\"inf", 0);
    expect_part(b.data, ">inf", 0);
    em_buf_deinit(&b);

    const struct em_report empty = {0};
    b = page_of(&empty);
    expect_well_formed(b.data);
    expect_part(b.data, "<h2>", 0);
    em_buf_deinit(&b);
}

static void the_table_has_the_figures_and_their_mean_by_bytes(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    struct em_buf b = page_of(&s.report);
    expect_part(
        b.data,
        "<th scope=\"row\">prose</th><td class=\"dim wide\">1,000</td><td class=\"dim "
        "wide\">3.33</td>"
        "<td class=\"dim\">8.250</td><td class=\"\">3.125</td><td class=\"best\">2.500</td>",
        1);
    // (2.5 * 1000 + 1.5 * 3000) / 4000 and (8.25 * 1000 + 8 * 3000) / 4000; xz is missing for one
    // domain.
    expect_part(b.data,
                "<th scope=\"row\">all</th><td class=\"dim wide\">4,000</td><td class=\"dim "
                "wide\">2.22</td>"
                "<td class=\"dim\">8.063</td><td class=\"\">–</td><td class=\"best\">1.750</td>",
                1);
    expect_part(b.data, "<td class=\"best\">0.250</td><td class=\"dim\">0.001</td>", 2);
    em_buf_deinit(&b);
    // Without any figure of xz its column goes.
    s.domains[0].xz_bpb = (double)NAN;
    b = page_of(&s.report);
    expect_part(b.data, "xz", 0);
    em_buf_deinit(&b);
}

static void map_cells_are_coloured_by_their_share_over_an_even_one(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    struct em_buf b;
    em_buf_init(&b, 0);
    const char *const names[] = {"prose", hostile};
    expect_ok(em_svg_shares(&(struct em_share_map){names, 2, s.share}, &s.layers[0], &b));
    expect_part(b.data, "<rect class=\"h16\"", 1); // 4x
    expect_part(b.data, "<rect class=\"h0\"", 3);  // nothing
    expect_part(b.data, "<rect class=\"h8\"", 1);  // 1x
    expect_part(b.data, "<rect class=\"h4\"", 2);  // 1/2
    expect_part(b.data, "<rect class=\"h12\"", 1); // 2x
    expect_part(b.data, "<title>prose: 100 % to expert 0, 4.00× an even split</title>", 1);
    em_buf_clear(&b);
    // An even load is one rectangle a row, all of level 0.
    expect_ok(em_svg_load(&s.report, &s.layers[0], &b));
    expect_part(b.data, "<path class=\"h8\"", 1);
    expect_part(b.data, "<path class=\"h", 1);
    expect_part(b.data, "H26z", SAMPLE_EXPERTS);
    em_buf_clear(&b);
    // Two of four experts: a third is chance; the diagonal is not drawn.
    expect_ok(em_svg_coactivation(&s.layers[0], &b));
    expect_part(b.data, "<path class=\"h", 1);
    expect_part(b.data, "<path class=\"h8\"", 1);
    em_buf_deinit(&b);
}

static void lines_run_through_their_points(void **state)
{
    (void)state;
    const double x[] = {0, 50, 100}, y[] = {0, 10, 5};
    const struct em_report_series line = {"a", x, y, 3, false};
    const struct em_report_curve curve = {.title = "t", .series = &line, .count = 1};
    struct em_buf b;
    em_buf_init(&b, 0);
    expect_ok(em_svg_curve(&curve, &b));
    // Plot: x 48..470, y 216 (0) up to 14 (10).
    expect_part(b.data, "d=\"M48 216L259 14L470 115\"", 1);
    expect_part(b.data, "data-x0=\"0\" data-x1=\"100\" data-y0=\"0\" data-y1=\"10\"", 1);
    expect_part(b.data, "<tspan class=\"v\">5</tspan>", 1);
    expect_part(b.data, "a from 0 to 5", 1);
    em_buf_clear(&b);
    // A gap lifts the pen.
    const double holes[] = {1, (double)NAN, 3};
    const struct em_report_series broken = {"a", x, holes, 3, false};
    expect_ok(
        em_svg_curve(&(struct em_report_curve){.title = "t", .series = &broken, .count = 1}, &b));
    expect_part(b.data, "data-name=\"a\" d=\"M48 216M470 14\"", 1);
    em_buf_deinit(&b);
}

static void a_page_is_the_same_under_any_locale(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    struct em_buf a = page_of(&s.report);
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE.utf8", "fr_FR.utf8"};
    bool found = false;
    for (size_t i = 0; i < 4 && !found; i++)
        found = setlocale(LC_ALL, names[i]) != NULL;
    if (!found) {
        em_buf_deinit(&a);
        skip(); // no locale with a decimal comma is installed
    }
    struct em_buf b = page_of(&s.report);
    setlocale(LC_ALL, "C");
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    em_buf_deinit(&a);
    em_buf_deinit(&b);
}

static void many_experts_and_steps_make_a_page_of_moderate_size(void **state)
{
    (void)state;
    enum { E = 64, N = 5000, LAYERS = 12 };
    struct sample s;
    sample_fill(&s);
    double *load = em_calloc((size_t)N * E, sizeof *load), *steps = em_calloc(N, sizeof *steps);
    double *y = em_calloc(N, sizeof *y);
    assert_true(load && steps && y);
    for (size_t i = 0; i < N; i++) {
        steps[i] = (double)i;
        y[i] = (double)(i * 7919 % 1000);
        for (size_t e = 0; e < E; e++)
            load[i * E + e] = (double)((i + e * 31) % 7) / (3 * E);
    }
    struct em_report_layer layers[LAYERS];
    for (size_t i = 0; i < LAYERS; i++)
        layers[i] = (struct em_report_layer){.layer = i, .experts = E, .active = 4, .load = load};
    const struct em_report_series line = {"a", steps, y, N, false};
    const struct em_report_curve curve = {.title = "t", .series = &line, .count = 1};
    struct em_report r = {.curves = &curve,
                          .curve_count = 1,
                          .load_steps = steps,
                          .load_count = N,
                          .layers = layers,
                          .layer_count = LAYERS};
    struct em_buf b = page_of(&r);
    expect_well_formed(b.data);
    assert_true(b.size < 4u << 20);
    em_buf_deinit(&b);
    em_free(load);
    em_free(steps);
    em_free(y);
}

static void files_are_written_and_json_reads_back(void **state)
{
    (void)state;
    char dir[] = "page_test.XXXXXX", html[64], json[64];
    assert_non_null(mkdtemp(dir));
    snprintf(html, sizeof html, "%s/report.html", dir);
    snprintf(json, sizeof json, "%s/report.json", dir);
    struct sample s;
    sample_fill(&s);
    expect_ok(em_report_write_html(&s.report, html));
    expect_ok(em_report_write_json(&s.report, json));
    struct em_buf file, page = page_of(&s.report);
    em_buf_init(&file, 0);
    expect_ok(em_read_file(html, 0, &file));
    assert_int_equal(file.size, page.size);
    assert_memory_equal(file.data, page.data, page.size);
    em_buf_deinit(&file);
    em_buf_deinit(&page);
    json_t *root;
    expect_ok(em_json_read(json, 0, 0, &root));
    const json_t *curves = json_object_get(root, "curves");
    assert_int_equal(json_array_size(curves), 2);
    const json_t *series = json_array_get(json_object_get(json_array_get(curves, 0), "series"), 0);
    const json_t *y = json_object_get(series, "y");
    assert_int_equal(json_array_size(y), SAMPLE_STEPS);
    assert_true(json_real_value(json_array_get(y, 5)) == s.raw[5]);
    assert_true(json_is_null(json_array_get(y, 20)));
    const json_t *layer = json_array_get(json_object_get(root, "layers"), 0);
    assert_true(json_real_value(json_object_get(json_object_get(layer, "nmi_domain"), "value")) ==
                0.25);
    assert_true(json_is_null(json_object_get(json_object_get(layer, "nmi_token"), "value")));
    const json_t *share = json_array_get(json_object_get(layer, "domain_share"), 1);
    assert_true(json_real_value(json_array_get(share, 2)) == 0.5);
    assert_true(json_is_object(json_object_get(root, "config")));
    const json_t *domain = json_array_get(json_object_get(root, "domains"), 0);
    assert_string_equal(json_string_value(json_object_get(domain, "domain")), "prose");
    assert_int_equal(json_integer_value(json_object_get(domain, "bytes")), 1000);
    json_decref(root);
    // A place that cannot be written is an error with its path.
    snprintf(html, sizeof html, "%s/none/report.html", dir);
    assert_int_equal(em_report_write_html(&s.report, html), EMBER_E_IO);
    assert_non_null(strstr(ember_last_error(), html));
    expect_ok(em_remove_tree(dir));
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    char dir[] = "page_test.XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/r", dir);
    for (int json = 0; json < 2; json++) {
        size_t n = 1;
        for (bool done = false; !done; n += json ? 1 + n / 8 : 1) {
            assert_true(n < 100000);
            em_alloc_fail_at(n, 0);
            const ember_status status = json ? em_report_write_json(&s.report, path)
                                             : em_report_write_html(&s.report, path);
            em_alloc_fail_at(0, 0);
            done = status == EMBER_OK;
            if (!done && status != EMBER_E_NOMEM) fail_msg("%zu: %s", n, ember_last_error());
        }
        assert_true(n > 5);
    }
    expect_ok(em_remove_tree(dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_page_is_well_formed_and_self_contained),
        cmocka_unit_test(text_of_the_run_cannot_become_markup),
        cmocka_unit_test(figures_that_are_missing_leave_no_trace_of_nan),
        cmocka_unit_test(the_table_has_the_figures_and_their_mean_by_bytes),
        cmocka_unit_test(map_cells_are_coloured_by_their_share_over_an_even_one),
        cmocka_unit_test(lines_run_through_their_points),
        cmocka_unit_test(a_page_is_the_same_under_any_locale),
        cmocka_unit_test(many_experts_and_steps_make_a_page_of_moderate_size),
        cmocka_unit_test(files_are_written_and_json_reads_back),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
