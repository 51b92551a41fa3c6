// ember moe add | remove | clone | merge | upcycle: the same model with other experts.
#include <stdio.h>
#include <stdlib.h>

#include <ember/experts.h>

#include "moe.h"
#include "output.h"

struct arguments {
    const char *model, *out, *like;
    struct cli_list experts, layers;
    size_t count, k;
    double noise;
    bool off;
    uint64_t seed;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

#define COMMON                                                                                     \
    {"MODEL",         CLI_WORD,                                                                    \
     ARGUMENT(model), .suggest = CLI_FOLDERS,                                                      \
     .needed = true,  .help = "a model's folder; it stays as it is"},                              \
        {"out",                                                                                    \
         CLI_STRING,                                                                               \
         ARGUMENT(out),                                                                            \
         "DIR",                                                                                    \
         "the new model's folder",                                                                 \
         .suggest = CLI_FOLDERS,                                                                   \
         .needed = true},                                                                          \
    {                                                                                              \
        "layers", CLI_LIST, ARGUMENT(layers), "N", "blocks whose experts change",                  \
            .otherwise = "all", .many = true                                                       \
    }
#define NAMED                                                                                      \
    {                                                                                              \
        "expert", CLI_LIST, ARGUMENT(experts), "E", "experts, from 0", .many = true,               \
                                                                       .needed = true              \
    }
#define COPIES                                                                                     \
    {"noise",                                                                                      \
     CLI_DOUBLE,                                                                                   \
     ARGUMENT(noise),                                                                              \
     "X",                                                                                          \
     "noise on copies, as a share of each tensor's root mean square",                              \
     .preset = "0",                                                                                \
     .max = 10},                                                                                   \
        {"off", CLI_FLAG, ARGUMENT(off),                                                           \
         .help = "new ones are not chosen until their selection bias is raised"},                  \
    {                                                                                              \
        "seed", CLI_U64, ARGUMENT(seed), "N", "of what is random", .preset = "0", .max = 1e18      \
    }

static const struct cli_option add_options[] = {
    COMMON,
    {"count", CLI_SIZE, ARGUMENT(count), "N", "how many", .preset = "1", .min = 1, .max = 4096},
    {"like", CLI_STRING, ARGUMENT(like), "E", "they begin as this one", .otherwise = "at random"},
    COPIES,
    {0},
};
static const struct cli_option upcycle_options[] = {
    COMMON,
    {"experts", CLI_SIZE, ARGUMENT(count), "E", "of each mixture", .preset = "8", .min = 1,
     .max = 4096},
    {"top-k", CLI_SIZE, ARGUMENT(k), "K", "that a token goes to", .preset = "2", .min = 1,
     .max = 256},
    {"noise", CLI_DOUBLE, ARGUMENT(noise), "X",
     "noise on all experts but the first, as a share of each tensor's root mean square",
     .preset = "0", .max = 10},
    {"seed", CLI_U64, ARGUMENT(seed), "N", "of what is random", .preset = "0", .max = 1e18},
    {0},
};
static const struct cli_option named_options[] = {COMMON, NAMED, {0}};
static const struct cli_option clone_options[] = {COMMON, NAMED, COPIES, {0}};

// Numbers of experts or layers; owned. NULL: one is none, which has been said.
static size_t *numbers(const struct cli_command *command, const struct cli_list *list,
                       const char *option)
{
    size_t *n = calloc(list->count + 1, sizeof *n);
    if (!n) {
        cli_no_memory("numbers");
        return NULL;
    }
    for (size_t i = 0; i < list->count; i++) {
        char *end;
        const unsigned long value = strtoul(list->item[i], &end, 10);
        if (list->item[i][0] < '0' || list->item[i][0] > '9' || *end || value > 1 << 20) {
            cli_usage(command, "--%s: \"%s\" is not a number from 0", option, list->item[i]);
            free(n);
            return NULL;
        }
        n[i] = value;
    }
    return n;
}

static int edit(const struct cli_command *command, ember_expert_edit_kind kind,
                const struct arguments *a)
{
    const char *item[] = {a->like ? a->like : "0"};
    const struct cli_list like = {.item = item, .count = 1};
    size_t *experts = numbers(command, &a->experts, "expert"),
           *layers = experts ? numbers(command, &a->layers, "layers") : NULL,
           *begin = layers ? numbers(command, &like, "like") : NULL;
    int result = EXIT_USAGE;
    if (begin) {
        char *text = NULL;
        const ember_status status =
            ember_experts_edit(a->model, a->out,
                               &(ember_expert_edit){.kind = kind,
                                                    .experts = experts,
                                                    .n_experts = a->experts.count,
                                                    .count = a->count,
                                                    .like = a->like ? begin : NULL,
                                                    .noise = a->noise,
                                                    .off = a->off,
                                                    .layers = layers,
                                                    .n_layers = a->layers.count,
                                                    .seed = a->seed},
                               &text);
        result = status == EMBER_OK ? EXIT_OK : cli_fail(status);
        if (text) cli_print_owned(text);
    }
    free(experts);
    free(layers);
    free(begin);
    return result;
}

static int run_add(const struct cli_common *common, void *arguments)
{
    (void)common;
    return edit(&command_moe_add, EMBER_EXPERTS_ADD, arguments);
}

static int run_remove(const struct cli_common *common, void *arguments)
{
    (void)common;
    return edit(&command_moe_remove, EMBER_EXPERTS_REMOVE, arguments);
}

static int run_clone(const struct cli_common *common, void *arguments)
{
    (void)common;
    return edit(&command_moe_clone, EMBER_EXPERTS_CLONE, arguments);
}

static int run_merge(const struct cli_common *common, void *arguments)
{
    (void)common;
    return edit(&command_moe_merge, EMBER_EXPERTS_MERGE, arguments);
}

static int run_upcycle(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    char *text = NULL;
    (void)common;
    size_t *layers = numbers(&command_moe_upcycle, &a->layers, "layers");
    if (!layers) return EXIT_USAGE;
    const ember_status status =
        ember_experts_upcycle(a->model, a->out,
                              &(ember_upcycling){.experts = a->count,
                                                 .k = a->k,
                                                 .noise = a->noise,
                                                 .layers = layers,
                                                 .n_layers = a->layers.count,
                                                 .seed = a->seed},
                              &text);
    free(layers);
    if (status != EMBER_OK) return cli_fail(status);
    cli_print_owned(text);
    return EXIT_OK;
}

const struct cli_command command_moe_add = {
    .name = "moe add",
    .usage =
        "MODEL --out DIR [--count N] [--like E] [--noise X] [--off] [--layers N...] [--seed N]",
    .help = "more experts: new ones, or begun as one that is there",
    .description = "New experts come last, with rows of their own in the router. With --off no "
                   "output changes by a bit until they are let in.",
    .examples = "ember moe add my-model --out more --count 2 --off\n"
                "ember moe add my-model --out more --like 3 --noise 0.05",
    .options = add_options,
    .size = sizeof(struct arguments),
    .run = run_add,
};

const struct cli_command command_moe_remove = {
    .name = "moe remove",
    .usage = "MODEL --out DIR --expert E... [--layers N...]",
    .help = "fewer experts: those named go, with their part of the router",
    .examples = "ember moe remove my-model --out fewer --expert 0 5",
    .options = named_options,
    .size = sizeof(struct arguments),
    .run = run_remove,
};

const struct cli_command command_moe_clone = {
    .name = "moe clone",
    .usage = "MODEL --out DIR --expert E... [--noise X] [--off] [--layers N...] [--seed N]",
    .help = "a copy of each expert named",
    .examples = "ember moe clone my-model --out more --expert 2 --noise 0.02",
    .options = clone_options,
    .size = sizeof(struct arguments),
    .run = run_clone,
};

const struct cli_command command_moe_merge = {
    .name = "moe merge",
    .usage = "MODEL --out DIR --expert E E... [--layers N...]",
    .help = "the experts named become one, their mean",
    .examples = "ember moe merge my-model --out fewer --expert 1 4",
    .options = named_options,
    .size = sizeof(struct arguments),
    .run = run_merge,
};

const struct cli_command command_moe_upcycle = {
    .name = "moe upcycle",
    .usage = "MODEL --out DIR [--experts E] [--top-k K] [--noise X] [--layers N...] [--seed N]",
    .help = "a mixture of every dense channel mixer, whose experts begin as it",
    .description = "Without noise the new model answers as the dense one did.",
    .examples = "ember moe upcycle my-dense --out my-mixture --experts 8 --noise 0.01",
    .options = upcycle_options,
    .size = sizeof(struct arguments),
    .run = run_upcycle,
};
