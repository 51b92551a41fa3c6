// The commands of `ember moe`.
#ifndef CLI_MOE_H
#define CLI_MOE_H

#include "options.h"

extern const struct cli_command command_moe_report, command_moe_add, command_moe_remove,
    command_moe_clone, command_moe_merge, command_moe_upcycle;

#endif
