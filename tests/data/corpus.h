// What the tests of the data room share: texts in files, and a quiet log that is kept.
#ifndef EM_TESTS_DATA_CORPUS_H
#define EM_TESTS_DATA_CORPUS_H

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "support/check.h"

static char notes[1 << 16];

static inline void keep_note(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    const size_t at = strlen(notes);
    snprintf(notes + at, sizeof notes - at, "%s\n", line);
}

static inline int listen_to_notes(void **state)
{
    (void)state;
    *notes = '\0';
    em_log_to(keep_note, NULL);
    return 0;
}

static inline const char *put_bytes(const char *directory, const char *name, const void *bytes,
                                    size_t n)
{
    const char *path = test_path(directory, name);
    CHECK_OK(em_write_file(path, bytes, n));
    return path;
}

static inline const char *put_text(const char *directory, const char *name, const char *text)
{
    return put_bytes(directory, name, text, strlen(text));
}

#endif
