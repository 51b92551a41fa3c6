// ember registry: every component, and one component's options.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

struct arguments {
    const char *name, *kind;
    bool markdown;
};

static const struct cli_option options[] = {
    {"NAME", CLI_WORD, offsetof(struct arguments, name), .suggest = CLI_COMPONENTS,
     .help = "a component, to see its options; without it all are listed"},
    {"kind", CLI_STRING, offsetof(struct arguments, kind), "K", "only components of this kind",
     .otherwise = "every kind", .suggest = CLI_KINDS},
    {"markdown", CLI_FLAG, offsetof(struct arguments, markdown),
     .help = "a page with everything, as docs/components.md"},
    {0},
};

static int run(const struct cli_common *common, void *arguments)
{
    const struct arguments *a = arguments;
    if (a->markdown && common->json)
        return cli_usage(&command_registry, "--markdown and --json exclude each other");
    char *text = NULL;
    const ember_status status =
        a->markdown ? ember_registry_markdown(a->name, a->kind, &text)
                    : ember_registry_describe(a->name, a->kind, common->json, &text);
    cli_print_owned(text);
    return cli_fail(status);
}

const struct cli_command command_registry = {
    .name = "registry",
    .usage = "[NAME] [--kind K] [--markdown] [--json]",
    .help = "every component, and one component's options",
    .examples = "ember registry --kind router\nember registry attention",
    .json = true,
    .options = options,
    .size = sizeof(struct arguments),
    .run = run,
};
