// ember moe: what the experts of a mixture do. One file for each of its commands.
#include "moe.h"

static const struct cli_command *const commands[] = {&command_moe_report,
                                                     &command_moe_add,
                                                     &command_moe_remove,
                                                     &command_moe_clone,
                                                     &command_moe_merge,
                                                     &command_moe_upcycle,
                                                     NULL};

const struct cli_command command_moe = {
    .name = "moe",
    .usage = "report|add|remove|clone|merge|upcycle ...",
    .help = "mixtures of experts: who does what, and more or fewer of them",
    .description = "Reports what each expert of a trained model does, and makes models with other "
                   "experts of it.",
    .examples = "ember moe report my-model --data prose.txt code.txt --out experts.html",
    .commands = commands,
};
