// A folder of its own for each test that writes files: cmocka's setup and teardown, and paths in
// it.
#ifndef EM_TESTS_FORMATS_FILES_H
#define EM_TESTS_FORMATS_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

static inline int make_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    char *path = malloc(4096);
    if (!path) return -1;
    snprintf(path, 4096, "%s/ember-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(path)) {
        free(path);
        return -1;
    }
    *state = path;
    return 0;
}

static inline int remove_folder(void **state)
{
    const ember_status status = em_remove_tree(*state);
    free(*state);
    return status == EMBER_OK ? 0 : -1;
}

// "folder/name", valid until the fourth call after it.
static inline const char *in_folder(const void *folder, const char *name)
{
    static char paths[4][4096];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", (const char *)folder, name);
    return path;
}

static inline size_t count_files(const void *folder)
{
    char **names;
    size_t count;
    if (em_list_directory(folder, &names, &count) != EMBER_OK) return SIZE_MAX;
    em_names_free(names, count);
    return count;
}

static inline void put_file(const void *folder, const char *name, const char *text)
{
    FILE *f = fopen(in_folder(folder, name), "wb");
    if (!f || fwrite(text, 1, strlen(text), f) != strlen(text) || fclose(f) != 0) abort();
}

#endif
