// ember bench: how fast things are here. Each benchmark has options of its own.
#include <ember/bench.h>

#include <stdio.h>
#include <string.h>

#include "options.h"

enum { MOST_OPTIONS = 12 };

struct bench {
    struct cli_command command; // name and help as cli_parse() shows them
    const char *model;          // what the word after the name is; NULL: there is none
    void (*options)(struct cli_option *table, ember_bench_options *o);
};

#define SIZE(name, target, preset, help, max)                                                      \
    (struct cli_option)                                                                            \
    {                                                                                              \
        name, CLI_SIZE, target, "N", preset, help, 1, max, false, NULL                             \
    }
#define FLAG(name, target, help)                                                                   \
    (struct cli_option)                                                                            \
    {                                                                                              \
        name, CLI_FLAG, target, NULL, NULL, help, 0, 0, false, NULL                                \
    }

static const double most = 1e9;

static void train_options(struct cli_option *t, ember_bench_options *o)
{
    o->batch = 8, o->length = 512, o->steps = 5;
    t[0] = (struct cli_option){"config", CLI_STRING, &o->model,
                               "FILE",   NULL,       "config.json, its folder, or a preset's name",
                               0,        0,          false,
                               NULL};
    t[1] = SIZE("batch", &o->batch, "8", "sequences a step", most);
    t[2] = SIZE("seq", &o->length, "512", "tokens of a sequence", most);
    t[3] = SIZE("steps", &o->steps, "5", "timed steps, after one untimed", 512);
}

static void prefill_options(struct cli_option *t, ember_bench_options *o)
{
    o->tokens = 512;
    t[0] = SIZE("tokens", &o->tokens, "512", "of the prompt", most);
}

static void decode_options(struct cli_option *t, ember_bench_options *o)
{
    o->tokens = 64, o->context = 512;
    t[0] = SIZE("tokens", &o->tokens, "64", "decoded one after the other", most);
    t[1] = SIZE("context", &o->context, "512", "tokens already in the state", most);
}

static void gemm_options(struct cli_option *t, ember_bench_options *o)
{
    o->m = o->n = o->k = 1024;
    t[0] = SIZE("m", &o->m, "1024", "rows of A and C", most);
    t[1] = SIZE("n", &o->n, "1024", "columns of B and C", most);
    t[2] = SIZE("k", &o->k, "1024", "columns of A, rows of B", most);
}

static void attention_options(struct cli_option *t, ember_bench_options *o)
{
    o->batch = 4, o->length = 1024, o->heads = 8, o->kv_heads = 2, o->head_dim = 64;
    t[0] = SIZE("batch", &o->batch, "4", "sequences", most);
    t[1] = SIZE("length", &o->length, "1024", "tokens of a sequence", most);
    t[2] = SIZE("heads", &o->heads, "8", "heads of queries", most);
    t[3] = SIZE("kv-heads", &o->kv_heads, "2", "heads of keys and values", most);
    t[4] = SIZE("head-dim", &o->head_dim, "64", "width of a head", most);
    t[5] = FLAG("backward", &o->backward, "forward and backward together");
}

static void moe_options(struct cli_option *t, ember_bench_options *o)
{
    o->tokens = 4096, o->dim = 512, o->hidden = 384, o->experts = 16, o->chosen = 4;
    t[0] = SIZE("tokens", &o->tokens, "4096", "of the batch", most);
    t[1] = SIZE("dim", &o->dim, "512", "width of the model", most);
    t[2] = SIZE("hidden", &o->hidden, "384", "width of an expert's middle", most);
    t[3] = SIZE("experts", &o->experts, "16", "how many", most);
    t[4] = SIZE("top-k", &o->chosen, "4", "experts of a token", most);
    t[5] = FLAG("backward", &o->backward, "forward and backward together");
}

static void elementwise_options(struct cli_option *t, ember_bench_options *o)
{
    t[0] = SIZE("tokens", &o->tokens, "what no cache holds", "rows", most);
    t[1] = SIZE("dim", &o->dim, "1024", "width of a row, a multiple of 64", most);
}

static void optimizer_options(struct cli_option *t, ember_bench_options *o)
{
    t[0] = SIZE("parameters", &o->parameters, "what no cache holds", "of the model, about", most);
}

static void cross_entropy_options(struct cli_option *t, ember_bench_options *o)
{
    t[0] = SIZE("tokens", &o->tokens, "1024", "scored", most);
    t[1] = SIZE("dim", &o->dim, "512", "width of the model", most);
    t[2] = SIZE("vocab", &o->vocabulary, "16384", "rows of the output matrix", most);
}

static const struct bench benches[] = {
    {{"bench train", "--config FILE [--batch B] [--seq T] [--dtype f32|bf16] [--steps N] [--json]",
      "training steps: forward, backward, clipping to norm 1, AdamW", NULL},
     NULL,
     train_options},
    {{"bench prefill", "MODEL [--tokens N] [--json]", "reading a prompt, logits of its last token",
      NULL},
     "a model",
     prefill_options},
    {{"bench decode", "MODEL [--tokens N] [--context C] [--json]",
      "a token at a time from a state that holds some", NULL},
     "a model",
     decode_options},
    {{"bench gemm", "[--m M] [--n N] [--k K] [--dtype f32|bf16] [--json]",
      "matrix products, the right operand packed beforehand", NULL},
     NULL,
     gemm_options},
    {{"bench attention",
      "[--batch B] [--length T] [--heads H] [--kv-heads K] [--head-dim D] [--backward] [--json]",
      "causal attention", NULL},
     NULL,
     attention_options},
    {{"bench moe",
      "[--tokens T] [--dim D] [--hidden F] [--experts E] [--top-k K] [--backward] [--json]",
      "a mixture of experts, beside a dense layer of the same active width", NULL},
     NULL,
     moe_options},
    {{"bench elementwise", "[--tokens T] [--dim D] [--json]", "operations that memory bounds",
      NULL},
     NULL,
     elementwise_options},
    {{"bench optimizer", "[--parameters N] [--json]",
      "optimizers, and what else walks over all parameters", NULL},
     NULL,
     optimizer_options},
    {{"bench cross_entropy", "[--tokens T] [--dim D] [--vocab V] [--dtype f32|bf16] [--json]",
      "the loss and its kernels", NULL},
     NULL,
     cross_entropy_options},
};
enum { BENCHES = sizeof benches / sizeof *benches };

static int print_help(void)
{
    printf("usage: ember bench NAME [options]\n\n%s\n\n", command_bench.help);
    for (size_t i = 0; i < BENCHES; i++)
        printf("  %-20s %s\n", benches[i].command.name, benches[i].command.help);
    printf("\n`ember bench NAME --help` lists a benchmark's options. `--json` gives one object.\n");
    return EXIT_OK;
}

static int measure(const char *name, const ember_bench_options *options, bool json)
{
    ember_bench_result *result;
    const ember_status status = ember_bench(name, options, &result);
    if (status != EMBER_OK) return cli_fail(status);
    const int written =
        json ? printf("%s\n", ember_bench_json(result)) : fputs(ember_bench_text(result), stdout);
    ember_bench_free(result);
    return written < 0 || fflush(stdout) ? EXIT_FAILED : EXIT_OK;
}

static int run(int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) return print_help();
    if (argc < 2 || argv[1][0] == '-')
        return cli_usage(&command_bench, "the name of a benchmark comes first");
    const struct bench *b = NULL;
    for (size_t i = 0; i < BENCHES; i++)
        if (!strcmp(benches[i].command.name + strlen("bench "), argv[1])) b = &benches[i];
    ember_bench_options options = {0};
    if (!b) return measure(argv[1], &options, false); // says what there is not

    struct cli_common common = {0};
    struct cli_option table[MOST_OPTIONS] = {0};
    const char *word = NULL;
    size_t words;
    b->options(table, &options);
    size_t n = 0;
    while (table[n].name)
        n++;
    if (b->options != train_options)
        table[n] = (struct cli_option){"seconds", CLI_DOUBLE, &options.seconds,
                                       "S",       "1",        "how long to measure, about",
                                       1e-3,      3600,       false,
                                       NULL};
    const int status =
        cli_parse(&b->command, table, argc - 1, argv + 1, &common, &word, b->model ? 1 : 0, &words);
    if (status >= 0) return status;
    if (b->model) options.model = word;
    if (b->model && !word) return cli_usage(&b->command, "%s is needed", b->model);
    if (b->options == train_options && !options.model)
        return cli_usage(&b->command, "--config is needed");
    options.runtime = common.runtime;
    return measure(argv[1], &options, common.json);
}

const struct cli_command command_bench = {
    .name = "bench",
    .usage = "NAME [--json]",
    .help = "measures training, inference and single operations on this machine",
    .run = run,
};
