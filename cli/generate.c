// ember generate: continues a prompt, or a file of them.
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <ember/infer.h>

#include "options.h"

struct arguments {
    struct cli_common common;
    const char *model, *prompt, *prompt_ids, *order, *file, *out, *session, *draft;
    size_t tokens;
    double temperature, top_p, min_p, repeat_penalty;
    size_t top_k;
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repeat_penalty, ids;
    struct cli_list stop;
};

static int parse(int argc, char **argv, struct arguments *a)
{
    size_t words;
    const struct cli_option table[] = {
        {"p|prompt", CLI_STRING, &a->prompt, "TEXT", NULL,
         "text to continue; - reads all of stdin, as it is", 0, 0, false, NULL},
        {"prompt-ids", CLI_STRING, &a->prompt_ids, "IDS", NULL,
         "token ids to continue, \"3 17 ..\"; needs no tokenizer", 0, 0, false, NULL},
        {"n", CLI_SIZE, &a->tokens, "N", "128", "tokens to make at most", 1, 1e9, false, NULL},
        {"temperature", CLI_DOUBLE, &a->temperature, "X", "generation_config.json's, else 0.8",
         "0: always the most likely token", 0, 1000, false, &a->has_temperature},
        {"top-k", CLI_SIZE, &a->top_k, "K", "generation_config.json's, else 40",
         "the K most likely tokens; 0: off", 0, 1 << 24, false, &a->has_top_k},
        {"top-p", CLI_DOUBLE, &a->top_p, "P", "generation_config.json's, else 0.95",
         "the fewest tokens that hold this probability; 1: off", 0, 1, false, &a->has_top_p},
        {"min-p", CLI_DOUBLE, &a->min_p, "P", "generation_config.json's, else 0.05",
         "least probability, as a share of the largest; 0: off", 0, 1, false, &a->has_min_p},
        {"repeat-penalty", CLI_DOUBLE, &a->repeat_penalty, "R", "generation_config.json's, else 1",
         "for tokens that came before; 1: off", 0.01, 100, false, &a->has_repeat_penalty},
        {"stop", CLI_LIST, &a->stop, "S", NULL, "strings that end the text, not part of it", 0, 0,
         true, NULL},
        {"sampler-order", CLI_STRING, &a->order, "NAME", "llama",
         "llama: filters, then temperature; hf: temperature, then filters", 0, 0, false, NULL},
        {"ids", CLI_FLAG, &a->ids, NULL, NULL, "prints token ids on one line, prompt included", 0,
         0, false, NULL},
        {"file", CLI_STRING, &a->file, "PROMPTS", NULL,
         "JSON lines with \"prompt\" or \"prompt_ids\", \"id\" and \"seed\" if wanted", 0, 0, false,
         NULL},
        {"out", CLI_STRING, &a->out, "ANSWERS", NULL,
         "JSON lines in the same order; goes on where an earlier run stopped", 0, 0, false, NULL},
        {"session", CLI_STRING, &a->session, "FILE", NULL, "not in this build", 0, 0, false, NULL},
        {"draft", CLI_STRING, &a->draft, "MODEL", NULL, "not in this build", 0, 0, false, NULL},
        {0},
    };
    return cli_parse(&command_generate, table, argc, argv, &a->common, &a->model, 1, &words);
}

static int check(const struct arguments *a)
{
    const struct cli_command *c = &command_generate;
    if (a->session || a->draft)
        return cli_usage(c, "--%s is not in this build", a->session ? "session" : "draft");
    if (a->common.json) return cli_usage(c, "--json: there are no figures here; --ids prints ids");
    if (!a->model) return cli_usage(c, "a model is needed");
    if ((a->prompt != NULL) + (a->prompt_ids != NULL) + (a->file != NULL) != 1)
        return cli_usage(c, "one of -p, --prompt-ids and --file is needed");
    if (!a->file != !a->out) return cli_usage(c, "--file and --out belong together");
    if (a->order && strcmp(a->order, "llama") != 0 && strcmp(a->order, "hf") != 0)
        return cli_usage(c, "--sampler-order has to be llama or hf, not %s", a->order);
    return -1;
}

static ember_sampling sampling(const struct arguments *a, const ember_model *model)
{
    ember_sampling s = ember_sampling_default(model);
    if (a->has_temperature) s.temperature = a->temperature;
    if (a->has_top_k) s.top_k = a->top_k;
    if (a->has_top_p) s.top_p = a->top_p;
    if (a->has_min_p) s.min_p = a->min_p;
    if (a->has_repeat_penalty) s.repeat_penalty = a->repeat_penalty;
    if (a->order && strcmp(a->order, "hf") == 0) s.order = EMBER_ORDER_HF;
    return s;
}

// All of stdin, or the ids of a list, or the text as it was given: the prompt's memory.
struct prompt {
    char *text;
    size_t n_text;
    int32_t *ids;
    size_t n_ids;
};

static int read_stdin(struct prompt *p)
{
    size_t capacity = 0;
    for (;;) {
        if (p->n_text == capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *grown = realloc(p->text, capacity);
            if (!grown) {
                fprintf(stderr, "ember: stdin: out of memory after %zu bytes\n", p->n_text);
                return EXIT_FAILED;
            }
            p->text = grown;
        }
        const size_t n = fread(p->text + p->n_text, 1, capacity - p->n_text, stdin);
        p->n_text += n;
        if (n == 0) break;
    }
    if (!ferror(stdin)) return -1;
    fprintf(stderr, "ember: stdin: %s\n", strerror(errno));
    return EXIT_FAILED;
}

static int read_ids(const char *list, struct prompt *p)
{
    p->ids = malloc((strlen(list) / 2 + 1) * sizeof *p->ids);
    if (!p->ids) return cli_usage(&command_generate, "out of memory");
    for (const char *at = list;;) {
        at += strspn(at, " \t\r\n,");
        if (!*at) return -1;
        char *end;
        errno = 0;
        const long v = strtol(at, &end, 10);
        if (!isdigit((unsigned char)*at) || errno || v > INT_MAX)
            return cli_usage(&command_generate, "--prompt-ids needs token ids, not \"%.20s\"", at);
        p->ids[p->n_ids++] = (int32_t)v;
        at = end;
    }
}

static int read_prompt(const struct arguments *a, struct prompt *p)
{
    if (a->file) return -1;
    if (a->prompt_ids) return read_ids(a->prompt_ids, p);
    if (strcmp(a->prompt, "-") == 0) return read_stdin(p);
    p->n_text = strlen(a->prompt);
    p->text = strdup(a->prompt);
    return p->text ? -1 : cli_usage(&command_generate, "out of memory");
}

struct output {
    bool any;
    char last;
    ember_finish finish;
    const int32_t *ids; // of the prompt, not printed yet
    size_t n_ids;
};

static ember_status put(const char *text, size_t n)
{
    if (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0) return EMBER_OK;
    return EMBER_E_IO;
}

static ember_status on_text(void *context, const char *text, size_t n)
{
    struct output *out = context;
    out->any = true;
    out->last = text[n - 1];
    return put(text, n);
}

static ember_status put_id(struct output *out, int32_t id)
{
    char text[16];
    const int n = snprintf(text, sizeof text, out->any ? " %d" : "%d", id);
    out->any = true;
    return put(text, (size_t)n);
}

// The prompt's ids come with the first one that is made: a prompt that is refused prints nothing.
static ember_status on_token(void *context, int32_t id)
{
    struct output *out = context;
    for (; out->n_ids; out->n_ids--)
        EMBER_TRY(put_id(out, *out->ids++));
    return put_id(out, id);
}

static ember_status on_end(void *context, const ember_answer *answer)
{
    ((struct output *)context)->finish = answer->finish;
    return EMBER_OK;
}

static uint64_t any_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) return seed;
    return (uint64_t)time(NULL);
}

static ember_status generate(const struct arguments *a, ember_model *model, const struct prompt *p)
{
    const ember_sampling s = sampling(a, model);
    struct output out = {0};
    ember_request request = {.text = p->text,
                             .n_text = p->n_text,
                             .ids = p->ids,
                             .n_ids = p->n_ids,
                             .max_tokens = a->tokens,
                             .sampling = &s,
                             .seed = a->common.runtime.seed,
                             .stop = a->stop.item,
                             .n_stop = a->stop.count,
                             .on_end = on_end,
                             .context = &out};
    int32_t *encoded = NULL;
    if (a->ids) {
        if (p->text) {
            EMBER_TRY(ember_model_encode(model, p->text, p->n_text, &encoded, &request.n_ids));
            request.text = NULL;
            request.ids = encoded;
        }
        request.on_token = on_token;
        out.ids = request.ids;
        out.n_ids = request.n_ids;
    } else {
        request.on_text = on_text;
    }
    ember_status status = ember_generate(model, &request, 1);
    if (out.any && out.last != '\n' && put("\n", 1) != EMBER_OK && status == EMBER_OK)
        status = EMBER_E_IO;
    if (status == EMBER_OK && out.finish == EMBER_FINISH_CONTEXT && !a->common.quiet)
        fprintf(stderr, "ended where the model's context of %zu tokens is full\n",
                ember_model_context(model));
    ember_free(encoded);
    return status;
}

static ember_status generate_file(const struct arguments *a, ember_model *model)
{
    const ember_sampling s = sampling(a, model);
    const ember_request like = {
        .max_tokens = a->tokens, .sampling = &s, .stop = a->stop.item, .n_stop = a->stop.count};
    const ember_generate_file_options options = {.like = &like,
                                                 .ids = a->ids,
                                                 .seed = a->common.runtime.seed,
                                                 .any_seed = !a->common.seed_given};
    return ember_generate_file(model, a->file, a->out, &options);
}

static int run(int argc, char **argv)
{
    struct arguments a = {.tokens = 128};
    struct prompt prompt = {0};
    ember_model *model = NULL;
    int result = parse(argc, argv, &a);
    if (result < 0) result = check(&a);
    if (result < 0) result = read_prompt(&a, &prompt);
    if (result < 0) {
        cli_catch_signals();
        const ember_model_options options = {.runtime = a.common.runtime};
        ember_status status = ember_model_open(a.model, &options, &model);
        if (!a.common.seed_given) a.common.runtime.seed = any_seed();
        if (status == EMBER_OK && !a.file && !a.common.quiet)
            fprintf(stderr, "seed %llu\n", (unsigned long long)a.common.runtime.seed);
        if (status == EMBER_OK)
            status = a.file ? generate_file(&a, model) : generate(&a, model, &prompt);
        if (ferror(stdout)) {
            fprintf(stderr, "ember: stdout: %s\n", strerror(errno));
            result = EXIT_FAILED;
        } else {
            result = cli_fail(status);
        }
    }
    ember_model_close(model);
    free(prompt.text);
    free(prompt.ids);
    free(a.stop.item);
    return result;
}

const struct cli_command command_generate = {
    .name = "generate",
    .usage = "MODEL -p TEXT [-n N], or MODEL --file PROMPTS.jsonl --out ANSWERS.jsonl",
    .help = "continues a prompt, or a file of them",
    .run = run,
};
