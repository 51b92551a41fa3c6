// The `ember` program: finds the subcommand.
#include <stdio.h>
#include <string.h>

#include <ember/runtime.h>
#include <ember/version.h>

#include "help.h"
#include "options.h"
#include "output.h"

const struct cli_command *const cli_commands[] = {
#define COMMAND(symbol) &command_##symbol,
#include "commands.def"
#undef COMMAND
    NULL,
};

static bool is_help(const char *word)
{
    return !strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help");
}

static int no_command(const char *word)
{
    const char *names[64];
    size_t n = 0;
    for (; cli_commands[n]; n++)
        names[n] = cli_commands[n]->name;
    const char *near = ember_nearest(word, names, n);
    fprintf(stderr, "ember: there is no command \"%s\"%s%s%s; `ember --help` lists them\n", word,
            near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return EXIT_USAGE;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "ember: a command comes first; `ember --help` lists them\n");
        return EXIT_USAGE;
    }
    if (is_help(argv[1]) && argc == 2) return cli_help_all();
    if (!strncmp(argv[1], "--help=", 7)) return cli_help_as(NULL, argv[1] + 7);
    if (!strcmp(argv[1], "--version")) {
        printf("ember %s\n%s\n", ember_version(), ember_build_info());
        return EXIT_OK;
    }
    if (is_help(argv[1])) { // `ember help train` is `ember train --help`
        static char help[] = "--help";
        memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof *argv);
        argv[argc - 1] = help;
    }
    for (size_t i = 0; cli_commands[i]; i++)
        if (!strcmp(argv[1], cli_commands[i]->name))
            return cli_run(cli_commands[i], argc - 1, argv + 1);
    return no_command(argv[1]);
}

int main(int argc, char **argv)
{
    // Nobody else here uses jansson: what its values take is counted with the rest.
    if (ember_use_allocator(&(ember_allocator){.json = true}) != EMBER_OK) return EXIT_FAILED;
    cli_prepare_output();
    return cli_close_output(run(argc, argv));
}
