// Man pages from the tables of options.
#include "help.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

// Text of a page: what roff would take for its own is escaped.
static void put(const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        switch (*text) {
        case '\\': fputs("\\e", stdout); break;
        case '-': fputs("\\-", stdout); break;
        case '~': fputs("\\(ti", stdout); break;
        case '^': fputs("\\(ha", stdout); break;
        case '\'': fputs("\\(aq", stdout); break;
        case '`': fputs("\\(ga", stdout); break;
        default: putchar(*text);
        }
        line_start = *text == '\n';
    }
}

// Paragraphs that part at an empty line.
static void paragraphs(const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        const size_t n = end ? (size_t)(end - text) : strlen(text);
        char part[2048];
        snprintf(part, sizeof part, "%.*s", (int)n, text);
        fputs(".PP\n", stdout);
        put(part);
        putchar('\n');
        text += n;
        text += strspn(text, "\n");
    }
}

static void title(const char *name)
{
    char upper[64];
    size_t n = 0;
    for (; name[n] && n < sizeof upper - 1; n++)
        upper[n] = name[n] == ' ' ? '-' : (char)toupper((unsigned char)name[n]);
    upper[n] = 0;
    printf(".\\\" Made from the program's tables of options.\n.TH \"");
    put(upper);
    printf("\" \"1\" \"\" \"ember %s\" \"Ember\"\n.nh\n.ad l\n", ember_version());
}

static void section(const char *name)
{
    printf(".SH %s\n", name);
}

static void option(const struct cli_option *o, const struct cli_command *command)
{
    const struct cli_text facts = cli_facts(o, command), help = cli_sentence(o->help);
    const char *name;
    size_t n;
    printf(".TP\n");
    for (size_t i = 0; (name = cli_name_at(o, i, &n)); i++) {
        char one[64];
        snprintf(one, sizeof one, "%s%.*s",
                 o->type == CLI_WORD ? ""
                 : n == 1            ? "-"
                                     : "--",
                 (int)n, name);
        printf("%s\\fB", i ? ", " : "");
        put(one);
        printf("\\fR");
    }
    if (o->value) {
        printf(" \\fI");
        put(o->value);
        printf("\\fR%s", o->many ? "..." : "");
    }
    putchar('\n');
    put(help.text);
    if (*facts.text) {
        printf(" (");
        put(facts.text);
        putchar(')');
    }
    printf(".\n");
}

static void table(const struct cli_option *options, bool words, const struct cli_command *command)
{
    for (; options && options->name; options++)
        if ((options->type == CLI_WORD) == words && !cli_is_replaced(command, options))
            option(options, command);
}

static bool has(const struct cli_option *options, bool words)
{
    for (; options && options->name; options++)
        if ((options->type == CLI_WORD) == words) return true;
    return false;
}

static void synopsis(const struct cli_command *command)
{
    const char *usage;
    size_t n;
    for (size_t i = 0; (usage = cli_usage_at(command, i, &n)); i++) {
        char line[512];
        snprintf(line, sizeof line, "%.*s", (int)n, usage);
        printf("%s.B ember ", i ? ".br\n" : "");
        put(command->name);
        putchar('\n');
        put(line);
        putchar('\n');
    }
}

static void exit_status(void)
{
    section("EXIT STATUS");
    printf(".TP\n0\nDone.\n"
           ".TP\n1\nFailed; one line on standard error says what and where.\n"
           ".TP\n2\nWrong usage.\n"
           ".TP\n3\nStopped early by SIGINT or SIGTERM, with everything saved.\n");
}

static void environment(void)
{
    section("ENVIRONMENT");
    printf(".TP\n.B EMBER_ISA\n"
           "The instruction set to compute with, instead of the widest that the machine has: "
           "scalar, avx2, avx512, neon. "
           "A set comes with what the machine has beside it, unless that is named too: "
           "avx512+none, avx512+vnni, avx512+bf16+vnni, neon+dotprod+bf16+i8mm.\n"
           ".TP\n.B NO_COLOR\nWhen set and not empty, nothing is written in colour.\n"
           ".TP\n.B COLUMNS\nThe width of "
           "\\fB\\-\\-help\\fR, instead of the terminal\\(aqs.\n");
}

static void see_also(const struct cli_command *command)
{
    section("SEE ALSO");
    if (command) printf(".BR ember (1)%s", cli_commands[0] ? "" : "\n");
    bool any = command != NULL;
    for (size_t i = 0; cli_commands[i]; i++) {
        if (cli_commands[i] == command) continue;
        printf("%s.BR ember\\-", any ? ",\n" : "");
        put(cli_commands[i]->name);
        printf(" (1)");
        any = true;
    }
    putchar('\n');
}

static void examples(const struct cli_command *command)
{
    if (!command->examples) return;
    section("EXAMPLES");
    printf(".nf\n");
    put(command->examples);
    printf("\n.fi\n");
}

static void one_command(const struct cli_command *command)
{
    if (has(command->options, true)) {
        section("ARGUMENTS");
        table(command->options, true, command);
    }
    section("OPTIONS");
    table(command->options, false, command);
    if (command->json) table(cli_json_option, false, command);
    table(cli_common_options, false, command);
    printf(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrints usage and options.\n");
}

// A command of commands: each has a part of its own.
static void commands_of(const struct cli_command *command)
{
    section("COMMANDS");
    for (size_t i = 0; command->commands[i]; i++) {
        const struct cli_command *c = command->commands[i];
        printf(".SS \"ember ");
        put(c->name);
        printf("\"\n");
        synopsis(c);
        printf(".PP\n");
        put(cli_sentence(c->help).text);
        printf(".\n");
        if (c->description) paragraphs(c->description);
        table(c->options, true, c);
        table(c->options, false, c);
        if (c->json) table(cli_json_option, false, c);
    }
    section("OPTIONS OF EACH");
    table(cli_common_options, false, command);
    printf(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrints usage and options.\n");
}

static void program(void)
{
    title("ember");
    section("NAME");
    printf("ember \\- train and run liquid, hybrid, Mixture\\-of\\-Experts sequence models\n");
    section("SYNOPSIS");
    printf(".B ember\n.I COMMAND\n[\\fIOPTION\\fR]...\n");
    section("DESCRIPTION");
    printf(
        "Ember builds, trains, inspects and runs language models on the processor that there is. "
        "Models are folders as Hugging Face has them: config, weights in safetensors, tokenizer. "
        "Results go to standard output, progress and errors to standard error. "
        "Nothing is sent anywhere.\n");
    section("COMMANDS");
    for (size_t i = 0; cli_commands[i]; i++) {
        printf(".TP\n.BR ember\\-");
        put(cli_commands[i]->name);
        printf(" (1)\n");
        put(cli_sentence(cli_commands[i]->help).text);
        printf(".\n");
    }
    section("OPTIONS");
    printf(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrints the commands; after a command, its "
           "options.\n.TP\n\\fB\\-\\-version\\fR\nPrints version and build.\n");
    printf(".PP\nOf every command:\n");
    table(cli_common_options, false, NULL);
    exit_status();
    environment();
    see_also(NULL);
}

void cli_manual(const struct cli_command *command)
{
    if (!command) {
        program();
        return;
    }
    char name[64];
    snprintf(name, sizeof name, "ember %s", command->name);
    title(name);
    for (char *at = name; *at; at++)
        if (*at == ' ') *at = '-';
    section("NAME");
    put(name);
    printf(" \\- ");
    put(command->help);
    putchar('\n');
    section("SYNOPSIS");
    synopsis(command);
    section("DESCRIPTION");
    put(cli_sentence(command->help).text);
    printf(".\n");
    if (command->description) paragraphs(command->description);
    if (command->commands)
        commands_of(command);
    else
        one_command(command);
    examples(command);
    exit_status();
    environment();
    see_also(command);
}
