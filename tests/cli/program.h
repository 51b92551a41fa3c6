// Runs the `ember` program and looks at what it says.
#ifndef EMBER_TESTS_PROGRAM_H
#define EMBER_TESTS_PROGRAM_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"

struct program_result {
    int exit_status; // 128 + signal when one ended it
    char *out, *err; // all of stdout and stderr
};

static inline char *program_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t size = 0, n;
    char *text = NULL;
    do {
        text = realloc(text, size + 65536);
        assert_non_null(text);
        n = fread(text + size, 1, 65535, f);
        size += n;
    } while (n);
    text[size] = 0;
    fclose(f);
    return text;
}

static inline void program_redirect(const char *path, int flags, int to)
{
    const int fd = open(path, flags, 0600);
    if (fd < 0 || dup2(fd, to) < 0) _exit(126);
    close(fd);
}

// Starts `ember` with these arguments (NULL ends them); `input` is its stdin, NULL: none.
static inline pid_t program_start(const char *const *argument, const char *input,
                                  const char *folder)
{
    const char *in = test_path(folder, "stdin");
    FILE *f = fopen(in, "wb");
    assert_non_null(f);
    if (input) assert_int_equal(fwrite(input, 1, strlen(input), f), strlen(input));
    fclose(f);
    const char *out = test_path(folder, "stdout"), *err = test_path(folder, "stderr");
    close(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600)); // there to be looked at from now on
    char *words[64] = {strdup("ember")};
    for (size_t i = 0; argument[i]; i++) {
        assert_true(i < 62);
        words[i + 1] = strdup(argument[i]);
    }
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        program_redirect(in, O_RDONLY, 0);
        program_redirect(out, O_WRONLY | O_CREAT | O_TRUNC, 1);
        program_redirect(err, O_WRONLY | O_CREAT | O_TRUNC, 2);
        execv(EMBER_PROGRAM, words);
        _exit(127);
    }
    for (size_t i = 0; words[i]; i++)
        free(words[i]);
    return child;
}

static inline struct program_result program_wait(pid_t child, const char *folder)
{
    int status;
    struct program_result r;
    assert_int_equal(waitpid(child, &status, 0), child);
    r.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.out = program_read(test_path(folder, "stdout"));
    r.err = program_read(test_path(folder, "stderr"));
    return r;
}

static inline struct program_result program_run_with(const char *const *argument, const char *input)
{
    const char *folder = test_directory();
    return program_wait(program_start(argument, input, folder), folder);
}
#define program_run(...) program_run_with((const char *const[]){__VA_ARGS__, NULL}, NULL)

static inline void program_free(struct program_result *r)
{
    free(r->out);
    free(r->err);
}

// The exit status, and a part of what stderr has to say.
static inline void program_check(const char *file, int line, struct program_result r,
                                 int exit_status, const char *message)
{
    if (r.exit_status != exit_status || !strstr(r.err, message)) {
        print_error("%s:%d: exit status %d (expected %d), stderr: %s\n(expected: %s)\n", file, line,
                    r.exit_status, exit_status, r.err, message);
        fail();
    }
    program_free(&r);
}
#define CHECK_PROGRAM(exit_status, message, ...)                                                   \
    program_check(__FILE__, __LINE__, program_run(__VA_ARGS__), exit_status, message)

#endif
