// tools/demo.sh with a stand-in for the program: that it trains on the four domains, puts xz's
// figures beside the right ones, and shows a sample of each.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/io.h"

static void expect_ok(ember_status status)
{
    if (status != EMBER_OK) fail_msg("%s: %s", ember_status_name(status), ember_last_error());
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    expect_ok(em_write_file(path, text, strlen(text)));
}

// Writes what training leaves: figures laid out on one line or on many, and the held-out bytes.
static const char program[] = "#!/bin/sh\n"
                              "set -eu\n"
                              "echo \"$@\" >>\"$DEMO_DIR/calls\"\n"
                              "if [ \"$1\" = generate ]; then printf ' and so on'; exit 0; fi\n"
                              "while [ \"$1\" != --out ]; do shift; done\n"
                              "test ! -e \"$2\"\n"
                              "mkdir -p \"$2/logs/heldout\"\n"
                              "printf '%s' \"$EVAL\" >\"$2/logs/eval.json\"\n"
                              "head -c 10000 /dev/zero >\"$2/logs/heldout/prose.txt\"\n"
                              "printf '%s' abcdefgh >\"$2/logs/heldout/dna.txt\"\n";

static const char eval_compact[] = "{\"domains\":[{\"domain\":\"prose\",\"bytes\":10000,\"tokens\":"
                                   "3000,\"nats\":17328.7,\"bpb\":2.5,"
                                   "\"untrained_bpb\":8.125},{\"domain\":\"dna\",\"bytes\":8,"
                                   "\"tokens\":4,\"nats\":11.1,\"bpb\":2.0004,"
                                   "\"untrained_bpb\":null}]}";
static const char eval_indented[] =
    "{\n \"domains\": [\n  {\n   \"domain\": \"prose.txt\",\n   \"bytes\": 10000,\n"
    "   \"bpb\": 2.5,\n   \"untrained_bpb\": 8.125\n  },\n  {\n"
    "   \"domain\": \"dna.txt\",\n   \"bytes\": 8,\n   \"bpb\": 2.0004\n  }\n ]\n}\n";

struct fixture {
    char dir[128], data[160];
};

static int setup(void **state)
{
    static struct fixture f;
    snprintf(f.dir, sizeof f.dir, "/tmp/ember_demo_test.XXXXXX");
    if (!mkdtemp(f.dir)) return 1;
    snprintf(f.data, sizeof f.data, "%s/data", f.dir);
    expect_ok(em_make_directories(f.data));
    static const char *const names[] = {"prose.txt", "bible.txt", "c.txt", "dna.txt"};
    for (size_t i = 0; i < 4; i++)
        put(f.data, names[i], "text");
    put(f.dir, "ember", program);
    char path[160];
    snprintf(path, sizeof path, "%s/ember", f.dir);
    setenv("EMBER", path, 1);
    setenv("DEMO_DIR", f.dir, 1);
    *state = &f;
    return chmod(path, 0755);
}

static int teardown(void **state)
{
    return em_remove_tree(((struct fixture *)*state)->dir) != EMBER_OK;
}

static struct em_buf run(const char *arguments, int expected)
{
    char command[512];
    struct em_buf out;
    em_buf_init(&out, 0);
    snprintf(command, sizeof command, "sh %s/tools/demo.sh %s 2>&1", EMBER_SOURCE_DIR, arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, p));)
        expect_ok(em_buf_add(&out, chunk, n));
    const int status = pclose(p);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("demo.sh ended with %d:\n%s", status, out.data);
    return out;
}

static void expect_part(const struct em_buf *b, const char *part)
{
    if (!strstr(b->data, part)) fail_msg("missing:\n%s\nin:\n%s", part, b->data);
}

static void the_table_joins_figures_with_xz(void **state)
{
    const struct fixture *f = *state;
    const char *const layouts[] = {eval_compact, eval_indented};
    for (size_t i = 0; i < 2; i++) {
        setenv("EVAL", layouts[i], 1);
        struct em_buf out = run("", 0); // the second time a model is there already
        expect_part(&out, "domain     held-out bytes    untrained     xz -9e      Ember\n");
        // 10000 zeros are 132 bytes of .xz, eight letters 64 or 68.
        const char *prose = strstr(out.data, "prose               10000        8.125");
        assert_non_null(prose);
        double xz, ember;
        assert_int_equal(sscanf(prose + 38, "%lf %lf", &xz, &ember), 2);
        assert_true(xz > 0.08 && xz < 0.13 && ember == 2.5);
        const char *dna = strstr(out.data, "dna                     8            -");
        assert_non_null(dna);
        assert_int_equal(sscanf(dna + 38, "%lf %lf", &xz, &ember), 2);
        assert_true(xz >= 60 && xz <= 72 && ember == 2.0);
        expect_part(&out, "--- prose ---\nA hacker is a person who and so on\n");
        expect_part(&out, "--- dna ---\n");
        expect_part(&out, "/model/report.html");
        em_buf_deinit(&out);
    }
    char path[200];
    struct em_buf calls;
    em_buf_init(&calls, 0);
    snprintf(path, sizeof path, "%s/calls", f->dir);
    expect_ok(em_read_file(path, 0, &calls));
    expect_part(&calls, "train --preset tiny-moe --data ");
    expect_part(&calls, "/data/prose.txt ");
    expect_part(&calls, "/data/dna.txt --out ");
    expect_part(&calls, "--set train.minutes=4\n");
    em_buf_deinit(&calls);
}

static void minutes_and_failures_are_passed_on(void **state)
{
    (void)state;
    setenv("EVAL", eval_compact, 1);
    struct em_buf out = run("0.5", 0);
    expect_part(&out, "Training for 0.5 minutes");
    em_buf_deinit(&out);
    out = run("soon", 1);
    expect_part(&out, "demo: MINUTES is a number, not 'soon'");
    em_buf_deinit(&out);
    setenv("EVAL", "{}", 1);
    out = run("", 1);
    expect_part(&out, "eval.json has no domains");
    em_buf_deinit(&out);
    setenv("EMBER", "/nonexistent/ember", 1);
    out = run("", 1);
    expect_part(&out, "demo: /nonexistent/ember: no such program");
    em_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_table_joins_figures_with_xz, setup, teardown),
        cmocka_unit_test_setup_teardown(minutes_and_failures_are_passed_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
