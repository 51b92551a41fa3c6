// The `ember` program: finds the subcommand.
#include <stdio.h>
#include <string.h>

#include "options.h"

static const struct cli_command *const commands[] = {
#define COMMAND(symbol) &command_##symbol,
#include "commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *to)
{
    fprintf(to,
            "ember %s: build, train, run and quantise liquid, hybrid, Mixture-of-Experts sequence "
            "models\n\n",
            ember_version());
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  ember %-10s %s\n", commands[i]->name, commands[i]->help);
    fprintf(to, "\n`ember COMMAND --help` lists a command's options.\n");
}

int main(int argc, char **argv)
{
    // Nobody else here uses jansson: what its values take is counted with the rest.
    if (ember_use_allocator(&(ember_allocator){.json = true}) != EMBER_OK) return EXIT_FAILED;
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("ember %s\n", ember_version());
        return EXIT_OK;
    }
    const char *names[COMMANDS];
    for (size_t i = 0; i < COMMANDS; i++) {
        names[i] = commands[i]->name;
        if (strcmp(argv[1], commands[i]->name) == 0) return commands[i]->run(argc - 1, argv + 1);
    }
    const char *near = cli_nearest(argv[1], names, COMMANDS);
    fprintf(stderr, "ember: there is no command \"%s\"%s%s%s; `ember --help` lists them\n", argv[1],
            near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return EXIT_USAGE;
}
