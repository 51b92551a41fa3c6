// ember tokenizer: training, encoding, decoding, inspecting.
#include <ember/tokenizer.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "options.h"

static const struct cli_command train_command = {
    .name = "tokenizer train",
    .usage = "--data PATH... --out DIR [--vocab N]",
    .help = "a byte-level BPE tokenizer from text, with LFM2's split pattern and special names",
};
static const struct cli_command encode_command = {
    .name = "tokenizer encode",
    .usage = "X [--file FILE] [--no-special]",
    .help =
        "text to ids, on one line; X is a folder or a tokenizer.json, the text comes from stdin",
};
static const struct cli_command decode_command = {
    .name = "tokenizer decode",
    .usage = "X [--file FILE] [--no-special]",
    .help = "ids to text; X is a folder or a tokenizer.json, the ids come from stdin",
};
static const struct cli_command inspect_command = {
    .name = "tokenizer inspect",
    .usage = "X",
    .help = "what a tokenizer consists of; X is a folder or a tokenizer.json",
};

static int fail_errno(const char *what, const char *path)
{
    fprintf(stderr, "ember: cannot %s %s: %s\n", what, path, strerror(errno));
    return EXIT_FAILED;
}

// A write that fails late (a full disk, a closed pipe) shows when the buffer is emptied.
static int finish_output(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_OK
                                                  : fail_errno("write to", "standard output");
}

// The whole file, or stdin where `path` is NULL or "-". Returns -1 to go on, else the exit status.
static int read_all(const char *path, char **bytes, size_t *n)
{
    const bool standard = !path || strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (!f) return fail_errno("open", name);
    size_t capacity = 1 << 16, size = 0;
    char *buffer = malloc(capacity);
    while (buffer) {
        size += fread(buffer + size, 1, capacity - size, f);
        if (size < capacity) break;
        char *larger = capacity <= SIZE_MAX / 2 ? realloc(buffer, capacity * 2) : NULL;
        if (!larger) free(buffer);
        buffer = larger;
        capacity *= 2;
    }
    int status = -1;
    if (!buffer) {
        fprintf(stderr, "ember: out of memory: reading %s\n", name);
        status = EXIT_FAILED;
    } else if (ferror(f)) {
        status = fail_errno("read", name);
        free(buffer);
    }
    if (!standard) fclose(f);
    *bytes = buffer;
    *n = size;
    return status;
}

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run_train(int argc, char **argv)
{
    struct cli_common common = {0};
    ember_tokenizer_training options = {0};
    struct cli_list data = {0};
    const char *out = NULL, *word = NULL;
    size_t words;
    const struct cli_option table[] = {
        {"data", CLI_LIST, &data, "PATH", NULL,
         "files, folders or globs with text; .jsonl, .gz, .zst too", 0, 0, true, NULL},
        {"out", CLI_STRING, &out, "DIR", NULL, "for tokenizer.json and tokenizer_config.json", 0, 0,
         false, NULL},
        {"vocab", CLI_SIZE, &options.vocab, "N", "8192",
         "tokens in all: 3 special ones, 256 bytes, merges", 259, 1 << 24, false, NULL},
        {"min-frequency", CLI_SIZE, &options.min_frequency, "N", "2",
         "how often a pair must occur to be merged", 1, 1e15, false, NULL},
        {"text-key", CLI_STRING, &options.text_key, "KEY", "text", "of the text in JSON lines", 0,
         0, false, NULL},
        {0},
    };
    int status = cli_parse(&train_command, table, argc, argv, &common, &word, 0, &words);
    if (status < 0 && (!data.count || !out))
        status = cli_usage(&train_command, "--data and --out are needed");
    if (status >= 0) {
        free(data.item);
        return status;
    }
    options.threads = common.runtime.threads;
    ember_tokenizer *tokenizer = NULL;
    ember_tokenizer_corpus corpus;
    const double start = now();
    ember_status done = ember_tokenizer_train(data.item, data.count, &options, &tokenizer, &corpus);
    if (done == EMBER_OK) done = ember_tokenizer_save(tokenizer, out);
    if (done == EMBER_OK) {
        const double seconds = now() - start;
        const size_t size = ember_tokenizer_size(tokenizer);
        if (common.json)
            printf("{\"tokens\": %zu, \"files\": %llu, \"documents\": %llu, \"bytes\": %llu, "
                   "\"seconds\": %.3f}\n",
                   size, (unsigned long long)corpus.files, (unsigned long long)corpus.documents,
                   (unsigned long long)corpus.bytes, seconds);
        else
            printf("%s: %zu tokens from %llu bytes in %llu files, %.1f s\n", out, size,
                   (unsigned long long)corpus.bytes, (unsigned long long)corpus.files, seconds);
    }
    ember_tokenizer_close(tokenizer);
    free(data.item);
    return done == EMBER_OK ? finish_output() : cli_fail(done);
}

// What encode and decode share: X, --file, --no-special, and the input.
struct conversion {
    ember_tokenizer *tokenizer;
    bool no_special;
    char *bytes;
    size_t n;
};

static int open_conversion(const struct cli_command *command, const char *special_help, int argc,
                           char **argv, struct conversion *c)
{
    struct cli_common common = {0};
    const char *x = NULL, *file = NULL;
    size_t words;
    const struct cli_option table[] = {
        {"file", CLI_STRING, &file, "FILE", "stdin", "read it instead of stdin", 0, 0, false, NULL},
        {"no-special", CLI_FLAG, &c->no_special, NULL, NULL, special_help, 0, 0, false, NULL},
        {0},
    };
    const int status = cli_parse(command, table, argc, argv, &common, &x, 1, &words);
    if (status >= 0) return status;
    if (words == 0) return cli_usage(command, "X, a folder or a tokenizer.json, is needed");
    const ember_status opened = ember_tokenizer_open(x, &c->tokenizer);
    return opened == EMBER_OK ? read_all(file, &c->bytes, &c->n) : cli_fail(opened);
}

static int run_encode(int argc, char **argv)
{
    struct conversion c = {0};
    int status = open_conversion(&encode_command, "no BOS, and special tokens in the text are text",
                                 argc, argv, &c);
    if (status < 0) {
        int32_t *ids = NULL;
        size_t count = 0;
        const ember_status done = ember_tokenizer_encode(
            c.tokenizer, c.bytes, c.n, c.no_special ? EMBER_TOKENIZER_NO_SPECIAL : 0, &ids, &count);
        if (c.n == 0) count = 0; // no input is an empty line, without BOS too
        for (size_t i = 0; i < count; i++)
            printf(i ? " %d" : "%d", ids[i]);
        if (done == EMBER_OK) printf("\n");
        ember_free(ids);
        status = done == EMBER_OK ? finish_output() : cli_fail(done);
        free(c.bytes);
    }
    ember_tokenizer_close(c.tokenizer);
    return status;
}

// Ids with anything between them that is a space, a comma or a bracket. Returns -1 to go on.
static int parse_ids(const char *text, size_t n, int32_t **ids, size_t *count)
{
    *count = 0;
    *ids = malloc((n / 2 + 1) * sizeof **ids);
    if (!*ids) {
        fprintf(stderr, "ember: out of memory: %zu bytes of ids\n", n);
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < n;) {
        if (memchr(" \t\r\n,[]", text[i], 8)) {
            i++;
            continue;
        }
        const size_t begin = i;
        long long id = 0;
        while (i < n && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX)
            id = id * 10 + (text[i++] - '0');
        if (i == begin || id > INT32_MAX || (i < n && !memchr(" \t\r\n,[]", text[i], 8))) {
            while (i < n && i - begin < 20 && !memchr(" \t\r\n,[]", text[i], 8))
                i++;
            fprintf(stderr, "ember: id %zu of the input is \"", *count + 1);
            for (size_t j = begin; j < i;
                 j++) // whatever it is, the terminal gets printable characters
                fputc(text[j] >= ' ' && text[j] <= '~' ? text[j] : '?', stderr);
            fprintf(stderr, "\", expected a number from 0 to %d\n", INT32_MAX);
            return EXIT_FAILED;
        }
        (*ids)[(*count)++] = (int32_t)id;
    }
    return -1;
}

static int run_decode(int argc, char **argv)
{
    struct conversion c = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    int status = open_conversion(&decode_command, "special tokens leave no text", argc, argv, &c);
    if (status < 0) status = parse_ids(c.bytes, c.n, &ids, &count);
    if (status < 0) {
        char *text = NULL;
        size_t n = 0;
        const ember_status done = ember_tokenizer_decode(
            c.tokenizer, ids, count, c.no_special ? EMBER_TOKENIZER_NO_SPECIAL : 0, &text, &n);
        if (done == EMBER_OK) fwrite(text, 1, n, stdout);
        ember_free(text);
        status = done == EMBER_OK ? finish_output() : cli_fail(done);
    }
    free(ids);
    free(c.bytes);
    ember_tokenizer_close(c.tokenizer);
    return status;
}

static int run_inspect(int argc, char **argv)
{
    struct cli_common common = {0};
    const char *x = NULL;
    size_t words;
    const int status = cli_parse(&inspect_command, NULL, argc, argv, &common, &x, 1, &words);
    if (status >= 0) return status;
    if (words == 0)
        return cli_usage(&inspect_command, "X, a folder or a tokenizer.json, is needed");
    ember_tokenizer *tokenizer = NULL;
    char *text = NULL;
    ember_status done = ember_tokenizer_open(x, &tokenizer);
    if (done == EMBER_OK) done = ember_tokenizer_inspect(tokenizer, common.json, &text);
    if (done == EMBER_OK) fputs(text, stdout);
    ember_free(text);
    ember_tokenizer_close(tokenizer);
    return done == EMBER_OK ? finish_output() : cli_fail(done);
}

static int run(int argc, char **argv)
{
    static const struct {
        const char *name;
        const struct cli_command *command;
        int (*run)(int argc, char **argv);
    } actions[] = {
        {"train", &train_command, run_train},
        {"encode", &encode_command, run_encode},
        {"decode", &decode_command, run_decode},
        {"inspect", &inspect_command, run_inspect},
    };
    enum { ACTIONS = sizeof actions / sizeof *actions };
    const char *names[ACTIONS];
    for (size_t i = 0; i < ACTIONS; i++) {
        names[i] = actions[i].name;
        if (argc > 1 && strcmp(argv[1], names[i]) == 0) return actions[i].run(argc - 1, argv + 1);
    }
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("usage: ember tokenizer train|encode|decode|inspect ...\n\n%s\n\n",
               command_tokenizer.help);
        for (size_t i = 0; i < ACTIONS; i++)
            printf("  ember %s %s\n      %s\n", actions[i].command->name, actions[i].command->usage,
                   actions[i].command->help);
        return finish_output();
    }
    if (argc < 2)
        return cli_usage(&command_tokenizer, "one of train, encode, decode and inspect is needed");
    const char *near = cli_nearest(argv[1], names, ACTIONS);
    return cli_usage(&command_tokenizer, "there is no \"%s\"%s%s%s", argv[1],
                     near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

const struct cli_command command_tokenizer = {
    .name = "tokenizer",
    .usage = "train|encode|decode|inspect ...",
    .help = "trains tokenizers, turns text into ids and back",
    .run = run,
};
