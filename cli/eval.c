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

static int eval(const char *path, const struct cli_list *data, const struct cli_common *common,
                const ember_eval_options *options)
{
    const ember_model_options how = {.runtime = common->runtime};
    ember_model *model = NULL;
    ember_evaluation *scores = calloc(data->count, sizeof *scores);
    if (!scores) return cli_usage(&command_eval, "out of memory");
    cli_catch_signals();
    ember_status status = ember_model_open(path, &how, &model);
    if (status == EMBER_OK) status = ember_eval(model, data->item, data->count, options, scores);
    if (status == EMBER_OK) print_scores(data, scores, common->json);
    ember_model_close(model);
    free(scores);
    return cli_finish(status);
}

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    ember_eval_options options = {0};
    struct cli_list data = {0};
    const char *model = NULL;
    size_t words;
    const struct cli_option table[] = {
        {"data", CLI_LIST, &data, "FILE", NULL,
         "text to score; of .jsonl every line, .gz and .zst too", 0, 0, true, NULL},
        {"context", CLI_SIZE, &options.context, "C", "the model's, at most 2048",
         "tokens of a window", 1, 1 << 24, false, NULL},
        {"llama-windows", CLI_FLAG, &options.llama_windows, NULL, NULL,
         "score as llama.cpp's perplexity does: the second half of each window (of 512)", 0, 0,
         false, NULL},
        {0},
    };
    int result = cli_parse(&command_eval, table, argc, argv, &common, &model, 1, &words);
    if (result < 0 && (!words || !data.count))
        result = cli_usage(&command_eval, "a model and --data are needed");
    if (result < 0) result = eval(model, &data, &common, &options);
    free(data.item);
    return result;
}

const struct cli_command command_eval = {
    .name = "eval",
    .usage = "MODEL --data FILE... [--context C] [--llama-windows]",
    .help = "nats per token, perplexity and bits per byte of files",
    .run = run,
};
