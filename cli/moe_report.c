// ember moe report: who does what among a model's experts.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/experts.h>

#include "moe.h"
#include "output.h"

struct arguments {
    const char *model, *out, *json;
    struct cli_list data, labels, compare;
    uint64_t tokens;
    size_t context;
};

#define ARGUMENT(field) offsetof(struct arguments, field)

static const struct cli_option options[] = {
    {"MODEL", CLI_WORD, ARGUMENT(model), .suggest = CLI_FOLDERS, .needed = true,
     .help = "a model's folder"},
    {"data", CLI_LIST, ARGUMENT(data), "FILE",
     "held-out text, each a domain; of .jsonl every line is a document, .gz and .zst too",
     .suggest = CLI_FILES, .many = true, .needed = true},
    {"label", CLI_LIST, ARGUMENT(labels), "NAME",
     "the domain of each FILE, in their order; several may share one",
     .otherwise = "the files' names", .many = true},
    {"out", CLI_STRING, ARGUMENT(out), "FILE.html", "the page",
     .otherwise = "MODEL/moe-report.html, unless --json is given", .suggest = CLI_FILES},
    {"json", CLI_STRING, ARGUMENT(json), "FILE", "the same figures as JSON",
     .otherwise = "MODEL/moe-report.json, unless --out is given", .suggest = CLI_FILES},
    {"compare", CLI_LIST, ARGUMENT(compare), "CHECKPOINT",
     "earlier states of the model, beside those in MODEL/training", .suggest = CLI_FOLDERS,
     .many = true},
    {"tokens", CLI_U64, ARGUMENT(tokens), "N", "about so many tokens of each FILE",
     .preset = "32768", .min = 1, .max = 1e12},
    {"context", CLI_SIZE, ARGUMENT(context), "C", "tokens of a window",
     .otherwise = "the model's, at most 2048", .min = 1, .max = 2048},
    {0},
};

// MODEL/name, owned; NULL: no memory.
static char *beside(const char *model, const char *name)
{
    const size_t n = strlen(model) + strlen(name) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s", model, name);
    return path;
}

static int report(const struct cli_common *common, const struct arguments *a, const char *html,
                  const char *json)
{
    const ember_experts_options how = {.runtime = common->runtime,
                                       .data = a->data.item,
                                       .n_data = a->data.count,
                                       .labels = a->labels.item,
                                       .n_labels = a->labels.count,
                                       .compare = a->compare.item,
                                       .n_compare = a->compare.count,
                                       .tokens = a->tokens,
                                       .context = a->context,
                                       .html = html,
                                       .json = json};
    char *text;
    cli_catch_signals();
    const ember_status status = ember_experts_report(a->model, &how, &text);
    if (status != EMBER_OK) return cli_fail(status);
    cli_print_owned(text);
    return EXIT_OK;
}

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    if (a->labels.count && a->labels.count != a->data.count)
        return cli_usage(&command_moe_report, "--label needs a name for each of the %zu texts",
                         a->data.count);
    if (a->out || a->json) return report(common, a, a->out, a->json);
    char *html = beside(a->model, "moe-report.html"), *json = beside(a->model, "moe-report.json");
    const int result =
        html && json ? report(common, a, html, json) : cli_no_memory("the report's names");
    free(html);
    free(json);
    return result;
}

const struct cli_command command_moe_report = {
    .name = "moe report",
    .usage = "MODEL --data FILE... [--label NAME...] [--out FILE.html] [--json FILE]\n"
             "[--compare CHECKPOINT...] [--tokens N] [--context C]",
    .help = "what each expert does with held-out text, as a page, as JSON and as a sketch",
    .description =
        "For every layer with experts: maps of where domains, positions, kinds of tokens and the "
        "most frequent tokens go; which experts share tokens and how alike they are; load, "
        "entropies, mutual information with the domain beside that of shuffled labels; dead "
        "experts; example texts by expert. A training run's folder adds the load over training "
        "and how far its earlier states had settled.",
    .examples = "ember moe report my-model --data prose.txt code.txt --out experts.html\n"
                "ember moe report my-model --data a.txt b.txt c.txt --label prose prose code",
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
