// ember info: the build and the machine.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

static int run(const struct cli_common *common, void *arguments)
{
    (void)arguments;
    char *text = NULL;
    const ember_status status = ember_machine_describe(&common->runtime, common->json, &text);
    cli_print_owned(text);
    return cli_fail(status);
}

const struct cli_command command_info = {
    .name = "info",
    .usage = "[--json]",
    .help = "build, instruction sets, threads, measured peak and bandwidth",
    .description = "Measuring takes about a tenth of a second.",
    .examples = "ember info\nEMBER_ISA=avx2 ember info --threads 1",
    .json = true,
    .run = run,
};
