#include "options.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/plugin.h>

int cli_fail(ember_status status)
{
    if (status == EMBER_OK) return EXIT_OK;
    if (status == EMBER_E_INTERRUPTED) return EXIT_STOPPED;
    fprintf(stderr, "ember: %s\n", ember_last_error());
    return status == EMBER_E_USAGE ? EXIT_USAGE : EXIT_FAILED;
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

// Edit distance with exchanges of neighbours, of words up to 63 bytes.
static size_t distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    const size_t n = strlen(a), m = strlen(b);
    size_t row[3][MAX];
    if (n >= MAX || m >= MAX) return MAX;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *before = row[(i + 2) % 3], *earlier = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t replace = before[j - 1] + (a[i - 1] != b[j - 1]);
            size_t best = before[j] + 1 < now[j - 1] + 1 ? before[j] + 1 : now[j - 1] + 1;
            if (replace < best) best = replace;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                earlier[j - 2] + 1 < best)
                best = earlier[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *cli_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        const size_t d = distance(word, names[i]);
        if (d <= least && (d < least || !best)) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

struct parser {
    const struct cli_command *command;
    struct cli_option table[64];
    size_t count;
    struct cli_common *common;
    const char *backend, *dtype;
    struct cli_list plugins;
    size_t threads;
};

// "p|prompt" is -p and --prompt.
static bool is_named(const struct cli_option *o, const char *word, size_t length)
{
    for (const char *name = o->name; name;) {
        const size_t n = strcspn(name, "|");
        if (n == length && memcmp(name, word, n) == 0) return true;
        name = name[n] ? name + n + 1 : NULL;
    }
    return false;
}

static const struct cli_option *find(const struct parser *p, const char *word, size_t length)
{
    for (size_t i = 0; i < p->count; i++)
        if (is_named(&p->table[i], word, length)) return &p->table[i];
    return NULL;
}

static void print_options(const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct cli_option *o = &options[i];
        char left[80], *at = left;
        size_t room = sizeof left;
        for (const char *name = o->name; name;) {
            const size_t n = strcspn(name, "|");
            const int used = snprintf(at, room, "%s%s%.*s", at == left ? "" : ", ",
                                      n == 1 ? "-" : "--", (int)n, name);
            at += used, room -= (size_t)used;
            name = name[n] ? name + n + 1 : NULL;
        }
        if (o->value) snprintf(at, room, " %s%s", o->value, o->many ? "..." : "");
        printf("  %-26s %s%s%s%s\n", left, o->help, o->preset ? " (default " : "",
               o->preset ? o->preset : "", o->preset ? ")" : "");
    }
}

static int print_help(const struct parser *p, size_t own)
{
    printf("usage: ember %s %s\n\n%s\n", p->command->name, p->command->usage, p->command->help);
    if (own) printf("\noptions:\n");
    print_options(p->table, own);
    printf("\nof every command:\n");
    print_options(p->table + own, p->count - own);
    printf("  %-26s %s\n", "-h, --help", "this text");
    return EXIT_OK;
}

static int set_value(const struct parser *p, const struct cli_option *o, const char *shown,
                     const char *text)
{
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
            *(size_t *)o->target = (size_t)v;
        else
            *(uint64_t *)o->target = v;
        number = (double)v;
        break;
    }
    case CLI_DOUBLE:
        number = strtod(text, &end);
        if (end == text || *end || errno || !isfinite(number))
            return cli_usage(p->command, "%s needs a number, not \"%s\"", shown, text);
        *(double *)o->target = number;
        break;
    case CLI_STRING: *(const char **)o->target = text; break;
    case CLI_LIST: {
        struct cli_list *list = o->target;
        const char **item = realloc(list->item, (list->count + 1) * sizeof *item);
        if (!item) return cli_usage(p->command, "out of memory");
        list->item = item;
        list->item[list->count++] = text;
        break;
    }
    case CLI_FLAG:
    case CLI_END: break;
    }
    if ((o->min != 0 || o->max != 0) && (number < o->min || number > o->max))
        return cli_usage(p->command, "%s has to be within %g and %g, not %s", shown, o->min, o->max,
                         text);
    return -1;
}

static int unknown_option(const struct parser *p, const char *word)
{
    const char *names[64], *bare = word + strspn(word, "-");
    size_t n = 0;
    char head[64];
    snprintf(head, sizeof head, "%.*s", (int)strcspn(bare, "="), bare);
    for (size_t i = 0; i < p->count; i++) {
        const char *last = strrchr(p->table[i].name, '|');
        names[n++] = last ? last + 1 : p->table[i].name;
    }
    const char *near = cli_nearest(head, names, n);
    if (near)
        return cli_usage(p->command, "there is no option %s, did you mean %s%s?", word,
                         near[1] ? "--" : "-", near);
    return cli_usage(p->command, "there is no option %s", word);
}

static int finish_common(struct parser *p)
{
    ember_runtime *r = &p->common->runtime;
    r->threads = (unsigned)p->threads;
    if (p->backend) {
        if (!strcmp(p->backend, "reference"))
            r->backend = EMBER_BACKEND_REFERENCE;
        else if (!strcmp(p->backend, "cpu"))
            r->backend = EMBER_BACKEND_CPU;
        else
            return cli_usage(p->command,
                             "--backend %s is not in this build; there are reference and cpu",
                             p->backend);
    }
    if (p->dtype) {
        if (!strcmp(p->dtype, "f32"))
            r->compute = EMBER_COMPUTE_F32;
        else if (!strcmp(p->dtype, "bf16"))
            r->compute = EMBER_COMPUTE_BF16;
        else
            return cli_usage(p->command, "--dtype has to be f32 or bf16, not %s", p->dtype);
    }
    ember_quiet(p->common->quiet);
    ember_status status = ember_start();
    for (size_t i = 0; status == EMBER_OK && i < p->plugins.count; i++)
        status = ember_plugin_load(p->plugins.item[i]);
    return status == EMBER_OK ? -1 : cli_fail(status);
}

static int parse_option(struct parser *p, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *name = word + (word[1] == '-' ? 2 : 1);
    const size_t length = strcspn(name, "=");
    // One letter may have two dashes, a word has to.
    const struct cli_option *o = word[1] == '-' || length == 1 ? find(p, name, length) : NULL;
    if (!o) return unknown_option(p, word);
    if (o->given) *o->given = true;
    if (o->type == CLI_FLAG) {
        if (name[length]) return cli_usage(p->command, "--%.*s takes no value", (int)length, name);
        *(bool *)o->target = true;
        return -1;
    }
    if (name[length]) return set_value(p, o, word, name + length + 1);
    if (*i + 1 >= argc)
        return cli_usage(p->command, "%s needs a value: %s", word, o->value ? o->value : "VALUE");
    int status = set_value(p, o, word, argv[++*i]);
    while (status < 0 && o->many && *i + 1 < argc && (argv[*i + 1][0] != '-' || !argv[*i + 1][1]))
        status = set_value(p, o, word, argv[++*i]);
    return status;
}

static int parse(struct parser *p, size_t own, int argc, char **argv, const char **words,
                 size_t max_words, size_t *n_words)
{
    *n_words = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_words && (!strcmp(word, "--help") || !strcmp(word, "-h")))
            return print_help(p, own);
        if (!only_words && !strcmp(word, "--")) {
            only_words = true;
        } else if (!only_words && word[0] == '-' && word[1]) {
            const int status = parse_option(p, argc, argv, &i);
            if (status >= 0) return status;
        } else if (*n_words == max_words) {
            return cli_usage(p->command, "unexpected \"%s\"", word);
        } else {
            words[(*n_words)++] = word;
        }
    }
    return finish_common(p);
}

int cli_parse(const struct cli_command *command, const struct cli_option *options, int argc,
              char **argv, struct cli_common *common, const char **words, size_t max_words,
              size_t *n_words)
{
    struct parser p = {.command = command, .common = common};
    size_t own = 0;
    for (; options && options[own].name; own++)
        p.table[p.count++] = options[own];
    const struct cli_option shared[] = {
        {"threads", CLI_SIZE, &p.threads, "N", "all allowed", "threads to compute with", 1, 4096,
         false, NULL},
        {"backend", CLI_STRING, &p.backend, "NAME", "cpu", "reference or cpu", 0, 0, false, NULL},
        {"dtype", CLI_STRING, &p.dtype, "NAME", NULL,
         "number format of matrix products: f32 or bf16", 0, 0, false, NULL},
        {"seed", CLI_U64, &common->runtime.seed, "N", NULL, "of everything random", 0, 0, false,
         &common->seed_given},
        {"plugin", CLI_LIST, &p.plugins, "FILE.so", NULL,
         "a shared object with more components; may be given several times", 0, 0, false, NULL},
        {"json", CLI_FLAG, &common->json, NULL, NULL,
         "results as JSON, where a command prints figures", 0, 0, false, NULL},
        {"quiet", CLI_FLAG, &common->quiet, NULL, NULL, "warnings and errors only", 0, 0, false,
         NULL},
    };
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        if (!find(&p, shared[i].name, strlen(shared[i].name))) p.table[p.count++] = shared[i];
    const int status = parse(&p, own, argc, argv, words, max_words, n_words);
    free(p.plugins.item);
    return status;
}
