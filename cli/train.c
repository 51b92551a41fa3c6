// ember train: from a recipe, or a preset and text, to a model.
#include <ember/train.h>

#include <stdio.h>

#include "options.h"

struct arguments {
    const char *recipe, *preset, *out;
    struct cli_list data, set;
    bool resume, dry_run;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

static const struct cli_option options[] = {
    {"RECIPE", CLI_WORD, ARGUMENT(recipe), .suggest = CLI_FILES,
     .help = "JSON with model, data, train and seed"},
    {"preset", CLI_STRING, ARGUMENT(preset), "NAME", "a recipe that comes with Ember, tiny-moe",
     .suggest = CLI_PRESETS},
    {"data", CLI_LIST, ARGUMENT(data), "PATH",
     "text: files, folders or globs, each a domain; .jsonl, .gz and .zst too",
     .otherwise = "the recipe's", .suggest = CLI_FILES, .many = true},
    {"out", CLI_STRING, ARGUMENT(out), "DIR",
     "the run's folder, absent or empty; it becomes the model's", .otherwise = "runs/NAME",
     .suggest = CLI_FOLDERS},
    {"set", CLI_LIST, ARGUMENT(set), "KEY=VALUE",
     .help = "a value of the recipe, for instance train.lr=3e-4"},
    {"resume", CLI_FLAG, ARGUMENT(resume), .help = "go on with the run in DIR"},
    {"dry-run", CLI_FLAG, ARGUMENT(dry_run),
     .help = "print parameters, memory, tokens and time, and stop"},
    {0},
};

static int train(const struct cli_common *common, const struct arguments *a)
{
    const ember_train_options how = {.runtime = common->runtime,
                                     .seed_given = common->seed_given,
                                     .recipe = a->recipe,
                                     .preset = a->preset,
                                     .data = a->data.item,
                                     .n_data = a->data.count,
                                     .set = a->set.item,
                                     .n_set = a->set.count,
                                     .out = a->out,
                                     .resume = a->resume,
                                     .dry_run = a->dry_run};
    ember_train_result result;
    cli_catch_signals();
    const ember_status status = ember_train(&how, &result);
    if (status != EMBER_OK) return cli_fail(status);
    fputs(common->json ? result.json : result.text, stdout);
    if (common->json) putchar('\n');
    ember_train_result_deinit(&result);
    return EXIT_OK;
}

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    if (!a->recipe && !a->preset && !a->resume)
        return cli_usage(&command_train, "a recipe, --preset or --resume is needed");
    if (a->recipe && a->preset)
        return cli_usage(&command_train, "a recipe and --preset exclude each other");
    if (a->resume && !a->recipe && !a->preset && !a->out)
        return cli_usage(&command_train, "--resume needs --out, the folder of the run");
    return train(common, a);
}

const struct cli_command command_train = {
    .name = "train",
    .usage = "RECIPE [--out DIR] [--set KEY=VALUE] [--resume] [--dry-run]\n"
             "--preset NAME --data PATH... [--out DIR] ...",
    .help = "trains a model from a recipe, or a preset and text",
    .description =
        "Before the first step parameters, memory, tokens and expected time are printed. DIR ends "
        "as the model's folder, with best/, report.html, README.md, logs/ and training/, from "
        "which --resume goes on. A flag is stronger than --set, --set than the recipe, the recipe "
        "than its preset.",
    .examples = "ember train --preset tiny-moe --data books/ --out my-model\n"
                "ember train --out my-model --resume",
    .dtype = "the recipe's, else bf16 where the machine has it",
    .seed = "the recipe's, else 0",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
