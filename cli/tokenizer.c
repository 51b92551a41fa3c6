// ember tokenizer: training, encoding, decoding, inspecting.
#include <ember/tokenizer.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "options.h"

#define X_HELP "a folder or a tokenizer.json"

static int fail_errno(const char *what, const char *path)
{
    fprintf(stderr, "ember: cannot %s %s: %s\n", what, path, strerror(errno));
    return EXIT_FAILED;
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

struct training {
    struct cli_list data;
    const char *out, *text_key;
    size_t vocab, min_frequency;
};

static const struct cli_option train_options[] = {
    {"data", CLI_LIST, offsetof(struct training, data), "PATH",
     "files, folders or globs with text; .jsonl, .gz, .zst too", .suggest = CLI_FILES, .many = true,
     .needed = true},
    {"out", CLI_STRING, offsetof(struct training, out), "DIR",
     "for tokenizer.json and tokenizer_config.json", .suggest = CLI_FOLDERS, .needed = true},
    {"vocab", CLI_SIZE, offsetof(struct training, vocab), "N",
     "tokens in all: 3 special ones, 256 bytes, merges", .preset = "8192", .min = 259,
     .max = 1 << 24},
    {"min-frequency", CLI_SIZE, offsetof(struct training, min_frequency), "N",
     "how often a pair must occur to be merged", .preset = "2", .min = 1, .max = 1e15},
    {"text-key", CLI_STRING, offsetof(struct training, text_key), "KEY",
     "of the text in JSON lines", .preset = "text"},
    {0},
};

static int run_train(const struct cli_common *common, void *arguments)
{
    const struct training *a = arguments;
    const ember_tokenizer_training options = {.vocab = a->vocab,
                                              .min_frequency = a->min_frequency,
                                              .text_key = a->text_key,
                                              .threads = common->runtime.threads};
    ember_tokenizer *tokenizer = NULL;
    ember_tokenizer_corpus corpus;
    const double start = now();
    ember_status done =
        ember_tokenizer_train(a->data.item, a->data.count, &options, &tokenizer, &corpus);
    if (done == EMBER_OK) done = ember_tokenizer_save(tokenizer, a->out);
    if (done == EMBER_OK) {
        const double seconds = now() - start;
        const size_t size = ember_tokenizer_size(tokenizer);
        if (common->json)
            printf("{\"tokens\": %zu, \"files\": %llu, \"documents\": %llu, \"bytes\": %llu, "
                   "\"seconds\": %.3f}\n",
                   size, (unsigned long long)corpus.files, (unsigned long long)corpus.documents,
                   (unsigned long long)corpus.bytes, seconds);
        else
            printf("%s: %zu tokens from %llu bytes in %llu files, %.1f s\n", a->out, size,
                   (unsigned long long)corpus.bytes, (unsigned long long)corpus.files, seconds);
    }
    ember_tokenizer_close(tokenizer);
    return cli_fail(done);
}

// What encode and decode share: X, --file, --no-special, and the input.
struct conversion {
    const char *x, *file;
    bool no_special;
    ember_tokenizer *tokenizer;
    char *bytes;
    size_t n;
};

#define CONVERSION_OPTIONS(input, special)                                                         \
    {                                                                                              \
        {"X",                                                                                      \
         CLI_WORD,                                                                                 \
         offsetof(struct conversion, x),                                                           \
         .suggest = CLI_FILES,                                                                     \
         .needed = true,                                                                           \
         .help = X_HELP},                                                                          \
            {"file",                                                                               \
             CLI_STRING,                                                                           \
             offsetof(struct conversion, file),                                                    \
             "FILE",                                                                               \
             input,                                                                                \
             .otherwise = "stdin",                                                                 \
             .suggest = CLI_FILES},                                                                \
            {"no-special", CLI_FLAG, offsetof(struct conversion, no_special), .help = special},    \
            {0},                                                                                   \
    }

static const struct cli_option encode_options[] =
    CONVERSION_OPTIONS("the text", "no BOS, and special tokens in the text are text");
static const struct cli_option decode_options[] =
    CONVERSION_OPTIONS("the ids", "special tokens leave no text");

static int open_conversion(struct conversion *c)
{
    const ember_status opened = ember_tokenizer_open(c->x, &c->tokenizer);
    return opened == EMBER_OK ? read_all(c->file, &c->bytes, &c->n) : cli_fail(opened);
}

static int run_encode(const struct cli_common *common, void *arguments)
{
    (void)common;
    struct conversion *c = arguments;
    int status = open_conversion(c);
    if (status < 0) {
        int32_t *ids = NULL;
        size_t count = 0;
        const ember_status done =
            ember_tokenizer_encode(c->tokenizer, c->bytes, c->n,
                                   c->no_special ? EMBER_TOKENIZER_NO_SPECIAL : 0, &ids, &count);
        if (c->n == 0) count = 0; // no input is an empty line, without BOS too
        for (size_t i = 0; i < count; i++)
            printf(i ? " %d" : "%d", ids[i]);
        if (done == EMBER_OK) printf("\n");
        ember_free(ids);
        status = cli_fail(done);
        free(c->bytes);
    }
    ember_tokenizer_close(c->tokenizer);
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

static int run_decode(const struct cli_common *common, void *arguments)
{
    (void)common;
    struct conversion *c = arguments;
    int32_t *ids = NULL;
    size_t count = 0;
    int status = open_conversion(c);
    if (status < 0) status = parse_ids(c->bytes, c->n, &ids, &count);
    if (status < 0) {
        char *text = NULL;
        size_t n = 0;
        const ember_status done = ember_tokenizer_decode(
            c->tokenizer, ids, count, c->no_special ? EMBER_TOKENIZER_NO_SPECIAL : 0, &text, &n);
        if (done == EMBER_OK) fwrite(text, 1, n, stdout);
        ember_free(text);
        status = cli_fail(done);
    }
    free(ids);
    free(c->bytes);
    ember_tokenizer_close(c->tokenizer);
    return status;
}

struct inspection {
    const char *x;
};

static const struct cli_option inspect_options[] = {
    {"X", CLI_WORD, offsetof(struct inspection, x), .suggest = CLI_FILES, .needed = true,
     .help = X_HELP},
    {0},
};

static int run_inspect(const struct cli_common *common, void *arguments)
{
    const struct inspection *a = arguments;
    ember_tokenizer *tokenizer = NULL;
    char *text = NULL;
    ember_status done = ember_tokenizer_open(a->x, &tokenizer);
    if (done == EMBER_OK) done = ember_tokenizer_inspect(tokenizer, common->json, &text);
    if (done == EMBER_OK) fputs(text, stdout);
    ember_free(text);
    ember_tokenizer_close(tokenizer);
    return cli_fail(done);
}

static const struct cli_command train_command = {
    .name = "tokenizer train",
    .usage = "--data PATH... --out DIR [--vocab N] [--json]",
    .help = "a byte-level BPE tokenizer from text, with LFM2's split pattern and special names",
    .json = true,
    .options = train_options,
    .size = sizeof(struct training),
    .run = run_train,
};
static const struct cli_command encode_command = {
    .name = "tokenizer encode",
    .usage = "X [--file FILE] [--no-special]",
    .help = "text to ids, on one line",
    .options = encode_options,
    .size = sizeof(struct conversion),
    .run = run_encode,
};
static const struct cli_command decode_command = {
    .name = "tokenizer decode",
    .usage = "X [--file FILE] [--no-special]",
    .help = "ids to text",
    .options = decode_options,
    .size = sizeof(struct conversion),
    .run = run_decode,
};
static const struct cli_command inspect_command = {
    .name = "tokenizer inspect",
    .usage = "X [--json]",
    .help = "what a tokenizer consists of",
    .json = true,
    .options = inspect_options,
    .size = sizeof(struct inspection),
    .run = run_inspect,
};

static const struct cli_command *const commands[] = {
    &train_command, &encode_command, &decode_command, &inspect_command, NULL,
};

const struct cli_command command_tokenizer = {
    .name = "tokenizer",
    .usage = "train|encode|decode|inspect ...",
    .help = "trains tokenizers, turns text into ids and back",
    .description = "Text comes byte for byte, a final newline included; ids are separated by "
                   "spaces.",
    .examples = "ember tokenizer train --data books/ --out my-tokenizer --vocab 8192\n"
                "ember tokenizer encode my-tokenizer --file book.txt",
    .commands = commands,
};
