// --help for people: usage, arguments and options, wrapped to the terminal.
#include "help.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { LEFT = 28, NARROWEST = 50, WIDEST = 120 };

static void append(struct cli_text *t, const char *format, ...) EMBER_PRINTF(2, 3);
static void append(struct cli_text *t, const char *format, ...)
{
    const size_t used = strlen(t->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->text + used, sizeof t->text - used, format, arguments);
    va_end(arguments);
}

struct cli_text cli_names(const struct cli_option *o, const char *separator)
{
    struct cli_text t = {""};
    const char *name;
    size_t n;
    for (size_t i = 0; (name = cli_name_at(o, i, &n)); i++)
        append(&t, "%s%s%.*s", i ? separator : "",
               o->type == CLI_WORD ? ""
               : n == 1            ? "-"
                                   : "--",
               (int)n, name);
    return t;
}

struct cli_text cli_facts(const struct cli_option *o, const struct cli_command *command)
{
    struct cli_text t = {""};
    const char *otherwise = o->otherwise, *choice;
    size_t n;
    switch (o->type) {
    case CLI_SIZE:
    case CLI_U64: append(&t, "integer"); break;
    case CLI_DOUBLE: append(&t, "number"); break;
    case CLI_CHOICE:
        for (size_t i = 0; (choice = cli_choice_at(o->choices, i, &n)); i++)
            append(&t, "%s%.*s", !i ? "" : choice[n] ? ", " : " or ", (int)n, choice);
        break;
    case CLI_LIST: append(&t, o->many ? "one or more" : "may be repeated"); break;
    case CLI_WORD:
    case CLI_FLAG:
    case CLI_STRING:
    case CLI_END: break;
    }
    if (o->type == CLI_U64 && o->min == 0 && o->max == 0) append(&t, " from 0 to 2^64 - 1");
    if (o->min != 0 || o->max != 0) append(&t, " from %.10g to %.10g", o->min, o->max);
    if (command && o == &cli_common_options[2])
        otherwise = command->dtype ? command->dtype : "bf16 where the machine has it, else f32";
    if (command && o == &cli_common_options[3] && command->seed) otherwise = command->seed;
    const char *comma = *t.text ? ", " : "";
    if (o->needed)
        append(&t, "%sneeded", comma);
    else if (o->preset)
        append(&t, "%sdefault %s", comma, o->preset);
    else if (otherwise)
        append(&t, "%sdefault: %s", comma, otherwise);
    else if (o->type == CLI_FLAG)
        append(&t, "default off");
    else if (o->type != CLI_WORD)
        append(&t, "%sdefault none", comma);
    return t;
}

const char *cli_last_name(const struct cli_command *command)
{
    const char *space = strrchr(command->name, ' ');
    return space ? space + 1 : command->name;
}

struct cli_text cli_sentence(const char *help)
{
    struct cli_text t = {""};
    append(&t, "%s", help);
    t.text[0] = (char)toupper((unsigned char)t.text[0]);
    return t;
}

const char *cli_usage_at(const struct cli_command *command, size_t i, size_t *n)
{
    for (const char *at = command->usage; at; at = at[*n] ? at + *n + 1 : NULL) {
        *n = strcspn(at, "\n");
        if (i-- == 0) return at;
    }
    return NULL;
}

// Columns of the terminal; 80 where stdout is none and COLUMNS does not say.
static size_t width(void)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    size_t w = 80;
    if (columns && strtoul(columns, NULL, 10))
        w = strtoul(columns, NULL, 10);
    else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
        w = size.ws_col;
    return w < NARROWEST ? NARROWEST : w > WIDEST ? WIDEST : w;
}

// Words of `text` from column `at`, further lines from column `indent`, and a newline. A newline in
// the text ends a line.
static void wrap(const char *text, size_t at, size_t indent)
{
    const size_t most = width();
    bool first = true;
    while (*text) {
        if (*text == '\n') {
            printf("\n%*s", (int)indent, "");
            at = indent, first = true, text++;
            continue;
        }
        const size_t n = strcspn(text, " \n");
        if (!first && at + 1 + n > most) {
            printf("\n%*s", (int)indent, "");
            at = indent, first = true;
        }
        at += (size_t)printf("%s%.*s", first ? "" : " ", (int)n, text);
        first = false;
        text += n;
        text += *text == ' ';
    }
    putchar('\n');
}

static void print_option(const struct cli_option *o, const struct cli_command *command)
{
    struct cli_text left = cli_names(o, ", ");
    const struct cli_text facts = cli_facts(o, command);
    char right[1024];
    if (o->value) append(&left, " %s%s", o->value, o->many ? "..." : "");
    int at = printf("  %s", left.text);
    if (at > LEFT - 2) at = printf("\n") - 1;
    printf("%*s", LEFT - at, "");
    snprintf(right, sizeof right, *facts.text ? "%s (%s)" : "%s", o->help, facts.text);
    wrap(right, LEFT, LEFT);
}

static void print_table(const char *title, const struct cli_option *table, bool words,
                        const struct cli_command *command)
{
    bool any = false;
    for (; table && table->name; table++) {
        if ((table->type == CLI_WORD) != words || cli_is_replaced(command, table)) continue;
        if (!any && *title) printf("\n%s\n", title);
        any = true;
        print_option(table, command);
    }
}

static void print_commands(const struct cli_command *const *commands)
{
    for (; *commands; commands++) {
        const int at = printf("  ember %-*s  ", LEFT - 10, (*commands)->name);
        wrap((*commands)->help, (size_t)at, LEFT);
    }
}

// "usage: ember train RECIPE ..", a line for each way; in a list of commands without "usage".
static void print_usage(const struct cli_command *command, bool listed)
{
    char line[512];
    size_t n;
    const char *usage;
    for (size_t i = 0; (usage = cli_usage_at(command, i, &n)); i++) {
        const char *before = listed ? "" : i ? "   or: " : "usage: ";
        printf("%s", before);
        snprintf(line, sizeof line, "ember %s %.*s", command->name, (int)n, usage);
        wrap(line, strlen(before), strlen(before) + strlen("ember "));
    }
    if (!listed) putchar('\n');
}

int cli_help(const struct cli_command *command)
{
    const struct cli_text sentence = cli_sentence(command->help);
    char line[512];
    print_usage(command, false);
    snprintf(line, sizeof line, "%s.", sentence.text);
    wrap(line, 0, 0);
    if (command->description) {
        putchar('\n');
        wrap(command->description, 0, 0);
    }
    if (command->commands) {
        for (size_t i = 0; command->commands[i]; i++) {
            putchar('\n');
            print_usage(command->commands[i], true);
            printf("    ");
            wrap(command->commands[i]->help, 4, 4);
        }
        snprintf(line, sizeof line, "`ember %s NAME --help` lists the options of each.",
                 command->name);
        putchar('\n');
        wrap(line, 0, 0);
        return EXIT_OK;
    }
    print_table("arguments:", command->options, true, command);
    print_table("options:", command->options, false, command);
    printf("\nof every command:\n");
    if (command->json) print_table("", cli_json_option, false, command);
    print_table("", cli_common_options, false, command);
    printf("  %-*s%s\n", LEFT - 2, "-h, --help", "this text");
    if (command->examples) printf("\nexamples:\n");
    for (const char *at = command->examples; at && *at;) {
        const size_t n = strcspn(at, "\n");
        printf("  %.*s\n", (int)n, at);
        at += n + (at[n] == '\n');
    }
    return EXIT_OK;
}

int cli_help_all(void)
{
    char title[128];
    snprintf(title, sizeof title,
             "ember %s: build, train and run liquid, hybrid, Mixture-of-Experts sequence models\n",
             ember_version());
    wrap(title, 0, 0);
    print_commands(cli_commands);
    putchar('\n');
    wrap("`ember COMMAND --help` lists a command's options; `ember --version` says what this is.",
         0, 0);
    return EXIT_OK;
}

int cli_help_as(const struct cli_command *command, const char *format)
{
    static const struct {
        const char *name;
        ember_status (*print)(void);
    } shells[] = {
        {"bash", cli_completion_bash}, {"zsh", cli_completion_zsh}, {"fish", cli_completion_fish}};
    if (!strcmp(format, "man")) {
        cli_manual(command);
        return EXIT_OK;
    }
    for (size_t i = 0; !command && i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(format, shells[i].name)) return cli_fail(shells[i].print());
    fprintf(stderr, "ember: --help=%s: there is man%s\n", format,
            command ? "; for the program as a whole bash, zsh and fish too" : ", bash, zsh, fish");
    return EXIT_USAGE;
}
