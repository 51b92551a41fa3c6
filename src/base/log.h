// Progress and notes, to stderr by default. Results are never logged: they go to stdout by the
// caller.
#ifndef EM_BASE_LOG_H
#define EM_BASE_LOG_H

#include <stdbool.h>

#include <ember/runtime.h>

// Levels are the public ones.
#define em_log_level ember_log_level
#define EM_LOG_DEBUG EMBER_LOG_DEBUG
#define EM_LOG_NOTE EMBER_LOG_NOTE
#define EM_LOG_WARN EMBER_LOG_WARN

// One line (a newline is added). Below the threshold nothing is formatted.
void em_log(enum em_log_level level, const char *format, ...) EMBER_PRINTF(2, 3);
#define em_note(...) em_log(EM_LOG_NOTE, __VA_ARGS__)
#define em_warn(...) em_log(EM_LOG_WARN, "warning: " __VA_ARGS__)

// A line that replaces itself: on a terminal it is redrawn in place, elsewhere it is printed as a
// plain line at most every em_progress_every() seconds (the caller's last line, with done = true,
// always).
void em_progress(bool done, const char *format, ...) EMBER_PRINTF(2, 3);
void em_progress_every(double seconds); // default 10

void em_log_threshold(enum em_log_level level); // default NOTE; --quiet sets WARN
// NULL: stderr. The sink is called under the log's lock: it must not log.
void em_log_to(void (*sink)(void *context, enum em_log_level level, const char *line),
               void *context);

#endif
