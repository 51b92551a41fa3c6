#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

enum { LINE_BYTES = 2048 };

static atomic_int threshold = EM_LOG_NOTE;

// Guards what follows, and keeps lines whole.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void (*sink)(void *context, enum em_log_level level, const char *line);
static void *sink_context;
static double seconds_between = 10;
static double last_progress; // em_clock_seconds() of the last progress line shown
static bool progress_shown;  // since the last one that was done
static bool progress_drawn;  // a redrawable line is on the terminal now

void em_log_threshold(enum em_log_level level)
{
    atomic_store(&threshold, (int)level);
}

void em_log_to(void (*to)(void *context, enum em_log_level level, const char *line), void *context)
{
    pthread_mutex_lock(&mutex);
    sink = to;
    sink_context = context;
    pthread_mutex_unlock(&mutex);
}

void em_progress_every(double seconds)
{
    pthread_mutex_lock(&mutex);
    seconds_between = seconds;
    pthread_mutex_unlock(&mutex);
}

// A file's name in a line must not move the cursor or change the colours.
static void format_line(char line[LINE_BYTES], const char *format, va_list args)
{
    if (vsnprintf(line, LINE_BYTES, format, args) < 0) line[0] = 0;
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = *p == '\n' || *p == '\t' ? ' ' : '?';
}

// One write, so that lines of several processes do not mix.
static void put(const char *before, const char *line, const char *after)
{
    char text[LINE_BYTES + 32];
    const int n = snprintf(text, sizeof text, "%s%s%s", before, line, after);
    for (size_t done = 0, all = n > 0 ? (size_t)n : 0; done < all;) {
        const ssize_t written = write(STDERR_FILENO, text + done, all - done);
        if (written <= 0) return; // nowhere left to report to
        done += (size_t)written;
    }
}

static void emit(enum em_log_level level, const char *line)
{
    if (sink) {
        sink(sink_context, level, line);
        return;
    }
    put(progress_drawn ? "\r\033[K" : "", line, "\n");
    progress_drawn = false;
}

void em_log(enum em_log_level level, const char *format, ...)
{
    if ((int)level < atomic_load_explicit(&threshold, memory_order_relaxed)) return;
    char line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    format_line(line, format, args);
    va_end(args);
    pthread_mutex_lock(&mutex);
    emit(level, line);
    pthread_mutex_unlock(&mutex);
}

// A wrapped line could not be redrawn. Cut between characters: continuation bytes have no column.
static void cut_to_terminal(char *line)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return;
    unsigned columns = 0;
    for (char *p = line; *p; p++) {
        if (((unsigned char)*p & 0xc0) == 0x80) continue;
        if (++columns == size.ws_col) {
            *p = 0;
            return;
        }
    }
}

void em_progress(bool done, const char *format, ...)
{
    if (EM_LOG_NOTE < atomic_load_explicit(&threshold, memory_order_relaxed)) return;
    pthread_mutex_lock(&mutex);
    const bool terminal = !sink && isatty(STDERR_FILENO);
    const double now = em_clock_seconds(), wait = terminal ? 0.1 : seconds_between;
    if (done || !progress_shown || now - last_progress >= wait) {
        char line[LINE_BYTES];
        va_list args;
        va_start(args, format);
        format_line(line, format, args);
        va_end(args);
        if (terminal) {
            cut_to_terminal(line);
            put("\r\033[K", line, done ? "\n" : "");
            progress_drawn = !done;
        } else {
            emit(EM_LOG_NOTE, line);
        }
        last_progress = now;
        progress_shown = !done;
    }
    pthread_mutex_unlock(&mutex);
}
