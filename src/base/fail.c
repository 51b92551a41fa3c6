#include "base/fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local char message[MESSAGE_BYTES];

static const char *const names[] = {
    "EMBER_OK",         "EMBER_E_NOMEM",   "EMBER_E_IO",          "EMBER_E_FORMAT",
    "EMBER_E_CONFIG",   "EMBER_E_SHAPE",   "EMBER_E_RANGE",       "EMBER_E_UNSUPPORTED",
    "EMBER_E_STATE",    "EMBER_E_NUMERIC", "EMBER_E_INTERRUPTED", "EMBER_E_USAGE",
    "EMBER_E_INTERNAL",
};

const char *ember_status_name(ember_status status)
{
    const size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "EMBER_E_?";
}

const char *ember_last_error(void)
{
    return message;
}

// Text from files ends up in messages: no escape sequence may reach the terminal, no newline may
// fake a second message, and a cut must not leave half a UTF-8 character.
static void sanitize(char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) text[i] = c == '\t' || c == '\n' ? ' ' : '?';
    }
    if (n != MESSAGE_BYTES - 1) return;
    size_t start = n;
    while (start > 0 && n - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0) return;
    const unsigned char lead = (unsigned char)text[start - 1];
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (length > n - start + 1) text[start - 1] = 0;
}

// Built beside the old message, as the arguments may point into it.
static void set_message(const char *format, va_list args)
{
    char text[MESSAGE_BYTES];
    if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
    sanitize(text);
    memcpy(message, text, strlen(text) + 1);
}

ember_status(em_fail)(ember_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(format, args);
    va_end(args);
    return status;
}

ember_status em_fail_errno(const char *path, const char *what)
{
    char buffer[128];
    const char *reason = strerror_r(errno, buffer, sizeof buffer);
    return em_fail(EMBER_E_IO, "%s: %s: %s", path, what, reason);
}

ember_status(em_fail_in)(ember_status status, const char *format, ...)
{
    char text[2 * MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, MESSAGE_BYTES, format, args);
    va_end(args);
    if (n < 0) n = 0;
    const size_t used = (size_t)n < MESSAGE_BYTES ? (size_t)n : MESSAGE_BYTES - 1;
    snprintf(text + used, sizeof text - used, ": %s", message);
    return em_fail(status, "%s", text);
}
