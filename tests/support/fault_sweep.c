#include "support/fault_sweep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "support/full.h"

static char now[512];

void fault_sweep_case(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(now, sizeof now, format, args);
    va_end(args);
}

int fault_sweep_tell(void **state)
{
    (void)state;
    em_io_use(NULL);
    if (now[0]) print_error("the case was: %s\n", now);
    now[0] = '\0';
    return 0;
}

// ---- folders ----

static void copy_one(const char *from, const char *to)
{
    struct em_buf b = {0};
    CHECK_OK(em_read_file(from, 0, &b));
    CHECK_OK(em_write_file(to, b.data ? b.data : "", b.size));
    em_buf_deinit(&b);
}

static void copy_below(const char *from, const char *to)
{
    char **names, source[1024], target[1024];
    size_t count;
    CHECK_OK(em_make_directories(to));
    CHECK_OK(em_list_directory(from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        snprintf(source, sizeof source, "%s/%s", from, names[i]);
        snprintf(target, sizeof target, "%s/%s", to, names[i]);
        if (em_path_is_directory(source))
            copy_below(source, target);
        else
            copy_one(source, target);
    }
    em_names_free(names, count);
}

void fault_copy_tree(const char *from, const char *to)
{
    faults_begin(&(struct fault_plan){0}); // which does not wait for the disk
    CHECK_OK(em_remove_tree(to));
    copy_below(from, to);
    faults_end();
}

static void list_below(const char *dir, const char *below, struct em_buf *out)
{
    char **names, path[1024], name[1024];
    size_t count;
    CHECK_OK(em_list_directory(dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(name, sizeof name, "%s%s", below, names[i]);
        CHECK_OK(em_buf_printf(out, "%s\n", name));
        if (!em_path_is_directory(path)) continue;
        snprintf(name, sizeof name, "%s%s/", below, names[i]);
        list_below(path, name, out);
    }
    em_names_free(names, count);
}

char *fault_list_tree(const char *dir)
{
    struct em_buf b = {0};
    CHECK_OK(em_buf_puts(&b, ""));
    list_below(dir, "", &b);
    char *list = strdup(b.data);
    assert_non_null(list);
    em_buf_deinit(&b);
    return list;
}

bool fault_is_temporary(const char *name)
{
    const size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".tmp") == 0;
}

static bool has_line(const char *list, const char *line, size_t n)
{
    for (const char *p = list; *p; p += strcspn(p, "\n") + 1)
        if (strncmp(p, line, n) == 0 && p[n] == '\n') return true;
    return false;
}

// Fails the test for a name that neither list has.
static void check_names(const char *dir, const char *before, const char *after, const char *stays,
                        bool temporaries)
{
    char *found = fault_list_tree(dir), line[1024];
    for (const char *p = found; *p;) {
        const size_t n = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, p);
        p += n + 1;
        if (has_line(before, line, n) || has_line(after, line, n)) continue;
        if (stays && strstr(line, stays)) continue;
        // In a folder that is a temporary everything is.
        if (temporaries && (fault_is_temporary(line) || strstr(line, ".tmp/"))) continue;
        fail_msg("%s: %s was left behind", now, line);
    }
    free(found);
}

// ---- what both sweeps share ----

struct sweep {
    const struct fault_scenario *s;
    const char *template, *dir;
    char *names_before, *names_after;
    int version_before;
    size_t calls, cases, failures;
};

static void sweep_begin(struct sweep *w, const struct fault_scenario *s)
{
    const char *root = test_directory();
    *w = (struct sweep){.s = s};
    w->template = test_path(root, "before");
    w->dir = test_path(root, "folder");
    fault_sweep_case("%s: before", s->name);
    CHECK_OK(em_make_directories(w->template));
    if (s->before) s->before(w->template);
    fault_copy_tree(w->template, w->dir);
    w->names_before = fault_list_tree(w->dir);
    w->version_before = s->version(w->dir);
    assert_in_range(w->version_before, 0, 1);
    fault_sweep_case("%s: without a fault", s->name);
    faults_begin(&(struct fault_plan){0});
    const ember_status status = s->call(w->dir);
    w->calls = faults_calls();
    faults_end();
    CHECK_OK(status);
    assert_int_equal(s->version(w->dir), 2);
    w->names_after = fault_list_tree(w->dir);
    assert_true(w->calls > 4);
}

static void sweep_end(struct sweep *w, const char *what)
{
    print_message("%s: %zu calls, %zu cases of %s, %zu of them told\n", w->s->name, w->calls,
                  w->cases, what, w->failures);
    free(w->names_before);
    free(w->names_after);
    now[0] = '\0';
}

// The same call once more, on what the fault left.
static void check_again(struct sweep *w)
{
    faults_begin(&(struct fault_plan){0});
    const ember_status status = w->s->call(w->dir);
    faults_end();
    if (status != EMBER_OK) fail_msg("%s, then without a fault: %s", now, ember_last_error());
    const int version = w->s->version(w->dir);
    if (version != 2) fail_msg("%s, then without a fault: version %d", now, version);
}

static void check_version(struct sweep *w, ember_status status)
{
    const int version = w->s->version(w->dir);
    if (status == EMBER_OK ? version != 2 : version != 2 && version != w->version_before)
        fail_msg("%s: %s, and version %d is there", now, ember_status_name(status), version);
}

// ---- failing calls ----

enum way { NO_SPACE, BAD_DISK, QUOTA, INTERRUPTED, HALF, FULL, GONE, WAYS };

static const struct {
    const char *name;
    int error;
} ways[WAYS] = {{"ENOSPC", ENOSPC},      {"EIO", EIO},      {"EDQUOT", EDQUOT},
                {"EINTR", EINTR},        {"half of it", 0}, {"full from there", ENOSPC},
                {"gone from there", EIO}};

static struct fault_plan plan_of(enum way way, size_t k)
{
    struct fault_plan plan = {.fail_call = k, .error = ways[way].error};
    if (way == HALF) plan.only_half = true;
    if (way == GONE) plan.for_good = true;
    if (way == FULL) plan = (struct fault_plan){.full_from = k};
    return plan;
}

// What POSIX lets a signal interrupt; a close is done all the same.
static bool is_retried(enum fault_call kind)
{
    return kind == FAULT_OPEN || kind == FAULT_READ || kind == FAULT_PREAD || kind == FAULT_WRITE ||
           kind == FAULT_FSYNC || kind == FAULT_CLOSE || kind == FAULT_FTRUNCATE ||
           kind == FAULT_STATVFS || kind == FAULT_FLOCK;
}

// Whether a way keeps temporaries from being removed: the call that failed was removing one, or the
// disk does nothing any more.
static bool leaves_temporaries(enum way way, size_t k)
{
    const enum fault_call kind = faults_kind(k);
    return way == FULL || way == GONE || kind == FAULT_UNLINK || kind == FAULT_RMDIR ||
           strstr(faults_describe(k), ".removed.tmp");
}

// The message begins with the path of something in `path`, or of a folder around it.
static void check_message(const char *path, int error)
{
    const char *message = ember_last_error();
    const size_t n = strcspn(message, ":");
    const bool around = n > 0 && strncmp(message, path, n) == 0 && strchr("/", path[n]);
    if ((!around && !strstr(message, path)) || !strstr(message, strerror(error)))
        fail_msg("%s: the message lacks path or reason: %s", now, message);
}

// Whether this way came up at call k: a call that has no bytes has no half.
static bool fail_call(struct sweep *w, size_t k, enum way way)
{
    const struct fault_plan plan = plan_of(way, k);
    fault_copy_tree(w->template, w->dir);
    faults_begin(&plan);
    const ember_status status = w->s->call(w->dir);
    char message[1024];
    snprintf(message, sizeof message, "%s", ember_last_error());
    const bool struck = faults_struck();
    const enum fault_call kind = faults_kind(k);
    const bool temporaries = leaves_temporaries(way, k);
    fault_sweep_case("%s: %s: %s", w->s->name, faults_describe(k), ways[way].name);
    faults_end();
    if (status != EMBER_OK) {
        w->failures++;
        if (!struck) fail_msg("%s: failed without a fault: %s", now, message);
        if (way == HALF || (way == INTERRUPTED && is_retried(kind)))
            fail_msg("%s: was not gone on from: %s", now, message);
        if (status != EMBER_E_IO) fail_msg("%s: %s", now, message);
        (void)em_fail(status, "%s", message);
        check_message(w->dir, ways[way].error);
    }
    check_version(w, status);
    check_names(w->dir, w->names_before, w->names_after, w->s->stays, temporaries);
    check_again(w);
    check_names(w->dir, w->names_before, w->names_after, NULL, temporaries);
    w->cases++;
    return struck;
}

void fault_sweep_calls(const struct fault_scenario *s, size_t first)
{
    struct sweep w;
    sweep_begin(&w, s);
    for (size_t k = 1; k <= w.calls; k++) {
        if (!em_test_full() && k > first && (k - first) % 7) continue;
        const bool all = em_test_full() || k <= first / 4;
        for (enum way way = 0; way < WAYS; way++)
            if (all || (way + k) % WAYS < 2) fail_call(&w, k, way);
    }
    assert_true(w.failures > 0);
    sweep_end(&w, "failing calls");
}

// ---- power cuts ----

void fault_sweep_power(const struct fault_scenario *s, size_t outcomes)
{
    struct sweep w;
    sweep_begin(&w, s);
    if (em_test_full()) outcomes = 10 * outcomes > 50 ? 10 * outcomes : 50;
    for (size_t k = 1; k <= w.calls; k++)
        for (size_t i = 0; i < outcomes; i++) {
            // All names kept and none come up first, then chance; in CI they take turns.
            const uint64_t seed = em_test_full() && i < 2      ? i
                                  : (k * outcomes + i) % 5 < 2 ? (k * outcomes + i) % 5
                                                               : 2 + k * outcomes + i;
            fault_copy_tree(w.template, w.dir);
            faults_begin(&(struct fault_plan){.power_cut = k});
            const ember_status status = s->call(w.dir);
            fault_sweep_case("%s: the power is cut at %s, seed %llu", s->name, faults_describe(k),
                             (unsigned long long)seed);
            faults_power_up(seed);
            w.failures += status != EMBER_OK;
            check_version(&w, status);
            check_again(&w);
            w.cases++;
        }
    assert_true(w.failures > 0);
    sweep_end(&w, "power cuts");
}

// ---- readers ----

void fault_sweep_reads(const struct fault_reader *r)
{
    uint64_t whole = 0, read;
    size_t cases = 0, told = 0;
    faults_begin(&(struct fault_plan){0});
    const ember_status first = r->call(&whole);
    const size_t calls = faults_calls();
    faults_end();
    CHECK_OK(first);
    assert_true(calls > 2);
    for (size_t k = 1; k <= calls; k++)
        for (enum way way = 0; way < WAYS; way++) {
            if (way == FULL) continue; // it takes no space
            if (!em_test_full() && (way + k) % WAYS > 2) continue;
            const struct fault_plan plan = plan_of(way, k);
            faults_begin(&plan);
            read = 0;
            const ember_status status = r->call(&read);
            const enum fault_call kind = faults_kind(k);
            fault_sweep_case("%s: %s: %s", r->name, faults_describe(k), ways[way].name);
            faults_end();
            cases++;
            if (status == EMBER_OK) {
                if (read != whole) fail_msg("%s: another result", now);
                continue;
            }
            told++;
            if (way == HALF || (way == INTERRUPTED && is_retried(kind)))
                fail_msg("%s: was not gone on from: %s", now, ember_last_error());
            if (status != EMBER_E_IO) fail_msg("%s: %s", now, ember_last_error());
            check_message(r->path, ways[way].error);
        }
    assert_true(told > 0);
    print_message("%s: %zu calls, %zu cases, %zu of them told\n", r->name, calls, cases, told);
    now[0] = '\0';
}
