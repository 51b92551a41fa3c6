// ember registry: every component, and one component's options.
#include <ember/describe.h>

#include "options.h"
#include "output.h"

static int run(int argc, char **argv)
{
    struct cli_common common = {0};
    const char *name = NULL, *kind = NULL;
    char *text = NULL;
    size_t words;
    bool markdown = false;
    const struct cli_option table[] = {
        {"kind", CLI_STRING, &kind, "K", "all", "only components of this kind", 0, 0, false, NULL},
        {"markdown", CLI_FLAG, &markdown, NULL, NULL,
         "a page with everything, as docs/components.md", 0, 0, false, NULL},
        {0},
    };
    const int result = cli_parse(&command_registry, table, argc, argv, &common, &name, 1, &words);
    if (result >= 0) return result;
    if (markdown && common.json)
        return cli_usage(&command_registry, "--markdown and --json exclude each other");
    const ember_status status = markdown ? ember_registry_markdown(name, kind, &text)
                                         : ember_registry_describe(name, kind, common.json, &text);
    cli_print_owned(text);
    return cli_finish(status);
}

const struct cli_command command_registry = {
    .name = "registry",
    .usage = "[NAME] [--kind K] [--markdown]",
    .help = "every component, and one component's options",
    .run = run,
};
