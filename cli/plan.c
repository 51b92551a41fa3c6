// ember plan: what training and running a model take, without taking it.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

struct arguments {
    const char *subject;
    size_t batch, seq, devices;
    struct cli_list data;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

static const struct cli_option options[] = {
    {"SUBJECT", CLI_WORD, ARGUMENT(subject), .suggest = CLI_FILES | CLI_PRESETS, .needed = true,
     .help = "a config, a recipe, a preset or a model"},
    {"batch", CLI_SIZE, ARGUMENT(batch), "B", "sequences at a time",
     .otherwise = "the recipe's, else 8; inference: 1", .min = 1, .max = 1 << 20},
    {"seq", CLI_SIZE, ARGUMENT(seq), "T", "tokens of each", .otherwise = "the recipe's, else 512",
     .min = 2, .max = 1 << 24},
    {"devices", CLI_SIZE, ARGUMENT(devices), "N", "more than 1 are not in this build",
     .preset = "1", .min = 1, .max = 1e6},
    {"data", CLI_LIST, ARGUMENT(data), "FILE", "text to train on: counts its tokens and steps",
     .suggest = CLI_FILES, .many = true},
    {0},
};

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    if (a->devices > 1)
        return cli_usage(&command_plan, "--devices %zu is not in this build: there is one",
                         a->devices);
    const ember_plan_options how = {.runtime = common->runtime,
                                    .batch = a->batch,
                                    .seq = a->seq,
                                    .data = a->data.item,
                                    .n_data = a->data.count};
    char *text = NULL;
    const ember_status status = ember_plan_describe(a->subject, &how, common->json, &text);
    cli_print_owned(text);
    return cli_fail(status);
}

const struct cli_command command_plan = {
    .name = "plan",
    .usage = "CONFIG_OR_PRESET_OR_MODEL [--batch B] [--seq T] [--devices N] [--data FILE...]",
    .help = "parameters, memory and operations of training and running a model",
    .description = "Nothing is allocated or computed: the forecast is the allocation that training "
                   "would make.",
    .examples = "ember plan tiny-moe --batch 16 --seq 256",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
