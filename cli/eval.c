// ember eval: how well a model predicts files.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// ---- tensors ----

static bool is_tensors(const char *path)
{
    static const char end[] = ".safetensors";
    const size_t n = strlen(path), e = sizeof end - 1;
    return n > e && strcmp(path + n - e, end) == 0;
}

static double share(const ember_tensor_evaluation *s)
{
    return (double)s->right / (double)s->places;
}

static void print_json_tensors(const char *name, const ember_tensor_evaluation *s)
{
    printf("{\"file\": ");
    cli_print_json_string(name);
    printf(", \"sequences\": %llu, \"places\": %llu, \"measure\": \"%s\"",
           (unsigned long long)s->sequences, (unsigned long long)s->places,
           s->labels ? "cross_entropy" : "mean_squared_error");
    print_number("loss", s->loss / (double)s->places);
    if (s->labels) {
        printf(", \"right\": %llu", (unsigned long long)s->right);
        print_number("accuracy", share(s));
    }
    putchar('}');
}

static void print_tensors_row(const char *name, const ember_tensor_evaluation *s)
{
    char right[16] = "-";
    if (s->labels) snprintf(right, sizeof right, "%.4f", share(s));
    printf("%12llu %12llu %12.6g %10s  %s\n", (unsigned long long)s->sequences,
           (unsigned long long)s->places, s->loss / (double)s->places, right, name);
}

// Classes and values add up to nothing.
static bool add_up(const ember_tensor_evaluation *scores, size_t n, ember_tensor_evaluation *total)
{
    *total = (ember_tensor_evaluation){.labels = scores[0].labels};
    for (size_t i = 0; i < n; i++) {
        if (scores[i].labels != total->labels) return false;
        total->loss += scores[i].loss;
        total->sequences += scores[i].sequences;
        total->places += scores[i].places;
        total->right += scores[i].right;
    }
    return true;
}

static void print_tensors(const struct cli_list *data, const ember_tensor_evaluation *scores,
                          bool json)
{
    ember_tensor_evaluation total;
    const bool adds_up = add_up(scores, data->count, &total);
    if (json) {
        printf("{\"files\": [");
        for (size_t i = 0; i < data->count; i++) {
            if (i) printf(", ");
            print_json_tensors(data->item[i], &scores[i]);
        }
        printf("], \"total\": ");
        if (adds_up)
            print_json_tensors("total", &total);
        else
            printf("null");
        printf("}\n");
        return;
    }
    printf("%12s %12s %12s %10s\n", "sequences", "places", "loss", "accuracy");
    for (size_t i = 0; i < data->count; i++)
        print_tensors_row(data->item[i], &scores[i]);
    if (data->count > 1 && adds_up) print_tensors_row("total", &total);
}

// ---- the command ----

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
     "text to score; of .jsonl every line, .gz and .zst too; or .safetensors with inputs or "
     "input_ids and labels or targets, as data.tensors of a recipe",
     .suggest = CLI_FILES, .many = true, .needed = true},
    {"context", CLI_SIZE, ARGUMENT(context), "C", "tokens of a window",
     .otherwise = "the model's, at most 2048; 512 with --llama-windows", .min = 1, .max = 1 << 24},
    {"llama-windows", CLI_FLAG, ARGUMENT(llama_windows),
     .help = "score as llama.cpp's perplexity does: the second half of each window"},
    {0},
};

static int eval_texts(ember_model *model, const struct arguments *a, bool json)
{
    const ember_eval_options windows = {.context = a->context, .llama_windows = a->llama_windows};
    ember_evaluation *scores = calloc(a->data.count, sizeof *scores);
    if (!scores) return cli_no_memory("the scores");
    const ember_status status = ember_eval(model, a->data.item, a->data.count, &windows, scores);
    if (status == EMBER_OK) print_scores(&a->data, scores, json);
    free(scores);
    return cli_fail(status);
}

static int eval_tensors(ember_model *model, const struct arguments *a, bool json)
{
    ember_tensor_evaluation *scores = calloc(a->data.count, sizeof *scores);
    if (!scores) return cli_no_memory("the scores");
    const ember_status status = ember_eval_tensors(model, a->data.item, a->data.count, scores);
    if (status == EMBER_OK) print_tensors(&a->data, scores, json);
    free(scores);
    return cli_fail(status);
}

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    const ember_model_options how = {.runtime = common->runtime};
    ember_model *model;
    size_t tensors = 0;
    for (size_t i = 0; i < a->data.count; i++)
        tensors += is_tensors(a->data.item[i]);
    if (tensors && tensors < a->data.count)
        return cli_usage(&command_eval, "texts and .safetensors are scored in calls of their own");
    if (tensors && (a->context || a->llama_windows))
        return cli_usage(&command_eval, "windows are for texts, not for .safetensors");
    cli_catch_signals();
    const ember_status status = ember_model_open(a->model, &how, &model);
    if (status != EMBER_OK) return cli_fail(status);
    const int result =
        tensors ? eval_tensors(model, a, common->json) : eval_texts(model, a, common->json);
    ember_model_close(model);
    return result;
}

const struct cli_command command_eval = {
    .name = "eval",
    .usage = "MODEL --data FILE... [--context C] [--llama-windows] [--json]",
    .help = "nats per token, perplexity and bits per byte of files; loss and accuracy of tensors",
    .description =
        "Every token is scored once, in windows that start from an empty state. Of .safetensors "
        "every sequence is, by its labels (cross-entropy, and the share that is right) or targets "
        "(mean squared error).",
    .examples = "ember eval my-model --data book.txt --context 1024",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
