#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/rng.h"

// Faults are staged in JSON's allocations too, and what they leave is counted.
__attribute__((constructor)) static void take_json_into_the_seam(void)
{
    em_json_use_seam();
}

void check_near(const char *file, int line, const char *what, double actual, double expected,
                double tolerance, const char *format, ...)
{
    const double size = fabs(expected) > 1 ? fabs(expected) : 1;
    if (actual == expected || fabs(actual - expected) <= tolerance * size) return;
    char which[512];
    va_list args;
    va_start(args, format);
    vsnprintf(which, sizeof which, format, args);
    va_end(args);
    print_error("%s is %.9g, expected %.9g within %.3g (off by %.3g): %s\n", what, actual, expected,
                tolerance * size, fabs(actual - expected), which);
    _fail(file, line);
}

void check_status(const char *file, int line, const char *call, ember_status found,
                  ember_status expected, const char *text)
{
    if (found != expected) {
        print_error("%s gave %s (%s), expected %s\n", call, ember_status_name(found),
                    ember_last_error(), ember_status_name(expected));
        _fail(file, line);
    }
    if (text && !strstr(ember_last_error(), text)) {
        print_error("%s said \"%s\", expected it to contain \"%s\"\n", call, ember_last_error(),
                    text);
        _fail(file, line);
    }
}

void fill_random(float *x, size_t n, uint64_t seed)
{
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(2 * em_rng_uniform(&rng) - 1);
}

static char root[1024]; // this program's folder, made with the first test_directory

static void remove_root(void)
{
    em_io_use(NULL);
    if (em_remove_tree(root) != EMBER_OK) fprintf(stderr, "%s\n", ember_last_error());
}

const char *test_directory(void)
{
    static char directories[256][1100];
    static unsigned made;
    if (made == sizeof directories / sizeof *directories) fail_msg("too many test directories");
    if (!root[0]) {
        CHECK_OK(em_make_directories(EMBER_SCRATCH_DIR));
        snprintf(root, sizeof root, "%s/XXXXXX", EMBER_SCRATCH_DIR);
        if (!mkdtemp(root)) fail_msg("cannot make %s", root);
        atexit(remove_root);
    }
    char *path = directories[made];
    snprintf(path, sizeof directories[0], "%s/%u", root, made);
    made++;
    CHECK_OK(em_make_directories(path));
    return path;
}

struct kept_path {
    struct kept_path *next;
    char text[];
};
static struct kept_path *paths;

static void free_paths(void)
{
    while (paths) {
        struct kept_path *next = paths->next;
        free(paths);
        paths = next;
    }
}

const char *test_path(const char *directory, const char *name)
{
    const size_t n = strlen(directory) + strlen(name) + 2;
    struct kept_path *path = malloc(sizeof *path + n);
    if (!path) fail_msg("out of memory");
    if (!paths) atexit(free_paths);
    snprintf(path->text, n, "%s/%s", directory, name);
    path->next = paths;
    paths = path;
    return path->text;
}
