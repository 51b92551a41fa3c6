// Failing with a message: the status travels by return, the message in a buffer of the thread.
#ifndef EM_BASE_FAIL_H
#define EM_BASE_FAIL_H

#include <ember/status.h>

// Sets this thread's message (cut at 1023 bytes, control characters replaced) and returns `status`.
ember_status em_fail(ember_status status, const char *format, ...) EMBER_PRINTF(2, 3);

// As em_fail with ": strerror(errno)" appended; `path` first. For failed system calls.
ember_status em_fail_errno(const char *path, const char *what);

// Puts "text: " in front of the message already set, for a caller that knows more (the file, the
// layer); returns `status`.
ember_status em_fail_in(ember_status status, const char *format, ...) EMBER_PRINTF(2, 3);

// The status is repeated where the compiler sees it: a failure is then known not to be EMBER_OK,
// and what a failed call leaves unset is known not to be used.
#define em_fail(status, ...) (em_fail((status), __VA_ARGS__), (status))
#define em_fail_in(status, ...) (em_fail_in((status), __VA_ARGS__), (status))

#define EM_TRY(call)                                                                               \
    do {                                                                                           \
        const ember_status em_try_status_ = (call);                                                \
        if (em_try_status_ != EMBER_OK) return em_try_status_;                                     \
    } while (0)

// As EM_TRY, for functions with one way out: sets `status` and jumps.
#define EM_TRY_GOTO(status, label, call)                                                           \
    do {                                                                                           \
        (status) = (call);                                                                         \
        if ((status) != EMBER_OK) goto label;                                                      \
    } while (0)

#endif
