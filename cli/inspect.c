// ember inspect: what a model consists of.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    const char *path = NULL;
    char *text = NULL;
    size_t words;
    const int result = cli_parse(&command_inspect, NULL, argc, argv, &common, &path, 1, &words);
    if (result >= 0) return result;
    if (!words)
        return cli_usage(&command_inspect, "a folder, a .safetensors file or a config is needed");
    const ember_status status = ember_model_inspect(path, common.json, &text);
    cli_print_owned(text);
    return cli_finish(status);
}

const struct cli_command command_inspect = {
    .name = "inspect",
    .usage = "PATH",
    .help = "config, parameters, experts, tensors and metadata of a model",
    .run = run,
};
