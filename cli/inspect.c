// ember inspect: what a model consists of.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

struct arguments {
    const char *path;
};

static const struct cli_option options[] = {
    {"PATH", CLI_WORD, offsetof(struct arguments, path), .suggest = CLI_FILES, .needed = true,
     .help = "a folder, a .safetensors file or a config"},
    {0},
};

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    char *text = NULL;
    const ember_status status = ember_model_inspect(a->path, common->json, &text);
    cli_print_owned(text);
    return cli_fail(status);
}

const struct cli_command command_inspect = {
    .name = "inspect",
    .usage = "PATH [--json]",
    .help = "config, parameters, experts, tensors and metadata of a model",
    .examples = "ember inspect my-model",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
