// The commands of `ember moe`.
#ifndef CLI_MOE_H
#define CLI_MOE_H

#include "options.h"

extern const struct cli_command command_moe_report;

#endif
