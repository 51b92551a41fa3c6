#include "options.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/plugin.h>

#include "help.h"

#define COMMON(field) offsetof(struct cli_common, field)

const struct cli_option cli_common_options[] = {
    {"threads", CLI_SIZE, COMMON(threads), "N", "threads to compute with",
     .otherwise = "what affinity and cgroup quota allow", .min = 1, .max = 1024},
    {"backend", CLI_CHOICE, COMMON(backend), "NAME",
     "the code to compute with; reference: plain loops, slow", .otherwise = "cpu",
     .choices = "reference|cpu"},
    {"dtype", CLI_CHOICE, COMMON(dtype), "NAME", "number format of matrix products",
     .otherwise = "what the command says", .choices = "f32|bf16"},
    {"seed", CLI_U64, COMMON(runtime.seed), "N", "of everything random", .otherwise = "0",
     .given = COMMON(seed_given)},
    {"plugin", CLI_LIST, COMMON(plugins), "FILE.so",
     "a shared object with more components; it is code that runs with your rights",
     .suggest = CLI_FILES},
    {"quiet", CLI_FLAG, COMMON(quiet), .help = "warnings and errors only on stderr"},
    {0},
};

const struct cli_option cli_json_option[] = {
    {"json", CLI_FLAG, COMMON(json), .help = "figures as one JSON object on stdout"},
    {0},
};

int cli_fail(ember_status status)
{
    if (status == EMBER_OK) return EXIT_OK;
    if (status == EMBER_E_INTERRUPTED) return EXIT_STOPPED;
    fprintf(stderr, "ember: %s\n", ember_last_error());
    return status == EMBER_E_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int cli_no_memory(const char *what)
{
    fprintf(stderr, "ember: out of memory: %s\n", what);
    return EXIT_FAILED;
}

int cli_usage(const struct cli_command *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "ember %s: ", command->name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (see `ember %s --help`)\n", command->name);
    va_end(arguments);
    return EXIT_USAGE;
}

static void on_signal(int number)
{
    (void)number;
    ember_interrupt();
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    action.sa_flags = (int)SA_RESETHAND; // a second signal ends the program at once
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

const char *cli_choice_at(const char *choices, size_t i, size_t *n)
{
    for (const char *at = choices; at; at = at[*n] ? at + *n + 1 : NULL) {
        *n = strcspn(at, "|");
        if (i-- == 0) return at;
    }
    return NULL;
}

const char *cli_name_at(const struct cli_option *o, size_t i, size_t *n)
{
    return cli_choice_at(o->name, i, n);
}

// The longest command line has fewer options, common ones included; a test counts them.
enum { MOST_OPTIONS = 64 };

// An option with the struct that its field is in.
struct slot {
    const struct cli_option *option;
    void *fields;
    bool given;
};

struct parser {
    const struct cli_command *command;
    struct slot slot[MOST_OPTIONS];
    size_t count;
    size_t words;
};

static void *field(const struct slot *s)
{
    return (char *)s->fields + s->option->offset;
}

bool cli_is_replaced(const struct cli_command *c, const struct cli_option *o)
{
    for (const struct cli_option *own = c ? c->options : NULL; own && own->name; own++) {
        if (own == o) return false;
        if (strcmp(own->name, o->name) == 0) return true;
    }
    return false;
}

static void add_table(struct parser *p, const struct cli_option *table, void *fields)
{
    for (; table && table->name && p->count < MOST_OPTIONS; table++)
        if (!cli_is_replaced(p->command, table))
            p->slot[p->count++] = (struct slot){table, fields, false};
}

static struct slot *find(struct parser *p, const char *word, size_t length)
{
    size_t n;
    const char *name;
    for (size_t s = 0; s < p->count; s++) {
        if (p->slot[s].option->type == CLI_WORD) continue;
        for (size_t i = 0; (name = cli_name_at(p->slot[s].option, i, &n)); i++)
            if (n == length && memcmp(name, word, n) == 0) return &p->slot[s];
    }
    return NULL;
}

static int wrong_choice(const struct parser *p, const struct cli_option *o, const char *text)
{
    char list[128] = "";
    const char *names[16], *choice;
    char copies[16][32];
    size_t n, count = 0;
    for (; count < 16 && (choice = cli_choice_at(o->choices, count, &n)); count++) {
        if (n >= sizeof copies[count]) n = sizeof copies[count] - 1;
        memcpy(copies[count], choice, n);
        copies[count][n] = 0;
        names[count] = copies[count];
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s",
                 !used       ? ""
                 : choice[n] ? ", "
                             : " or ",
                 copies[count]);
    }
    const char *near = ember_nearest(text, names, count);
    return cli_usage(p->command, "--%s has to be %s, not %s%s%s%s", o->name, list, text,
                     near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int add_item(struct cli_list *list, const char *text)
{
    const char **item = realloc(list->item, (list->count + 1) * sizeof *item);
    if (!item) return cli_no_memory("the command line");
    list->item = item;
    list->item[list->count++] = text;
    return -1;
}

// Returns -1 to go on, else the exit status.
static int set_value(const struct parser *p, struct slot *s, const char *shown, const char *text)
{
    const struct cli_option *o = s->option;
    char *end;
    double number = 0;
    errno = 0;
    switch (o->type) {
    case CLI_SIZE:
    case CLI_U64: {
        const unsigned long long v = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno)
            return cli_usage(p->command, "%s needs a whole number, not \"%s\"", shown, text);
        if (o->type == CLI_SIZE)
            *(size_t *)field(s) = (size_t)v;
        else
            *(uint64_t *)field(s) = v;
        number = (double)v;
        break;
    }
    case CLI_DOUBLE:
        number = strtod(text, &end);
        if (end == text || *end || errno || !isfinite(number))
            return cli_usage(p->command, "%s needs a number, not \"%s\"", shown, text);
        *(double *)field(s) = number;
        break;
    case CLI_WORD:
    case CLI_STRING: *(const char **)field(s) = text; break;
    case CLI_CHOICE: {
        size_t n;
        const char *choice;
        for (int i = 0; (choice = cli_choice_at(o->choices, (size_t)i, &n)); i++)
            if (strlen(text) == n && memcmp(choice, text, n) == 0) *(int *)field(s) = i + 1;
        if (!*(int *)field(s)) return wrong_choice(p, o, text);
        break;
    }
    case CLI_LIST: return add_item(field(s), text);
    case CLI_FLAG:
    case CLI_END: break;
    }
    if ((o->min != 0 || o->max != 0) && (number < o->min || number > o->max))
        return cli_usage(p->command, "%s has to be within %.10g and %.10g, not %s", shown, o->min,
                         o->max, text);
    return -1;
}

static int unknown_option(const struct parser *p, const char *word)
{
    const char *names[MOST_OPTIONS + 1], *bare = word + strspn(word, "-");
    size_t n = 0;
    char head[64];
    snprintf(head, sizeof head, "%.*s", (int)strcspn(bare, "="), bare);
    for (size_t i = 0; i < p->count; i++) {
        const struct cli_option *o = p->slot[i].option;
        if (o->type == CLI_WORD) continue;
        const char *last = strrchr(o->name, '|');
        names[n++] = last ? last + 1 : o->name;
    }
    names[n++] = "help";
    const char *near = ember_nearest(head, names, n);
    if (near)
        return cli_usage(p->command, "there is no option %s, did you mean %s%s?", word,
                         near[1] ? "--" : "-", near);
    return cli_usage(p->command, "there is no option %s", word);
}

static int parse_option(struct parser *p, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *name = word + (word[1] == '-' ? 2 : 1);
    const size_t length = strcspn(name, "=");
    // One letter may have two dashes, a word has to.
    struct slot *s = word[1] == '-' || length == 1 ? find(p, name, length) : NULL;
    if (!s) return unknown_option(p, word);
    const struct cli_option *o = s->option;
    s->given = true;
    if (o->given) *(bool *)((char *)s->fields + o->given) = true;
    if (o->type == CLI_FLAG) {
        if (name[length]) return cli_usage(p->command, "--%.*s takes no value", (int)length, name);
        *(bool *)field(s) = true;
        return -1;
    }
    // A choice that is typed twice: the last counts.
    if (o->type == CLI_CHOICE) *(int *)field(s) = 0;
    if (name[length]) {
        char shown[64];
        snprintf(shown, sizeof shown, "%.*s", (int)(strcspn(word, "=")), word);
        return set_value(p, s, shown, name + length + 1);
    }
    if (*i + 1 >= argc)
        return cli_usage(p->command, "%s needs a value: %s", word, o->value ? o->value : "VALUE");
    int status = set_value(p, s, word, argv[++*i]);
    while (status < 0 && o->many && *i + 1 < argc && (argv[*i + 1][0] != '-' || !argv[*i + 1][1]))
        status = set_value(p, s, word, argv[++*i]);
    return status;
}

static int parse_word(struct parser *p, const char *word)
{
    size_t place = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct slot *s = &p->slot[i];
        if (s->option->type != CLI_WORD || place++ < p->words) continue;
        p->words++;
        s->given = true;
        return set_value(p, s, s->option->name, word);
    }
    return cli_usage(p->command, "unexpected \"%s\"", word);
}

// What is needed and was not typed, in one line.
static int check_needed(const struct parser *p)
{
    const struct cli_option *missing[MOST_OPTIONS];
    size_t count = 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->slot[i].option->needed && !p->slot[i].given) missing[count++] = p->slot[i].option;
    if (!count) return -1;
    char list[512] = "";
    for (size_t i = 0; i < count; i++) {
        const struct cli_option *o = missing[i];
        const bool word = o->type == CLI_WORD;
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s%s%s%s",
                 !i              ? ""
                 : i + 1 < count ? ", "
                                 : " and ",
                 cli_names(o, "|").text, word ? " (" : "", word ? o->help : "", word ? ")" : "");
    }
    return cli_usage(p->command, "%s %s needed", list, count == 1 ? "is" : "are");
}

static int set_presets(struct parser *p)
{
    int status = -1;
    for (size_t i = 0; status < 0 && i < p->count; i++)
        if (p->slot[i].option->preset)
            status = set_value(p, &p->slot[i], p->slot[i].option->name, p->slot[i].option->preset);
    return status;
}

// Returns -1 to go on, else the exit status: after --help EXIT_OK.
static int parse(struct parser *p, int argc, char **argv)
{
    int status = set_presets(p);
    bool only_words = false;
    for (int i = 1; status < 0 && i < argc; i++) {
        const char *word = argv[i];
        if (!only_words && (!strcmp(word, "--help") || !strcmp(word, "-h")))
            return cli_help(p->command);
        if (!only_words && !strncmp(word, "--help=", 7)) return cli_help_as(p->command, word + 7);
        if (!only_words && !strcmp(word, "--"))
            only_words = true;
        else if (!only_words && word[0] == '-' && word[1])
            status = parse_option(p, argc, argv, &i);
        else
            status = parse_word(p, word);
    }
    return status < 0 ? check_needed(p) : status;
}

static int start(struct cli_common *common)
{
    ember_runtime *r = &common->runtime;
    r->threads = (unsigned)common->threads;
    r->backend = common->backend == 1   ? EMBER_BACKEND_REFERENCE
                 : common->backend == 2 ? EMBER_BACKEND_CPU
                                        : EMBER_BACKEND_DEFAULT;
    r->compute = common->dtype == 1   ? EMBER_COMPUTE_F32
                 : common->dtype == 2 ? EMBER_COMPUTE_BF16
                                      : EMBER_COMPUTE_DEFAULT;
    ember_quiet(common->quiet);
    ember_status status = ember_start();
    for (size_t i = 0; status == EMBER_OK && i < common->plugins.count; i++)
        status = ember_plugin_load(common->plugins.item[i]);
    return status == EMBER_OK ? -1 : cli_fail(status);
}

static int run_one(const struct cli_command *command, int argc, char **argv)
{
    struct cli_common common = {0};
    struct parser p = {.command = command};
    void *arguments = calloc(1, command->size ? command->size : 1);
    if (!arguments) return cli_no_memory("the command line");
    add_table(&p, command->options, arguments);
    add_table(&p, command->json ? cli_json_option : NULL, &common);
    add_table(&p, cli_common_options, &common);
    int status = parse(&p, argc, argv);
    if (status < 0) status = start(&common);
    if (status < 0) status = command->run(&common, arguments);
    for (size_t i = 0; i < p.count; i++)
        if (p.slot[i].option->type == CLI_LIST) free(((struct cli_list *)field(&p.slot[i]))->item);
    free(arguments);
    return status;
}

int cli_run(const struct cli_command *command, int argc, char **argv)
{
    if (!command->commands) return run_one(command, argc, argv);
    const char *names[32];
    char list[256] = "";
    size_t n = 0;
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return cli_help(command);
    if (argc > 1 && !strncmp(argv[1], "--help=", 7)) return cli_help_as(command, argv[1] + 7);
    for (; command->commands[n] && n < 32; n++) {
        const char *space = strrchr(command->commands[n]->name, ' ');
        names[n] = space ? space + 1 : command->commands[n]->name;
        if (argc > 1 && !strcmp(argv[1], names[n]))
            return cli_run(command->commands[n], argc - 1, argv + 1);
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s",
                 !used                      ? ""
                 : command->commands[n + 1] ? ", "
                                            : " and ",
                 names[n]);
    }
    if (argc < 2 || argv[1][0] == '-') return cli_usage(command, "one of %s comes first", list);
    if (command->unknown) return command->unknown(argv[1]);
    const char *near = ember_nearest(argv[1], names, n);
    return cli_usage(command, "there is no \"%s\"%s%s%s", argv[1], near ? ", did you mean \"" : "",
                     near ? near : "", near ? "\"?" : "");
}
