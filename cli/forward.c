// ember forward: logits and gradients from file to file.
#include <ember/forward.h>

#include "options.h"

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    ember_forward_options options = {0};
    const char *in = NULL, *out = NULL, *model = NULL;
    bool chunked = false;
    size_t words;
    const struct cli_option table[] = {
        {"in", CLI_STRING, &in, "FILE", NULL,
         "safetensors with input_ids [B, T], or inputs [B, T, D] and timespans [B, T]", 0, 0, false,
         NULL},
        {"out", CLI_STRING, &out, "FILE", NULL, "safetensors with the results; replaced", 0, 0,
         false, NULL},
        {"grad", CLI_FLAG, &options.gradients, NULL, NULL,
         "also the loss, and its gradient for every parameter", 0, 0, false, NULL},
        {"chunk", CLI_SIZE, &options.chunk, "N", "all at once",
         "tokens at a time, through the carried state", 1, 1e9, false, &chunked},
        {0},
    };
    const int status = cli_parse(&command_forward, table, argc, argv, &common, &model, 1, &words);
    if (status >= 0) return status;
    if (!words || !in || !out)
        return cli_usage(&command_forward, "a model, --in and --out are needed");
    if (options.gradients && chunked)
        return cli_usage(&command_forward, "--grad and --chunk exclude each other");
    options.runtime = common.runtime;
    return cli_fail(ember_forward_file(model, in, out, &options));
}

const struct cli_command command_forward = {
    .name = "forward",
    .usage = "MODEL --in FILE --out FILE [--grad] [--chunk N]",
    .help = "logits, loss and gradients of a model for given tokens",
    .run = run,
};
