#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "support/check.h"

struct heard {
    char lines[16][256];
    enum em_log_level levels[16];
    size_t count;
};

static void hear(void *context, enum em_log_level level, const char *line)
{
    struct heard *h = context;
    assert_true(h->count < 16);
    h->levels[h->count] = level;
    snprintf(h->lines[h->count++], sizeof h->lines[0], "%s", line);
}

static double fake_now;

static double fake_seconds(void)
{
    return fake_now;
}

static const struct em_clock fake_clock = {fake_seconds, fake_seconds};

static void lines_pass_the_threshold(void **state)
{
    (void)state;
    struct heard h = {0};
    em_log_to(hear, &h);
    em_log(EM_LOG_DEBUG, "not heard");
    em_note("note %d", 1);
    em_warn("careful with %s", "x\n\x1b[1my");
    em_log_threshold(EM_LOG_WARN);
    em_note("not heard");
    em_progress(true, "not heard");
    em_warn("still");
    em_log_threshold(EM_LOG_NOTE);
    em_log_to(NULL, NULL);
    assert_int_equal(h.count, 3);
    assert_string_equal(h.lines[0], "note 1");
    assert_string_equal(h.lines[1], "warning: careful with x ?[1my");
    assert_int_equal(h.levels[1], EM_LOG_WARN);
    assert_string_equal(h.lines[2], "warning: still");
}

static void progress_without_a_terminal_is_rare(void **state)
{
    (void)state;
    struct heard h = {0};
    em_clock_use(&fake_clock);
    em_log_to(hear, &h);
    for (int i = 0; i <= 250; i++) {
        fake_now = 100 + 0.1 * i;
        em_progress(false, "step %d", i);
    }
    em_progress(true, "step 251");
    em_progress_every(1);
    fake_now += 0.5;
    em_progress(false, "again"); // after the end a new run begins: shown at once
    em_progress(false, "not yet");
    em_progress_every(10);
    em_progress(true, "end");
    em_log_to(NULL, NULL);
    em_clock_use(NULL);
    const char *expected[] = {"step 0", "step 100", "step 200", "step 251", "again", "end"};
    assert_int_equal(h.count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(h.lines[i], expected[i]);
}

// What a person sees: stderr is caught in a file, which is no terminal.
static void stderr_gets_whole_lines(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "stderr");
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    em_note("one");
    em_progress(false, "two");
    em_progress(true, "three");
    em_warn("four");
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(path, 0, &b));
    assert_string_equal(b.data, "one\ntwo\nthree\nwarning: four\n");
    em_buf_deinit(&b);
}

// On a terminal (the other end of a pseudo terminal is read here).
static void a_terminal_is_redrawn(void **state)
{
    (void)state;
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) skip();
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    const char *name = ptsname(master);
    if (!name || !freopen(name, "w", stderr)) skip();
    em_clock_use(&fake_clock);
    fake_now = 1000;
    em_progress(false, "10 %%");
    fake_now += 0.05;
    em_progress(false, "too soon");
    fake_now += 0.2;
    em_progress(false, "20 %%");
    em_note("a note");
    em_progress(true, "done");
    em_clock_use(NULL);
    fflush(stderr);
    char text[256];
    size_t used = 0;
    const char *expected =
        "\r\033[K10 %\r\033[K20 %\r\033[Ka note\r\n\r\033[Kdone\r\n"; // terminals add \r
    while (used < strlen(expected)) {
        const ssize_t got = read(master, text + used, sizeof text - 1 - used);
        if (got <= 0) break;
        used += (size_t)got;
    }
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(master);
    text[used] = 0;
    assert_string_equal(text, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_pass_the_threshold),
        cmocka_unit_test(progress_without_a_terminal_is_rare),
        cmocka_unit_test(stderr_gets_whole_lines),
        cmocka_unit_test(a_terminal_is_redrawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
