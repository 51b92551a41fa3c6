// Parsing a command line by a table, which also makes --help.
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/runtime.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 3 };

enum cli_type {
    CLI_END,
    CLI_FLAG,   // bool
    CLI_SIZE,   // size_t
    CLI_U64,    // uint64_t
    CLI_DOUBLE, // double
    CLI_STRING, // const char *
    CLI_LIST, // struct cli_list: may be given several times; `many` takes all words up to the next
              // option
};

struct cli_list {
    const char **item; // into argv
    size_t count;
};

struct cli_option {
    const char *name; // "batch" is --batch; "n" alone is -n; "p|prompt" is both
    enum cli_type type;
    void *target;
    const char *value;  // what --help calls it: "N", "FILE"
    const char *preset; // the default, for --help; NULL: none to speak of
    const char *help;
    double min, max; // numbers: both allowed; 0, 0: any that the type holds
    bool many;       // CLI_LIST
    bool *given;     // set when it was on the command line; may be NULL
};

// Options every command has.
struct cli_common {
    ember_runtime runtime;
    bool seed_given, quiet, json;
};

struct cli_command {
    const char *name;
    const char *usage;                 // after "ember NAME": "MODEL --data FILE..."
    const char *help;                  // one line
    int (*run)(int argc, char **argv); // argv[0] is the command's name
};

#define COMMAND(symbol) extern const struct cli_command command_##symbol;
#include "commands.def"
#undef COMMAND

// Parses argv[1..) by `options` and the common ones. Words that are no options go to `words` (at
// most max_words). Returns -1 to go on, else the exit status (after --help: EXIT_OK; wrong usage:
// EXIT_USAGE with one line).
int cli_parse(const struct cli_command *command, const struct cli_option *options, int argc,
              char **argv, struct cli_common *common, const char **words, size_t max_words,
              size_t *n_words);

// Prints "ember: message" with the library's last error and returns the exit status that belongs to
// `status`.
int cli_fail(ember_status status);
// Prints "ember NAME: ..." and the hint to --help; returns EXIT_USAGE.
int cli_usage(const struct cli_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// SIGINT and SIGTERM ask the library to stop with everything saved.
void cli_catch_signals(void);

// "did you mean": the nearest of the names, or NULL.
const char *cli_nearest(const char *word, const char *const *names, size_t count);

#endif
