#include "output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <ember/runtime.h>

#include "options.h"

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
    if (text) fputs(text, stdout);
    ember_free(text);
}

int cli_finish(ember_status status)
{
    const int result = cli_fail(status);
    if (fflush(stdout) == 0 && !ferror(stdout)) return result;
    fprintf(stderr, "ember: cannot write to stdout: %s\n", strerror(errno));
    return EXIT_FAILED;
}
