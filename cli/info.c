// ember info: the build and the machine.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    char *text = NULL;
    size_t words;
    const int result = cli_parse(&command_info, NULL, argc, argv, &common, NULL, 0, &words);
    if (result >= 0) return result;
    const ember_status status = ember_machine_describe(&common.runtime, common.json, &text);
    cli_print_owned(text);
    return cli_finish(status);
}

const struct cli_command command_info = {
    .name = "info",
    .usage = "",
    .help = "build, instruction sets, threads, measured peak and bandwidth",
    .run = run,
};
