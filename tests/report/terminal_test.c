#include <fcntl.h>
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
#include "report/markup.h"
#include "report/report.h"
#include "report/report_sample.h"
#include "report/scale.h"

static void expect_ok(ember_status status)
{
    if (status != EMBER_OK) fail_msg("%s: %s", ember_status_name(status), ember_last_error());
}

static struct em_buf sketch_of(struct em_terminal t)
{
    struct sample s;
    struct em_buf b;
    sample_fill(&s);
    em_buf_init(&b, 0);
    expect_ok(em_report_terminal(&s.report, t, &b));
    return b;
}

static void ascii_is_ascii_and_lines_fit(void **state)
{
    (void)state;
    for (size_t columns = 80; columns < 200; columns += 17)
        for (int unicode = 0; unicode < 2; unicode++) {
            struct em_buf b = sketch_of((struct em_terminal){columns, unicode, false});
            size_t width = 0;
            for (size_t i = 0; i < b.size; i++) {
                const unsigned char c = (unsigned char)b.data[i];
                if (!unicode) assert_true(c < 0x80);
                assert_true(c >= 0x20 || c == '\n'); // nothing that steers the terminal
                width = c == '\n' ? 0 : width + ((c & 0xc0) != 0x80);
                if (width > columns) fail_msg("a line of more than %zu columns", columns);
            }
            em_buf_deinit(&b);
        }
}

static void colour_is_only_where_asked(void **state)
{
    (void)state;
    struct em_buf plain = sketch_of((struct em_terminal){80, true, false});
    struct em_buf coloured = sketch_of((struct em_terminal){80, true, true});
    assert_null(strchr(plain.data, '\033'));
    assert_non_null(strstr(coloured.data, "\033[48;5;"));
    // What the run's text brings along is never a control sequence.
    assert_null(strstr(coloured.data, "\033[31m"));
    em_buf_deinit(&plain);
    em_buf_deinit(&coloured);
}

static void the_line_falls_from_the_left_to_the_right(void **state)
{
    (void)state;
    const double x[] = {0, 100}, y[] = {10, 0};
    const struct em_report_series line = {"a", x, y, 2, false};
    const struct em_report_curve curve = {.title = "t", .series = &line, .count = 1};
    struct em_buf b;
    em_buf_init(&b, 0);
    expect_ok(em_sketch_curve(&curve, (struct em_terminal){80, false, false}, &b));
    // Each row's first mark is further right than the row's above, from the first to the last
    // column.
    const char *row = strchr(b.data, '\n') + 1;
    long last = -1, first_mark = -1;
    for (int i = 0; i < 10; i++) {
        const char *end = strchr(row, '\n'), *bar = memchr(row, '|', (size_t)(end - row));
        assert_non_null(bar);
        const char *mark = memchr(bar, '*', (size_t)(end - bar));
        assert_non_null(mark);
        assert_true(mark - bar > last);
        last = mark - bar;
        if (i == 0) first_mark = last;
        if (i == 9) assert_true(end[-1] == '*');
        row = end + 1;
    }
    assert_int_equal(first_mark, 1);
    assert_non_null(strstr(b.data, "     10 |"));
    assert_non_null(strstr(b.data, "      0 |"));
    assert_non_null(strstr(b.data, "* a 0 "));
    em_buf_deinit(&b);
}

static void the_table_shows_every_domain(void **state)
{
    (void)state;
    struct sample s;
    struct em_buf b;
    sample_fill(&s);
    s.domains[1].name = "dna";
    em_buf_init(&b, 0);
    expect_ok(em_sketch_domains(&s.report, (struct em_terminal){80, false, false}, &b));
    assert_string_equal(b.data, "Held-out text, bits per byte\n"
                                "domain                  bytes  untrained    xz -9e  this model\n"
                                "prose                    1000      8.250     3.125       2.500\n"
                                "dna                      3000      8.000         -       1.500\n");
    em_buf_deinit(&b);
}

static void no_color_and_the_locale_are_honoured(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    setenv("LC_ALL", "C.UTF-8", 1);
    setenv("TERM", "xterm-256color", 1);
    struct em_terminal t = em_terminal_of(ends[1]);
    assert_int_equal(t.columns, 80);
    assert_true(t.unicode);
    assert_false(t.colour); // a pipe
    setenv("LC_ALL", "C", 1);
    assert_false(em_terminal_of(ends[1]).unicode);
    close(ends[0]);
    close(ends[1]);
    // A pseudo terminal shows colour unless asked not to.
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) skip();
    const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (terminal < 0) skip();
    unsetenv("NO_COLOR");
    assert_true(em_terminal_of(terminal).colour);
    setenv("NO_COLOR", "1", 1);
    assert_false(em_terminal_of(terminal).colour);
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    assert_false(em_terminal_of(terminal).colour);
    close(terminal);
    close(master);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct sample s;
    sample_fill(&s);
    size_t n = 1;
    for (bool done = false; !done; n++) {
        struct em_buf b;
        em_buf_init(&b, 0);
        assert_true(n < 10000);
        em_alloc_fail_at(n, 0);
        const ember_status status =
            em_report_terminal(&s.report, (struct em_terminal){80, true, true}, &b);
        em_alloc_fail_at(0, 0);
        em_buf_deinit(&b);
        done = status == EMBER_OK;
        if (!done) assert_int_equal(status, EMBER_E_NOMEM);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ascii_is_ascii_and_lines_fit),
        cmocka_unit_test(colour_is_only_where_asked),
        cmocka_unit_test(the_line_falls_from_the_left_to_the_right),
        cmocka_unit_test(the_table_shows_every_domain),
        cmocka_unit_test(no_color_and_the_locale_are_honoured),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
