// ember moe: what the experts of a mixture do. One file for each of its commands.
#include "moe.h"

static const struct cli_command *const commands[] = {&command_moe_report, NULL};

const struct cli_command command_moe = {
    .name = "moe",
    .usage = "report ...",
    .help = "looks at mixtures of experts",
    .description = "Reports what each expert of a trained model does.",
    .examples = "ember moe report my-model --data prose.txt code.txt --out experts.html",
    .commands = commands,
};
