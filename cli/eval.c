// ember eval: how well a model predicts files.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <ember/infer.h>

#include "options.h"
#include "output.h"

static double per_token(const ember_evaluation *s)
{
    return s->nats / (double)s->tokens;
}

static double bits_per_byte(const ember_evaluation *s)
{
    return s->nats / (log(2) * s->bytes);
}

static void print_number(const char *key, double v)
{
    if (isfinite(v))
        printf(", \"%s\": %.9g", key, v);
    else
        printf(", \"%s\": null", key);
}

static void print_json_score(const char *name, const ember_evaluation *s)
{
    printf("{\"file\": ");
    cli_print_json_string(name);
    printf(", \"tokens\": %llu, \"windows\": %llu, \"bytes\": %.0f", (unsigned long long)s->tokens,
           (unsigned long long)s->windows, s->bytes);
    print_number("nats_per_token", per_token(s));
    print_number("perplexity", exp(per_token(s)));
    print_number("bits_per_byte", bits_per_byte(s));
    putchar('}');
}

static void print_row(const char *name, const ember_evaluation *s)
{
    printf("%12llu %12.0f %12.4f %12.4f %10.4f  %s\n", (unsigned long long)s->tokens, s->bytes,
           per_token(s), exp(per_token(s)), bits_per_byte(s), name);
}

static void print_scores(const struct cli_list *data, const ember_evaluation *scores, bool json)
{
    ember_evaluation total = {0};
    for (size_t i = 0; i < data->count; i++) {
        total.nats += scores[i].nats;
        total.tokens += scores[i].tokens;
        total.windows += scores[i].windows;
        total.bytes += scores[i].bytes;
    }
    if (json) {
        printf("{\"files\": [");
        for (size_t i = 0; i < data->count; i++) {
            if (i) printf(", ");
            print_json_score(data->item[i], &scores[i]);
        }
        printf("], \"total\": ");
        print_json_score("total", &total);
        printf("}\n");
        return;
    }
    printf("%12s %12s %12s %12s %10s\n", "tokens", "bytes", "nats/token", "perplexity",
           "bits/byte");
    for (size_t i = 0; i < data->count; i++)
        print_row(data->item[i], &scores[i]);
    if (data->count > 1) print_row("total", &total);
}

struct arguments {
    const char *model;
    struct cli_list data;
    size_t context;
    bool llama_windows;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

static const struct cli_option options[] = {
    {"MODEL", CLI_WORD, ARGUMENT(model), .suggest = CLI_FOLDERS, .needed = true,
     .help = "a model's folder"},
    {"data", CLI_LIST, ARGUMENT(data), "FILE",
     "text to score; of .jsonl every line, .gz and .zst too", .suggest = CLI_FILES, .many = true,
     .needed = true},
    {"context", CLI_SIZE, ARGUMENT(context), "C", "tokens of a window",
     .otherwise = "the model's, at most 2048; 512 with --llama-windows", .min = 1, .max = 1 << 24},
    {"llama-windows", CLI_FLAG, ARGUMENT(llama_windows),
     .help = "score as llama.cpp's perplexity does: the second half of each window"},
    {0},
};

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    const ember_model_options how = {.runtime = common->runtime};
    const ember_eval_options windows = {.context = a->context, .llama_windows = a->llama_windows};
    ember_model *model = NULL;
    ember_evaluation *scores = calloc(a->data.count, sizeof *scores);
    if (!scores) return cli_no_memory("the scores");
    cli_catch_signals();
    ember_status status = ember_model_open(a->model, &how, &model);
    if (status == EMBER_OK)
        status = ember_eval(model, a->data.item, a->data.count, &windows, scores);
    if (status == EMBER_OK) print_scores(&a->data, scores, common->json);
    ember_model_close(model);
    free(scores);
    return cli_fail(status);
}

const struct cli_command command_eval = {
    .name = "eval",
    .usage = "MODEL --data FILE... [--context C] [--llama-windows] [--json]",
    .help = "nats per token, perplexity and bits per byte of files",
    .description = "Every token is scored once, in windows that start from an empty state.",
    .examples = "ember eval my-model --data book.txt --context 1024",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
