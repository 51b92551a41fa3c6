// Files with a hostile meaning: each is refused within a second of CPU time, with twice its size
// and 64 MiB of memory, nothing kept, and a message that names the file, the place in it, what was
// found and what is allowed.
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ember/runtime.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "support/check.h"

// `says`: what the message has besides the file's name, parted by '|'.
struct hostile_case {
    const char *text, *says;
};

struct hostile_watch {
    const char *what, *file; // the case, for people, and the name that the message has to have
    size_t size;             // of the file
    clock_t start;
    size_t live;
};

static unsigned hostile_cases, hostile_failures;

static inline void hostile_wrong(const struct hostile_watch *w, const char *how, const char *detail)
{
    hostile_failures++;
    printf("%.200s\n    %s%s\n    message: %s\n", w->what, how, detail, ember_last_error());
}

static inline struct hostile_watch hostile_begin(const char *what, const char *file, size_t size)
{
    hostile_cases++;
    alarm(30); // for what waits and uses no CPU
    (void)em_fail(EMBER_OK, "no message");
    em_alloc_peak_reset();
    return (struct hostile_watch){what, file, size, clock(), em_alloc_live()};
}

static inline void hostile_end(const struct hostile_watch *w, ember_status status, const char *says)
{
    const double seconds = (double)(clock() - w->start) / CLOCKS_PER_SEC;
    const char *message = ember_last_error();
    char part[256];
    alarm(0);
    // An emulated processor is twenty times as slow.
    if (seconds > (getenv("EMBER_TEST_EMULATED") ? 20 : 1))
        hostile_wrong(w, "took more than a second", "");
    if (em_alloc_peak() - w->live > 2 * w->size + ((size_t)64 << 20))
        hostile_wrong(w, "took too much memory", "");
    if (status == EMBER_OK) {
        hostile_wrong(w, "was accepted", "");
        return;
    }
    if (em_alloc_live() > w->live) hostile_wrong(w, "memory was not given back", "");
    if (!strstr(message, w->file)) hostile_wrong(w, "the message does not name ", w->file);
    for (const char *at = says; at && *at;) {
        const size_t n = strcspn(at, "|");
        snprintf(part, sizeof part, "%.*s", (int)n, at);
        if (!strstr(message, part)) hostile_wrong(w, "the message does not say: ", part);
        at += n + (at[n] == '|');
    }
}

// After a table: how many, and none wrong.
static inline void hostile_report(unsigned at_least)
{
    const unsigned cases = hostile_cases, failures = hostile_failures;
    hostile_cases = hostile_failures = 0;
    printf("%u cases\n", cases);
    fflush(stdout);
    assert_int_equal(failures, 0);
    assert_true(cases >= at_least);
}

// `n` times `open`, then `middle`, then `n` times `close`; free() it.
static inline char *hostile_nested(size_t n, const char *open, const char *middle,
                                   const char *close)
{
    const size_t a = strlen(open), b = strlen(middle), c = strlen(close);
    char *text = malloc(n * (a + c) + b + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        memcpy(text + i * a, open, a);
    memcpy(text + n * a, middle, b);
    for (size_t i = 0; i < n; i++)
        memcpy(text + n * a + b + i * c, close, c);
    text[n * (a + c) + b] = 0;
    return text;
}

static inline int hostile_setup(void **state)
{
    (void)state;
    em_log_threshold(EM_LOG_WARN + 1);
    CHECK_OK(ember_start());
    return 0;
}

#endif
