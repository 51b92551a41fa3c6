// Completion for bash, zsh and fish from the tables of options. Names of components and presets are
// those of this build.
#include "help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/describe.h>
#include <ember/train.h>

static bool is_group(const struct cli_command *c)
{
    return c->commands != NULL;
}

// Calls `visit` for every command that has options of its own, also those inside of commands.
static void for_each(void (*visit)(const struct cli_command *command))
{
    for (size_t i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];
        if (!is_group(c)) visit(c);
        for (size_t k = 0; is_group(c) && c->commands[k]; k++)
            visit(c->commands[k]);
    }
}

static const struct cli_option *const *tables_of(const struct cli_command *c)
{
    static const struct cli_option *tables[4];
    size_t n = 0;
    if (c->options) tables[n++] = c->options;
    if (c->json) tables[n++] = cli_json_option;
    tables[n++] = cli_common_options;
    tables[n] = NULL;
    return tables;
}

#define FOR_EACH_OPTION(o, c)                                                                      \
    for (const struct cli_option *const *table_ = tables_of(c); *table_; table_++)                 \
        for (const struct cli_option *o = *table_; o->name; o++)                                   \
            if (!cli_is_replaced(c, o))

static bool takes_value(const struct cli_option *o)
{
    return o->type != CLI_FLAG && o->type != CLI_WORD;
}

// Components of different kinds may share a name, and those of one kind its name.
static bool is_first(size_t place, const char *word, bool kinds)
{
    const char *name, *kind;
    for (size_t i = 0; i < place && (name = ember_component_at(i, &kind)); i++)
        if (strcmp(kinds ? kind : name, word) == 0) return false;
    return true;
}

// The words that a value is one of, each with `before` in front.
static void print_words(const struct cli_option *o, const char *before)
{
    const char *word, *kind;
    size_t n;
    for (size_t i = 0; o->choices && (word = cli_choice_at(o->choices, i, &n)); i++)
        printf("%s%.*s", before, (int)n, word);
    for (size_t i = 0; o->suggest & CLI_PRESETS && (word = ember_preset_at(i)); i++)
        printf("%s%s", before, word);
    for (size_t i = 0; o->suggest & CLI_COMPONENTS && (word = ember_component_at(i, NULL)); i++)
        if (is_first(i, word, false)) printf("%s%s", before, word);
    for (size_t i = 0; o->suggest & CLI_KINDS && ember_component_at(i, &kind); i++)
        if (is_first(i, kind, true)) printf("%s%s", before, kind);
}

static bool has_words(const struct cli_option *o)
{
    return o->choices || o->suggest & (CLI_PRESETS | CLI_COMPONENTS | CLI_KINDS);
}

// Inside single quotes of a shell; what stands in `escaped` gets a backslash.
static void put_quoted(const char *text, const char *escaped)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            printf(strchr(escaped, *text) ? "\\%c" : "%c", *text);
    }
}

static void print_names(const struct cli_option *o, const char *separator)
{
    fputs(cli_names(o, separator).text, stdout);
}

static void bash_value(const struct cli_option *o)
{
    if (has_words(o)) {
        printf(" words='");
        print_words(o, " ");
        putchar('\'');
    }
    if (o->suggest & CLI_FILES) printf(" paths=-f");
    if (o->suggest & CLI_FOLDERS) printf(" paths=-d");
}

static void bash_command(const struct cli_command *c)
{
    printf("    '%s')\n        options='", c->name);
    FOR_EACH_OPTION(o, c)
    {
        if (o->type == CLI_WORD) continue;
        print_names(o, " ");
        putchar(' ');
    }
    printf("--help'\n        case $previous in\n");
    FOR_EACH_OPTION(o, c)
    {
        if (!takes_value(o)) continue;
        printf("        ");
        print_names(o, " | ");
        printf(") value=1");
        bash_value(o);
        printf(" ;;\n");
    }
    printf("        *) value=''");
    FOR_EACH_OPTION(o, c)
    if (o->type == CLI_WORD) bash_value(o);
    printf(" ;;\n        esac\n        ;;\n");
}

static void print_command_names(const struct cli_command *const *commands, const char *separator)
{
    for (size_t i = 0; commands[i]; i++)
        printf("%s%s", i ? separator : "", cli_last_name(commands[i]));
}

ember_status cli_completion_bash(void)
{
    EMBER_TRY(ember_start());
    printf("# Completion of ember for bash, made from the program's tables of options.\n"
           "_ember() {\n"
           "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    local command='' options='' words='' paths='' value=''\n"
           "    COMPREPLY=()\n"
           "    # --dtype=f comes as three words\n"
           "    if [[ $current == '=' ]]; then\n"
           "        current=''\n"
           "    elif [[ $previous == '=' ]]; then\n"
           "        previous=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    fi\n"
           "    if ((COMP_CWORD > 1)); then command=${COMP_WORDS[1]}; fi\n");
    for (size_t i = 0; cli_commands[i]; i++)
        if (is_group(cli_commands[i]))
            printf("    if [[ $command == %s ]] && ((COMP_CWORD > 2)); then command+=\" "
                   "${COMP_WORDS[2]}\"; fi\n",
                   cli_commands[i]->name);
    printf("    case $command in\n    '')\n        words='");
    print_command_names(cli_commands, " ");
    printf(" help' options='--help --version'\n        ;;\n    help)\n        words='");
    print_command_names(cli_commands, " ");
    printf("'\n        ;;\n");
    for (size_t i = 0; cli_commands[i]; i++) {
        if (!is_group(cli_commands[i])) continue;
        printf("    %s)\n        words='", cli_commands[i]->name);
        print_command_names(cli_commands[i]->commands, " ");
        printf("' options='--help'\n        ;;\n");
    }
    for_each(bash_command);
    printf("    esac\n"
           "    if [[ ! $value && ( $current == -* || ! $words$paths ) ]]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
           "        return\n"
           "    fi\n"
           "    if [[ $words ]]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
           "    fi\n"
           "    if [[ $paths ]]; then\n"
           "        compopt -o filenames 2>/dev/null\n"
           "        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen \"$paths\" -- "
           "\"$current\")\n"
           "    fi\n"
           "}\n"
           "complete -F _ember ember\n");
    return EMBER_OK;
}

static void zsh_action(const struct cli_option *o)
{
    const unsigned paths = o->suggest & (CLI_FILES | CLI_FOLDERS);
    const char *files = o->suggest & CLI_FOLDERS ? "_files -/" : "_files";
    if (has_words(o) && paths) {
        printf("{compadd");
        print_words(o, " ");
        printf("; %s}", files);
    } else if (has_words(o)) {
        printf("(");
        print_words(o, " ");
        printf(")");
    } else {
        printf("%s", paths ? files : " ");
    }
}

static void zsh_command(const struct cli_command *c)
{
    int word = 1;
    printf("    '%s')\n        _arguments", c->name);
    FOR_EACH_OPTION(o, c)
    {
        const char *name;
        size_t n;
        for (size_t i = 0; (name = cli_name_at(o, i, &n)); i++) {
            if (o->type == CLI_WORD)
                printf(" \\\n            '%d:%s:", word++, o->name);
            else {
                printf(" \\\n            '%s%s%.*s%s[", o->type == CLI_LIST ? "*" : "",
                       n == 1 ? "-" : "--", (int)n, name,
                       !takes_value(o) ? ""
                       : n == 1        ? "+"
                                       : "=");
                put_quoted(o->help, "[]:\\");
                printf("]");
                if (takes_value(o)) printf(":%s:", o->value);
            }
            if (o->type != CLI_FLAG) zsh_action(o);
            putchar('\'');
        }
    }
    printf(" \\\n            '--help[this text]'\n        ;;\n");
}

static void zsh_commands(const struct cli_command *const *commands)
{
    printf("        commands=(\n");
    for (size_t i = 0; commands[i]; i++) {
        printf("            '%s:", cli_last_name(commands[i]));
        put_quoted(commands[i]->help, ":\\");
        printf("'\n");
    }
    printf("        )\n        _describe -t commands command commands\n");
}

ember_status cli_completion_zsh(void)
{
    EMBER_TRY(ember_start());
    printf("#compdef ember\n"
           "# Completion of ember for zsh, made from the program's tables of options.\n"
           "_ember() {\n"
           "    local command=$words[2]\n"
           "    local -a commands\n"
           "    if ((CURRENT == 2)); then\n");
    zsh_commands(cli_commands);
    printf("        return\n    fi\n    shift words\n    ((CURRENT--))\n");
    for (size_t i = 0; cli_commands[i]; i++) {
        if (!is_group(cli_commands[i])) continue;
        printf("    if [[ $command == %s ]]; then\n        if ((CURRENT == 2)); then\n",
               cli_commands[i]->name);
        zsh_commands(cli_commands[i]->commands);
        printf("        return\n        fi\n        command+=\" $words[2]\"\n        shift words\n"
               "        ((CURRENT--))\n    fi\n");
    }
    printf("    case $command in\n");
    for_each(zsh_command);
    printf("    esac\n}\n_ember \"$@\"\n");
    return EMBER_OK;
}

static void fish_value(const struct cli_option *o)
{
    const bool paths = o->suggest & (CLI_FILES | CLI_FOLDERS);
    printf(paths ? " -F" : "");
    if (!has_words(o)) return;
    printf(" -a '");
    print_words(o, " ");
    printf("'");
}

static void fish_command(const struct cli_command *c)
{
    FOR_EACH_OPTION(o, c)
    {
        const char *name;
        size_t n;
        printf("complete -c ember -n '__ember_is %s'", c->name);
        for (size_t i = 0; o->type != CLI_WORD && (name = cli_name_at(o, i, &n)); i++)
            printf(" -%c %.*s", n == 1 ? 's' : 'l', (int)n, name);
        if (takes_value(o)) printf(o->suggest & (CLI_FILES | CLI_FOLDERS) ? " -r" : " -x");
        if (o->type != CLI_FLAG) fish_value(o);
        if (o->type != CLI_WORD) {
            printf(" -d '");
            put_quoted(o->help, "\\");
            printf("'");
        }
        putchar('\n');
    }
}

static void fish_group(const char *condition, const struct cli_command *const *commands)
{
    for (size_t i = 0; commands[i]; i++) {
        printf("complete -c ember -n '%s' -a %s -d '", condition, cli_last_name(commands[i]));
        put_quoted(commands[i]->help, "\\");
        printf("'\n");
    }
}

ember_status cli_completion_fish(void)
{
    EMBER_TRY(ember_start());
    printf("# Completion of ember for fish, made from the program's tables of options.\n"
           "function __ember_is\n"
           "    set -l typed (commandline -opc)\n"
           "    for i in (seq (count $argv))\n"
           "        set -l place (math $i + 1)\n"
           "        test \"$typed[$place]\" = \"$argv[$i]\"; or return 1\n"
           "    end\n"
           "end\n"
           "function __ember_needs\n"
           "    __ember_is $argv; and test (count (commandline -opc)) -eq (math (count $argv) + "
           "1)\n"
           "end\n"
           "complete -c ember -f\n");
    fish_group("__ember_needs", cli_commands);
    printf("complete -c ember -l help -s h -d 'usage and options'\n"
           "complete -c ember -n '__ember_needs' -l version -d 'version and build'\n");
    for (size_t i = 0; cli_commands[i]; i++) {
        char condition[64];
        snprintf(condition, sizeof condition, "__ember_needs %s", cli_commands[i]->name);
        if (is_group(cli_commands[i])) fish_group(condition, cli_commands[i]->commands);
    }
    for_each(fish_command);
    return EMBER_OK;
}
