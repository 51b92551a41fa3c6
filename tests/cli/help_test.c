// What the tables of options make: --help, man pages, completion of shells. What one of them lists
// all of them list.
#include <stdbool.h>
#include <sys/stat.h>

#include "cli/program.h"

// Every command, as it is typed, with the options that it is known for.
static const struct {
    const char *words[2];
    const char *options; // each with a space behind
    bool json;
} commands[] = {
    {{"train"}, "--preset --data --out --set --resume --dry-run ", true},
    {{"generate"},
     "-p --prompt --prompt-ids -n --temperature --top-k --top-p --min-p --repeat-penalty --stop "
     "--sampler-order --session --draft --ids --file --out ",
     false},
    {{"eval"}, "--data --context --llama-windows ", true},
    {{"forward"}, "--in --out --grad --chunk ", false},
    {{"tokenizer", "train"}, "--data --out --vocab ", true},
    {{"tokenizer", "encode"}, "--file --no-special ", false},
    {{"tokenizer", "decode"}, "--file --no-special ", false},
    {{"tokenizer", "inspect"}, "", true},
    {{"inspect"}, "", true},
    {{"plan"}, "--batch --seq --devices --data ", true},
    {{"bench", "train"}, "--config --batch --seq --steps ", true},
    {{"bench", "prefill"}, "--tokens ", true},
    {{"bench", "decode"}, "--tokens --context ", true},
    {{"bench", "gemm"}, "-m -n -k ", true},
    {{"bench", "attention"}, "--batch --length --heads --kv-heads --head-dim --backward ", true},
    {{"bench", "recurrent"}, "--type --batch --length --input --units --wiring --backward ", true},
    {{"bench", "fftconv"}, "--batch --channels --length --gated --backward ", true},
    {{"bench", "moe"}, "--tokens --dim --hidden --experts --top-k --backward ", true},
    {{"bench", "elementwise"}, "--tokens --dim ", true},
    {{"bench", "optimizer"}, "--parameters ", true},
    {{"bench", "cross_entropy"}, "--tokens --dim --vocab ", true},
    {{"registry"}, "--kind ", true},
    {{"info"}, "", true},
};
enum { COMMANDS = sizeof commands / sizeof *commands };
static const char shared[] = "--threads --backend --dtype --seed --plugin --quiet --help ";

// Runs a command of the shell that sees the program as $ember.
static char *shell(const char *command)
{
    char line[4096], *text = calloc(1, 1 << 16);
    assert_non_null(text);
    snprintf(line, sizeof line, "ember='%s'; %s", EMBER_PROGRAM, command);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    text[fread(text, 1, (1 << 16) - 1, f)] = 0;
    if (pclose(f) != 0) fail_msg("%s: %s", command, text);
    return text;
}

// What the program prints.
static char *text_of(const char *a, const char *b, const char *c)
{
    char line[256];
    snprintf(line, sizeof line, "\"$ember\" %s %s %s 2>&1", a, b ? b : "", c ? c : "");
    return shell(line);
}

static char *help_of(size_t i)
{
    return commands[i].words[1] ? text_of(commands[i].words[0], commands[i].words[1], "--help")
                                : text_of(commands[i].words[0], "--help", NULL);
}

// The options that --help lists, each with a space behind: words with a dash in the left column.
static void options_of(const char *help, char *list, size_t size)
{
    *list = 0;
    for (const char *line = help; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "  -", 3) != 0) continue;
        for (const char *at = line + 2; *at == '-';) {
            const size_t n = strcspn(at, " ,\n");
            assert_true(strlen(list) + n + 2 < size);
            strncat(list, at, n);
            strcat(list, " ");
            at += n;
            at += strspn(at, ", ");
        }
    }
}

static bool holds(const char *list, const char *option, size_t n)
{
    for (const char *at = list; (at = strchr(at, '-')); at += strcspn(at, " "))
        if (strncmp(at, option, n) == 0 && at[n] == ' ') return true;
    return false;
}

static void check_listed(size_t i, const char *expected, const char *listed)
{
    for (const char *at = expected; *at; at += strcspn(at, " ") + 1)
        if (!holds(listed, at, strcspn(at, " ")))
            fail_msg("ember %s %s lacks %.*s in: %s", commands[i].words[0],
                     commands[i].words[1] ? commands[i].words[1] : "", (int)strcspn(at, " "), at,
                     listed);
}

// Every option has its default, or says that it is needed.
static void check_defaults(const char *help)
{
    for (const char *at = help; (at = strstr(at, "\n  -"));) {
        const char *end = ++at; // of the lines that belong to this option: the further are indented
        do {
            end += strcspn(end, "\n");
            end += *end != 0;
        } while (strncmp(end, "   ", 3) == 0);
        if (strncmp(at, "  -h, --help", 12) == 0) continue;
        const char *said = strstr(at, "default"), *needed = strstr(at, "needed)");
        if ((!said || said > end) && (!needed || needed > end))
            fail_msg("no default: %.*s", (int)(end - at), at);
        at = end - 1;
    }
}

static void help_lists_the_options_of_every_command(void **state)
{
    (void)state;
    setenv("COLUMNS", "80", 1);
    for (size_t i = 0; i < COMMANDS; i++) {
        char listed[2048];
        char *help = help_of(i);
        assert_int_equal(strncmp(help, "usage: ember ", 13), 0);
        options_of(help, listed, sizeof listed);
        check_listed(i, commands[i].options, listed);
        check_listed(i, shared, listed);
        assert_true(holds(listed, "--json", 6) == commands[i].json);
        check_defaults(help);
        free(help);
    }
}

static void help_is_as_wide_as_the_terminal(void **state)
{
    (void)state;
    static const int widths[] = {50, 80, 120};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        char columns[16];
        snprintf(columns, sizeof columns, "%d", widths[w]);
        setenv("COLUMNS", columns, 1);
        for (size_t i = 0; i < COMMANDS; i += 5) {
            char *help = help_of(i), *examples = strstr(help, "\nexamples:");
            if (examples) *examples = 0; // are not wrapped: they can be copied
            for (const char *line = help; *line; line += line[strcspn(line, "\n")] ? 1 : 0) {
                if (strcspn(line, "\n") > (size_t)widths[w])
                    fail_msg("wider than %d: %.*s", widths[w], (int)strcspn(line, "\n"), line);
                line += strcspn(line, "\n");
            }
            free(help);
        }
    }
    unsetenv("COLUMNS");
}

// Man pages escape each dash.
static bool page_has(const char *page, const char *option, size_t n)
{
    char escaped[128] = "\\fB";
    for (size_t i = 0; i < n; i++) {
        const char one[] = {option[i], 0};
        strcat(escaped, option[i] == '-' ? "\\-" : one);
    }
    strcat(escaped, "\\fR");
    return strstr(page, escaped) != NULL;
}

static void man_pages_have_every_option(void **state)
{
    (void)state;
    for (size_t i = 0; i < COMMANDS; i++) {
        char listed[2048];
        char *help = help_of(i), *page = text_of(commands[i].words[0], "--help=man", NULL);
        options_of(help, listed, sizeof listed);
        for (const char *at = listed; *at; at += strcspn(at, " ") + 1)
            if (!page_has(page, at, strcspn(at, " ")))
                fail_msg("ember-%s(1) lacks %.*s", commands[i].words[0], (int)strcspn(at, " "), at);
        static const char *const sections[] = {".TH ",   ".SH NAME",        ".SH SYNOPSIS",
                                               ".SH DE", ".SH EXIT STATUS", ".SH SEE ALSO"};
        for (size_t k = 0; k < sizeof sections / sizeof *sections; k++)
            assert_non_null(strstr(page, sections[k]));
        free(page);
        free(help);
    }
    char *page = text_of("--help=man", NULL, NULL);
    for (size_t i = 0; i < COMMANDS; i++) {
        char name[64];
        snprintf(name, sizeof name, ".BR ember\\-%s (1)", commands[i].words[0]);
        assert_non_null(strstr(page, name));
    }
    free(page);
}

// The part of a completion script that belongs to a command begins with `head`.
static void check_script(const char *script, size_t i, const char *head, const char *listed,
                         const char *letter, const char *word)
{
    const char *part = strstr(script, head);
    if (!part) fail_msg("nothing for: %s", head);
    for (const char *at = listed; *at; at += strcspn(at, " ") + 1) {
        const size_t n = strcspn(at, " "), dashes = strspn(at, "-");
        if (n == 2 && at[1] == 'h') continue; // --help alone is offered
        // In fish once for all commands.
        if (!strncmp(at, "--help ", 7) && strstr(script, "-c ember -l help")) continue;
        char wanted[128];
        snprintf(wanted, sizeof wanted, "%s%.*s", dashes == 1 ? letter : word, (int)(n - dashes),
                 at + dashes);
        if (!strstr(part, wanted)) fail_msg("%s %s: no %s", commands[i].words[0], head, wanted);
    }
}

static void completion_has_every_option(void **state)
{
    (void)state;
    char *scripts[] = {text_of("--help=bash", NULL, NULL), text_of("--help=zsh", NULL, NULL),
                       text_of("--help=fish", NULL, NULL)};
    for (size_t i = 0; i < COMMANDS; i++) {
        char name[64], head[96], listed[2048];
        char *help = help_of(i);
        snprintf(name, sizeof name, "%s%s%s", commands[i].words[0], commands[i].words[1] ? " " : "",
                 commands[i].words[1] ? commands[i].words[1] : "");
        options_of(help, listed, sizeof listed);
        snprintf(head, sizeof head, "    '%s')\n", name);
        check_script(scripts[0], i, head, listed, "-", "--");
        check_script(scripts[1], i, head, listed, "'-", "--");
        snprintf(head, sizeof head, "'__ember_is %s'", name);
        check_script(scripts[2], i, head, listed, " -s ", " -l ");
        free(help);
    }
    for (size_t i = 0; i < 3; i++)
        free(scripts[i]);
}

// Types `words` into bash and asks for what the last of them may become.
static void check_completion(const char *words, const char *expected)
{
    char line[1024];
    snprintf(line, sizeof line,
             "bash -c 'source <(\"$0\" --help=bash); COMP_WORDS=(%s); "
             "COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _ember; echo \"${COMPREPLY[*]}\"' \"$ember\"",
             words);
    char *found = shell(line);
    found[strcspn(found, "\n")] = 0;
    if (strcmp(found, expected)) fail_msg("%s: %s (expected %s)", words, found, expected);
    free(found);
}

static void bash_completes(void **state)
{
    (void)state;
    if (system("command -v bash >/dev/null") != 0) skip();
    check_completion("ember tr", "train");
    check_completion("ember e", "eval");
    check_completion("ember help tok", "tokenizer");
    check_completion("ember tokenizer \"\"", "train encode decode inspect");
    check_completion("ember tokenizer encode --no", "--no-special");
    check_completion("ember train --pre", "--preset");
    check_completion("ember train --preset tiny", "tiny-moe");
    check_completion("ember train --dtype \"\"", "f32 bf16");
    check_completion("ember train --dtype = b", "bf16");
    check_completion("ember train --dtype =", "f32 bf16");
    check_completion("ember train --threads \"\"", "");
    check_completion("ember registry short_c", "short_conv");
    check_completion("ember registry --kind ro", "router");
    check_completion("ember bench gem", "gemm");
    check_completion("ember bench gemm --sec", "--seconds");
    check_completion("ember generate x --sampler-order h", "hf");
    check_completion("ember nothing --x", "");
    // Files, with spaces in their names, and folders alone where a folder is wanted.
    const char *folder = test_directory();
    fclose(fopen(test_path(folder, "my text.txt"), "w"));
    assert_int_equal(mkdir(test_path(folder, "my model"), 0700), 0);
    char words[512], expected[512];
    snprintf(words, sizeof words, "ember train --data %s/my\\ t", folder);
    snprintf(expected, sizeof expected, "%s/my text.txt", folder);
    check_completion(words, expected);
    snprintf(words, sizeof words, "ember eval %s/my", folder);
    snprintf(expected, sizeof expected, "%s/my model", folder);
    check_completion(words, expected);
}

static void other_tools_accept_what_is_made(void **state)
{
    (void)state;
    static const struct {
        const char *tool, *command;
    } checks[] = {
        {"groff", "for c in '' train generate tokenizer bench; do \"$ember\" $c --help=man | "
                  "groff -ww -b -z -man -Tutf8 2>&1; done"},
        {"mandoc", "for c in '' train generate tokenizer bench; do \"$ember\" $c --help=man | "
                   "mandoc -T lint -W error 2>&1; done"},
        {"zsh", "\"$ember\" --help=zsh | zsh -n 2>&1"},
        {"fish", "\"$ember\" --help=fish | fish -n 2>&1"},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        char there[64];
        snprintf(there, sizeof there, "command -v %s >/dev/null", checks[i].tool);
        if (system(there) != 0) {
            print_message("%s is not here\n", checks[i].tool);
            continue;
        }
        char *out = shell(checks[i].command);
        assert_string_equal(out, "");
        free(out);
    }
}

static void wrong_words_are_refused_with_the_nearest(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "no command \"trian\", did you mean \"train\"?", "trian");
    CHECK_PROGRAM(2, "there is no \"encod\", did you mean \"encode\"?", "tokenizer", "encod");
    CHECK_PROGRAM(2, "one of train, encode, decode and inspect comes first", "tokenizer");
    CHECK_PROGRAM(2, "--dtype has to be f32 or bf16, not bf61; did you mean bf16?", "info",
                  "--dtype", "bf61");
    CHECK_PROGRAM(2, "--backend has to be reference or cpu, not cuda", "info", "--backend", "cuda");
    CHECK_PROGRAM(2, "--threads has to be within 1 and 1024, not 0", "info", "--threads", "0");
    CHECK_PROGRAM(2, "--seed needs a whole number, not \"-1\"", "info", "--seed", "-1");
    CHECK_PROGRAM(2, "--seed needs a value: N", "info", "--seed");
    CHECK_PROGRAM(2, "--quiet takes no value", "info", "--quiet=yes");
    CHECK_PROGRAM(2, "there is no option --jsn, did you mean --json?", "info", "--jsn");
    CHECK_PROGRAM(2, "--help=html: there is man", "--help=html");
    CHECK_PROGRAM(2, "--help=zsh: there is man", "train", "--help=zsh");
    CHECK_PROGRAM(2, "a command comes first", NULL);
    char *a = text_of("help", "train", NULL), *b = text_of("train", "-h", NULL);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

// Results that cannot be written are a failure, whatever the reason.
static void output_that_is_lost_is_told(void **state)
{
    (void)state;
    char *out = shell("\"$ember\" registry 2>&1 >/dev/full; echo $?");
    assert_string_equal(out, "ember: cannot write to stdout: No space left on device\n1\n");
    free(out);
    out = shell("\"$ember\" registry 2>&1 >&-; echo $?");
    assert_string_equal(out, "ember: cannot write to stdout: Bad file descriptor\n1\n");
    free(out);
    // A reader that has gone: the program ends, in silence.
    char command[1024];
    const char *told = test_path(test_directory(), "told");
    snprintf(command, sizeof command,
             "(sleep 0.5; \"$ember\" registry 2>%s; echo $? >>%s) | true; cat %s", told, told,
             told);
    out = shell(command);
    assert_string_equal(out, "1\n");
    free(out);
}

// Without stdout the first file that is opened would take its place, and get the results.
static void a_file_does_not_become_stdout(void **state)
{
    (void)state;
    char command[1024];
    const char *folder = test_directory(), *text = test_path(folder, "text");
    FILE *f = fopen(text, "w");
    for (int i = 0; i < 200; i++)
        fprintf(f, "what is written is read again, line %d\n", i);
    fclose(f);
    snprintf(command, sizeof command,
             "\"$ember\" tokenizer train --data %s --out %s/t --vocab 300 2>/dev/null >&-; "
             "\"$ember\" tokenizer inspect %s/t >/dev/null && echo whole",
             text, folder, folder);
    char *out = shell(command);
    assert_non_null(strstr(out, "whole\n"));
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_the_options_of_every_command),
        cmocka_unit_test(help_is_as_wide_as_the_terminal),
        cmocka_unit_test(man_pages_have_every_option),
        cmocka_unit_test(completion_has_every_option),
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(other_tools_accept_what_is_made),
        cmocka_unit_test(wrong_words_are_refused_with_the_nearest),
        cmocka_unit_test(output_that_is_lost_is_told),
        cmocka_unit_test(a_file_does_not_become_stdout),
    };
    return cmocka_run_group_tests_name("help", tests, NULL, NULL);
}
