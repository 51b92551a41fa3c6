#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <ember/runtime.h>

#include "options.h"

static int output_error; // errno of the first write that failed

void cli_prepare_output(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            // The lowest free number is `fd`. Reading what can only be written fails, and the
            // reverse.
            if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0) return;
        }
    signal(SIGPIPE, SIG_IGN);
}

int cli_close_output(int result)
{
    errno = 0;
    if (fflush(stdout) != 0 && !output_error) output_error = errno;
    if (!output_error && !ferror(stdout)) return result;
    if (output_error != EPIPE)
        fprintf(stderr, "ember: cannot write to stdout: %s\n",
                strerror(output_error ? output_error : EIO));
    return result == EXIT_OK ? EXIT_FAILED : result;
}

bool cli_put(const char *text, size_t n)
{
    errno = 0;
    if (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0) return true;
    if (!output_error) output_error = errno;
    return false;
}

void cli_print_json_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            printf("\\u%04x", (unsigned)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

void cli_print_owned(char *text)
{
    errno = 0;
    if (text && fputs(text, stdout) < 0 && !output_error) output_error = errno;
    ember_free(text);
}
