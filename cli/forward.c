// ember forward: logits and gradients from file to file.
#include <ember/forward.h>

#include "options.h"

struct arguments {
    const char *model, *in, *out;
    size_t chunk;
    bool gradients, chunked, masked;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

static const struct cli_option options[] = {
    {"MODEL", CLI_WORD, ARGUMENT(model), .suggest = CLI_FOLDERS, .needed = true,
     .help = "a model's folder; needs no tokenizer"},
    {"in", CLI_STRING, ARGUMENT(in), "FILE",
     "safetensors with input_ids [B, T], or inputs [B, T, D] and timespans [B, T]",
     .suggest = CLI_FILES, .needed = true},
    {"out", CLI_STRING, ARGUMENT(out), "FILE", "safetensors with the results; replaced",
     .suggest = CLI_FILES, .needed = true},
    {"grad", CLI_FLAG, ARGUMENT(gradients),
     .help = "also the loss, and its gradient for every parameter"},
    {"masked", CLI_FLAG, ARGUMENT(masked),
     .help = "leave out places where FILE's mask [B, T] is 0; their time is the next one's"},
    {"chunk", CLI_SIZE, ARGUMENT(chunk), "N", "tokens at a time, through the carried state",
     .otherwise = "all at once", .min = 1, .max = 1e9, .given = ARGUMENT(chunked)},
    {0},
};

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    if (a->gradients && a->chunked)
        return cli_usage(&command_forward, "--grad and --chunk exclude each other");
    const ember_forward_options how = {.runtime = common->runtime,
                                       .gradients = a->gradients,
                                       .chunk = a->chunk,
                                       .masked = a->masked};
    return cli_fail(ember_forward_file(a->model, a->in, a->out, &how));
}

const struct cli_command command_forward = {
    .name = "forward",
    .usage = "MODEL --in FILE --out FILE [--grad] [--masked] [--chunk N]",
    .help = "logits, loss and gradients of a model for given tokens",
    .description = "Each row is one sequence from position 0 and an empty state.",
    .examples = "ember forward my-model --in ids.safetensors --out logits.safetensors",
    .dtype = "f32",
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
