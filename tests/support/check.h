// What tests share: cmocka with its includes, comparison of numbers, random data, folders to write
// to.
#ifndef EMBER_TESTS_CHECK_H
#define EMBER_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // wants those before it

#include <ember/status.h>

// |actual - expected| <= tolerance * max(1, |expected|); NaN is near to nothing, an infinity to
// itself. The rest is a printf format and its arguments that say which case failed.
#define CHECK_NEAR(actual, expected, tolerance, ...)                                               \
    check_near(__FILE__, __LINE__, #actual, (double)(actual), (double)(expected),                  \
               (double)(tolerance), __VA_ARGS__)
void check_near(const char *file, int line, const char *what, double actual, double expected,
                double tolerance, const char *format, ...) EMBER_PRINTF(7, 8);

// The call returns EMBER_OK; else its message is shown.
#define CHECK_OK(call) check_status(__FILE__, __LINE__, #call, (call), EMBER_OK, NULL)
// The call fails with this status, and its message contains `text`.
#define CHECK_FAILS(call, status, text)                                                            \
    check_status(__FILE__, __LINE__, #call, (call), (status), (text))
void check_status(const char *file, int line, const char *call, ember_status found,
                  ember_status expected, const char *text);

// Uniform in [-1, 1), the same for the same seed.
void fill_random(float *x, size_t n, uint64_t seed);

// A new empty folder under the build folder; every one of them is removed when the program ends.
const char *test_directory(void);
// "directory/name", kept until the program ends.
const char *test_path(const char *directory, const char *name);

#endif
