// ember plan: what training and running a model take, without taking it.
#include <stdlib.h>

#include <ember/describe.h>

#include "options.h"
#include "output.h"

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    ember_plan_options options = {0};
    struct cli_list data = {0};
    const char *subject = NULL;
    char *text = NULL;
    size_t words, devices = 1;
    const struct cli_option table[] = {
        {"batch", CLI_SIZE, &options.batch, "B", "the recipe's, else 8; inference: 1",
         "sequences at a time", 1, 1 << 20, false, NULL},
        {"seq", CLI_SIZE, &options.seq, "T", "the recipe's, else 512", "tokens of each", 2, 1 << 24,
         false, NULL},
        {"devices", CLI_SIZE, &devices, "N", "1", "more than 1 are not in this build", 1, 1e6,
         false, NULL},
        {"data", CLI_LIST, &data, "FILE", NULL, "text to train on: counts its tokens and steps", 0,
         0, true, NULL},
        {0},
    };
    int result = cli_parse(&command_plan, table, argc, argv, &common, &subject, 1, &words);
    if (result < 0 && !words)
        result = cli_usage(&command_plan, "a config, a recipe, a preset or a model is needed");
    if (result < 0 && devices > 1)
        result =
            cli_usage(&command_plan, "--devices %zu is not in this build: there is one", devices);
    if (result < 0) {
        options.runtime = common.runtime;
        options.data = data.item;
        options.n_data = data.count;
        const ember_status status = ember_plan_describe(subject, &options, common.json, &text);
        cli_print_owned(text);
        result = cli_finish(status);
    }
    free(data.item);
    return result;
}

const struct cli_command command_plan = {
    .name = "plan",
    .usage = "CONFIG_OR_PRESET_OR_MODEL [--batch B] [--seq T] [--data FILE...]",
    .help = "parameters, memory and operations of training and running a model",
    .run = run,
};
