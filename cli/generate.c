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
#include "output.h"

struct arguments {
    const char *model, *prompt, *prompt_ids, *file, *out, *session, *draft;
    size_t tokens;
    double temperature, top_p, min_p, repeat_penalty;
    size_t top_k;
    int order; // 0: not given; 1 llama, 2 hf
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repeat_penalty, ids;
    struct cli_list stop;
};

// What the options say, and those of every command.
struct job {
    const struct arguments *a;
    bool quiet, any_seed;
    uint64_t seed;
};

#define ARGUMENT(field) offsetof(struct arguments, field)
#define CONFIGURED(value) .otherwise = "generation_config.json's, else " value

static const struct cli_option options[] = {
    {"MODEL", CLI_WORD, ARGUMENT(model), .suggest = CLI_FOLDERS, .needed = true,
     .help = "a model's folder"},
    {"p|prompt", CLI_STRING, ARGUMENT(prompt), "TEXT",
     .help = "text to continue; - reads all of stdin, as it is"},
    {"prompt-ids", CLI_STRING, ARGUMENT(prompt_ids), "IDS",
     .help = "token ids to continue, \"3 17 ..\"; needs no tokenizer"},
    {"n", CLI_SIZE, ARGUMENT(tokens), "N", "tokens to make at most", .preset = "128", .min = 1,
     .max = 1e9},
    {"temperature", CLI_DOUBLE, ARGUMENT(temperature), "X", "0: always the most likely token",
     CONFIGURED("0.8"), .max = 1000, .given = ARGUMENT(has_temperature)},
    {"top-k", CLI_SIZE, ARGUMENT(top_k), "K", "the K most likely tokens; 0: off", CONFIGURED("40"),
     .max = 1 << 24, .given = ARGUMENT(has_top_k)},
    {"top-p", CLI_DOUBLE, ARGUMENT(top_p), "P",
     "the fewest tokens that hold this probability; 1: off", CONFIGURED("0.95"), .max = 1,
     .given = ARGUMENT(has_top_p)},
    {"min-p", CLI_DOUBLE, ARGUMENT(min_p), "P",
     "least probability, as a share of the largest; 0: off", CONFIGURED("0.05"), .max = 1,
     .given = ARGUMENT(has_min_p)},
    {"repeat-penalty", CLI_DOUBLE, ARGUMENT(repeat_penalty), "R",
     "for tokens that came before; 1: off", CONFIGURED("1"), .min = 0.01, .max = 100,
     .given = ARGUMENT(has_repeat_penalty)},
    {"stop", CLI_LIST, ARGUMENT(stop), "S", "strings that end the text, not part of it",
     .many = true},
    {"sampler-order", CLI_CHOICE, ARGUMENT(order), "NAME",
     "llama: filters, then temperature; hf: temperature, then filters", .preset = "llama",
     .choices = "llama|hf"},
    {"ids", CLI_FLAG, ARGUMENT(ids), .help = "prints token ids on one line, prompt included"},
    {"file", CLI_STRING, ARGUMENT(file), "PROMPTS",
     "JSON lines with \"prompt\" or \"prompt_ids\", \"id\" and \"seed\" if wanted",
     .suggest = CLI_FILES},
    {"out", CLI_STRING, ARGUMENT(out), "ANSWERS",
     "JSON lines in the same order; goes on where an earlier run stopped", .suggest = CLI_FILES},
    {"session", CLI_STRING, ARGUMENT(session), "FILE", "not in this build", .suggest = CLI_FILES},
    {"draft", CLI_STRING, ARGUMENT(draft), "MODEL", "not in this build", .suggest = CLI_FOLDERS},
    {0},
};

static int check(const struct arguments *a)
{
    const struct cli_command *c = &command_generate;
    if (a->session || a->draft)
        return cli_usage(c, "--%s is not in this build", a->session ? "session" : "draft");
    if ((a->prompt != NULL) + (a->prompt_ids != NULL) + (a->file != NULL) != 1)
        return cli_usage(c, "one of -p, --prompt-ids and --file is needed");
    if (!a->file != !a->out) return cli_usage(c, "--file and --out belong together");
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
    if (a->order == 2) s.order = EMBER_ORDER_HF;
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
    if (!p->ids) return cli_no_memory("the prompt");
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
    return p->text ? -1 : cli_no_memory("the prompt");
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
    return cli_put(text, n) ? EMBER_OK : EMBER_E_IO;
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

static ember_status generate(const struct job *job, ember_model *model, const struct prompt *p)
{
    const struct arguments *a = job->a;
    const ember_sampling s = sampling(a, model);
    struct output out = {0};
    ember_request request = {.text = p->text,
                             .n_text = p->n_text,
                             .ids = p->ids,
                             .n_ids = p->n_ids,
                             .max_tokens = a->tokens,
                             .sampling = &s,
                             .seed = job->seed,
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
    if (status == EMBER_OK && out.finish == EMBER_FINISH_CONTEXT && !job->quiet)
        fprintf(stderr, "ended where the model's context of %zu tokens is full\n",
                ember_model_context(model));
    ember_free(encoded);
    return status;
}

static ember_status generate_file(const struct job *job, ember_model *model)
{
    const struct arguments *a = job->a;
    const ember_sampling s = sampling(a, model);
    const ember_request like = {
        .max_tokens = a->tokens, .sampling = &s, .stop = a->stop.item, .n_stop = a->stop.count};
    const ember_generate_file_options how = {
        .like = &like, .ids = a->ids, .seed = job->seed, .any_seed = job->any_seed};
    return ember_generate_file(model, a->file, a->out, &how);
}

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    struct job job = {.a = a,
                      .quiet = common->quiet,
                      .any_seed = !common->seed_given,
                      .seed = common->runtime.seed};
    struct prompt prompt = {0};
    ember_model *model = NULL;
    int result = check(a);
    if (result < 0) result = read_prompt(a, &prompt);
    if (result < 0) {
        cli_catch_signals();
        const ember_model_options how = {.runtime = common->runtime};
        ember_status status = ember_model_open(a->model, &how, &model);
        if (job.any_seed) job.seed = any_seed();
        if (status == EMBER_OK && !a->file && !job.quiet)
            fprintf(stderr, "seed %llu\n", (unsigned long long)job.seed);
        if (status == EMBER_OK)
            status = a->file ? generate_file(&job, model) : generate(&job, model, &prompt);
        result = ferror(stdout) ? EXIT_FAILED : cli_fail(status); // main says what stdout refused
    }
    ember_model_close(model);
    free(prompt.text);
    free(prompt.ids);
    return result;
}

const struct cli_command command_generate = {
    .name = "generate",
    .usage = "MODEL -p TEXT [-n N] [--temperature X] ...\n"
             "MODEL --file PROMPTS.jsonl --out ANSWERS.jsonl ...",
    .help = "continues a prompt, or a file of them",
    .description = "Text is printed as it is made, until -n tokens or an end token. The seed is "
                   "printed on standard error: the same seed gives the same text.",
    .examples = "ember generate my-model -p \"Once upon a time\" -n 200\n"
                "ember generate my-model -p - --temperature 0 < prompt.txt",
    .seed = "a new one each time",
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
