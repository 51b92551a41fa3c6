// ember train: from a recipe, or a preset and text, to a model.
#include <ember/train.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

static int train(const struct cli_common *common, ember_train_options *options)
{
    ember_train_result result;
    cli_catch_signals();
    options->runtime = common->runtime;
    options->seed_given = common->seed_given;
    const ember_status status = ember_train(options, &result);
    if (status != EMBER_OK) return cli_fail(status);
    fputs(common->json ? result.json : result.text, stdout);
    if (common->json) putchar('\n');
    ember_train_result_deinit(&result);
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_OK;
    fprintf(stderr, "ember: stdout: %s\n", strerror(errno));
    return EXIT_FAILED;
}

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    ember_train_options options = {0};
    struct cli_list data = {0}, set = {0};
    size_t words;
    const struct cli_option table[] = {
        {"preset", CLI_STRING, &options.preset, "NAME", NULL,
         "a recipe that comes with Ember: tiny-moe", 0, 0, false, NULL},
        {"data", CLI_LIST, &data, "PATH", NULL,
         "text: files, folders or globs, each a domain; .jsonl, .gz and .zst too", 0, 0, true,
         NULL},
        {"out", CLI_STRING, &options.out, "DIR", "runs/NAME",
         "the run's folder, absent or empty; it becomes the model's", 0, 0, false, NULL},
        {"set", CLI_LIST, &set, "KEY=VALUE", NULL,
         "a value of the recipe, for instance train.lr=3e-4", 0, 0, false, NULL},
        {"resume", CLI_FLAG, &options.resume, NULL, NULL, "go on with the run in DIR", 0, 0, false,
         NULL},
        {"dry-run", CLI_FLAG, &options.dry_run, NULL, NULL,
         "print parameters, memory, tokens and time, and stop", 0, 0, false, NULL},
        {0},
    };
    int status = cli_parse(&command_train, table, argc, argv, &common, &options.recipe, 1, &words);
    options.data = data.item;
    options.n_data = data.count;
    options.set = set.item;
    options.n_set = set.count;
    if (status < 0 && !words && !options.preset && !options.resume)
        status = cli_usage(&command_train, "a recipe, --preset or --resume is needed");
    if (status < 0 && words && options.preset)
        status = cli_usage(&command_train, "a recipe and --preset exclude each other");
    if (status < 0 && options.resume && !words && !options.preset && !options.out)
        status = cli_usage(&command_train, "--resume needs --out, the folder of the run");
    if (status < 0) status = train(&common, &options);
    free(data.item);
    free(set.item);
    return status;
}

const struct cli_command command_train = {
    .name = "train",
    .usage = "RECIPE | --preset NAME --data PATH...  [--out DIR] [--set KEY=VALUE] [--resume]",
    .help = "trains a model from a recipe, or a preset and text",
    .run = run,
};
