// ember bench: how fast things are here. Each benchmark has options of its own.
#include <ember/bench.h>

#include <stdio.h>
#include <string.h>

#include "options.h"

#define FIELD(field) offsetof(ember_bench_options, field)
#define MOST 1e9

// A size with its default, one without, and a flag.
#define SIZE(name, field, preset_, help)                                                           \
    {                                                                                              \
        name, CLI_SIZE, FIELD(field), "N", help, .preset = preset_, .min = 1, .max = MOST          \
    }
#define SIZE_OF_CACHES(name, field, help)                                                          \
    {                                                                                              \
        name, CLI_SIZE, FIELD(field), "N", help, .otherwise = "what no cache holds", .min = 1,     \
                                                 .max = MOST                                       \
    }
#define BACKWARD                                                                                   \
    {                                                                                              \
        "backward", CLI_FLAG, FIELD(backward), .help = "forward and backward together"             \
    }
#define BUSY                                                                                       \
    {                                                                                              \
        "busy", CLI_FLAG, FIELD(busy), .help = "also the speed kept beside a process that spins"   \
    }
#define SECONDS                                                                                    \
    {                                                                                              \
        "seconds", CLI_DOUBLE, FIELD(seconds), "S", "how long to measure, about",                  \
            .preset = "1", .min = 1e-3, .max = 3600                                                \
    }
#define MODEL                                                                                      \
    {                                                                                              \
        "MODEL", CLI_WORD, FIELD(model), .suggest = CLI_FILES | CLI_PRESETS, .needed = true,       \
                                         .help = "config.json, its folder, or a preset's name"     \
    }

static const struct cli_option train_options[] = {
    {"config", CLI_STRING, FIELD(model), "FILE", "config.json, its folder, or a preset's name",
     .suggest = CLI_FILES | CLI_PRESETS, .needed = true},
    SIZE("batch", batch, "8", "sequences a step"),
    SIZE("seq", length, "512", "tokens of a sequence"),
    {"steps", CLI_SIZE, FIELD(steps), "N", "timed steps, after one untimed", .preset = "5",
     .min = 1, .max = 512},
    BUSY,
    {0},
};

static const struct cli_option prefill_options[] = {
    MODEL,
    SIZE("tokens", tokens, "512", "of the prompt"),
    SECONDS,
    {0},
};

static const struct cli_option decode_options[] = {
    MODEL,
    SIZE("tokens", tokens, "64", "decoded one after the other"),
    SIZE("context", context, "512", "tokens already in the state"),
    SECONDS,
    BUSY,
    {0},
};

static const struct cli_option gemm_options[] = {
    SIZE("m", m, "1024", "rows of A and C"),
    SIZE("n", n, "1024", "columns of B and C"),
    SIZE("k", k, "1024", "columns of A, rows of B"),
    {"dtype", CLI_CHOICE, FIELD(dtype), "NAME",
     "number format; i8: 8-bit weights with a scale for every 32",
     .otherwise = "bf16 where the machine has it, else f32", .choices = "f32|bf16|i8"},
    SECONDS,
    {0},
};

static const struct cli_option attention_options[] = {
    SIZE("batch", batch, "4", "sequences"),
    SIZE("length", length, "1024", "tokens of a sequence"),
    SIZE("heads", heads, "8", "heads of queries"),
    SIZE("kv-heads", kv_heads, "2", "heads of keys and values"),
    SIZE("head-dim", head_dim, "64", "width of a head"),
    BACKWARD,
    SECONDS,
    {0},
};

static const struct cli_option fftconv_options[] = {
    SIZE("batch", batch, "4", "sequences"),
    SIZE("channels", channels, "256", "channels of a token"),
    SIZE("length", length, "1024", "tokens of a sequence, and lags of the kernel"),
    {"gated", CLI_FLAG, FIELD(gated),
     .help = "with a gate before the convolution and one after it"},
    BACKWARD,
    SECONDS,
    {0},
};

static const struct cli_option recurrent_options[] = {
    {"type", CLI_STRING, FIELD(type), "NAME", "of the cells: ltc, cfc, lstm or gru",
     .needed = true},
    SIZE("batch", batch, "32", "sequences"),
    SIZE("length", length, "64", "tokens of a sequence"),
    SIZE("input", input, "20", "columns of the input"),
    SIZE("units", units, "28", "neurons"),
    {"wiring", CLI_STRING, FIELD(wiring), "SPEC",
     "of ltc and cfc: auto:28,4, ncp:.., random:0.5, ..", .otherwise = "none"},
    BACKWARD,
    SECONDS,
    {0},
};

static const struct cli_option moe_options[] = {
    SIZE("tokens", tokens, "4096", "of the batch"),
    SIZE("dim", dim, "512", "width of the model"),
    SIZE("hidden", hidden, "384", "width of an expert's middle"),
    SIZE("experts", experts, "16", "how many"),
    SIZE("top-k", chosen, "4", "experts of a token"),
    BACKWARD,
    SECONDS,
    {0},
};

static const struct cli_option scan_options[] = {
    SIZE("batch", batch, "1", "sequences"),
    SIZE("length", length, "2048", "tokens of a sequence"),
    SIZE("dim", dim, "1536", "channels"),
    SIZE("state", states, "16", "states of a channel"),
    BACKWARD,
    SECONDS,
    {0},
};

static const struct cli_option elementwise_options[] = {
    SIZE_OF_CACHES("tokens", tokens, "rows"),
    SIZE("dim", dim, "1024", "width of a row, a multiple of 64"),
    SECONDS,
    {0},
};

static const struct cli_option optimizer_options[] = {
    SIZE_OF_CACHES("parameters", parameters, "of the model, about"),
    SECONDS,
    {0},
};

static const struct cli_option cross_entropy_options[] = {
    SIZE("tokens", tokens, "1024", "scored"),
    SIZE("dim", dim, "512", "width of the model"),
    SIZE("vocab", vocabulary, "16384", "rows of the output matrix"),
    SECONDS,
    {0},
};

static int measure(const char *name, const struct cli_common *common, void *arguments)
{
    ember_bench_options *options = arguments;
    ember_bench_result *result;
    options->runtime = common->runtime;
    const ember_status status = ember_bench(name, options, &result);
    if (status != EMBER_OK) return cli_fail(status);
    if (common->json)
        printf("%s\n", ember_bench_json(result));
    else
        fputs(ember_bench_text(result), stdout);
    ember_bench_free(result);
    return EXIT_OK;
}

// The library says which there are, and which are not in this build.
static int unknown(const char *word)
{
    const struct cli_common common = {0};
    ember_bench_options none = {0};
    return measure(word, &common, &none);
}

// One benchmark: its name, what an absent --dtype means (NULL: bf16 where there is hardware), what
// is typed after it, and what it measures.
#define BENCHMARK(symbol, dtype_, usage_, help_)                                                   \
    static int run_##symbol(const struct cli_common *common, void *arguments)                      \
    {                                                                                              \
        return measure(#symbol, common, arguments);                                                \
    }                                                                                              \
    static const struct cli_command symbol##_command = {                                           \
        .name = "bench " #symbol,                                                                  \
        .usage = usage_,                                                                           \
        .help = help_,                                                                             \
        .dtype = dtype_,                                                                           \
        .json = true,                                                                              \
        .options = symbol##_options,                                                               \
        .size = sizeof(ember_bench_options),                                                       \
        .run = run_##symbol,                                                                       \
    };

BENCHMARK(train, NULL,
          "--config FILE [--batch B] [--seq T] [--dtype f32|bf16] [--steps N] [--json]",
          "training steps: forward, backward, clipping to norm 1, AdamW")
BENCHMARK(prefill, NULL, "MODEL [--tokens N] [--json]",
          "reading a prompt, logits of its last token")
BENCHMARK(decode, NULL, "MODEL [--tokens N] [--context C] [--json]",
          "a token at a time from a state that holds some")
BENCHMARK(gemm, NULL, "[--m M] [--n N] [--k K] [--dtype f32|bf16|i8] [--json]",
          "matrix products, the right operand packed beforehand")
BENCHMARK(attention, "f32",
          "[--batch B] [--length T] [--heads H] [--kv-heads K] [--head-dim D] [--backward] "
          "[--json]",
          "causal attention")
BENCHMARK(fftconv, "f32", "[--batch B] [--channels H] [--length L] [--gated] [--backward] [--json]",
          "causal convolution as long as the sequence")
BENCHMARK(recurrent, "f32",
          "--type NAME [--batch B] [--length T] [--input I] [--units U] [--wiring SPEC] "
          "[--backward] [--json]",
          "a recurrent layer over float sequences")
BENCHMARK(moe, NULL,
          "[--tokens T] [--dim D] [--hidden F] [--experts E] [--top-k K] [--backward] [--json]",
          "a mixture of experts, beside a dense layer of the same active width")
BENCHMARK(scan, "f32", "[--batch B] [--length L] [--dim E] [--state N] [--backward] [--json]",
          "Mamba's selective scan")
BENCHMARK(elementwise, "f32", "[--tokens T] [--dim D] [--json]", "operations that memory bounds")
BENCHMARK(optimizer, "f32", "[--parameters N] [--json]",
          "optimizers, and what else walks over all parameters")
BENCHMARK(cross_entropy, NULL, "[--tokens T] [--dim D] [--vocab V] [--dtype f32|bf16] [--json]",
          "the loss and its kernels")

static const struct cli_command *const commands[] = {
    &train_command,
    &prefill_command,
    &decode_command,
    &gemm_command,
    &attention_command,
    &fftconv_command,
    &moe_command,
    &recurrent_command,

    &scan_command,
    &elementwise_command,
    &optimizer_command,
    &cross_entropy_command,
    NULL,
};

const struct cli_command command_bench = {
    .name = "bench",
    .usage = "NAME [--json] ...",
    .help = "measures training, inference and single operations on this machine",
    .description = "Weights and data are random, and no tokenizer is read.",
    .examples = "ember bench gemm --m 2048 --n 2048 --k 2048 --dtype f32\n"
                "ember bench train --config tiny-moe --batch 4 --seq 256 --steps 3 --json",
    .commands = commands,
    .unknown = unknown,
};
