// What a command is, and its command line: one table of options makes the parser, --help, the man
// pages and the shells' completion.
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/runtime.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 3 };

enum cli_type {
    CLI_END,
    CLI_WORD,   // const char *: a word that is no option; in the order of the table
    CLI_FLAG,   // bool
    CLI_SIZE,   // size_t
    CLI_U64,    // uint64_t
    CLI_DOUBLE, // double
    CLI_STRING, // const char *
    CLI_CHOICE, // int: 0 when absent, else 1 + the place in `choices`
    CLI_LIST,   // struct cli_list: may be given several times; `many` takes all words up to the
                // next option
};

// What a value may be, for completion: bits.
enum cli_suggest {
    CLI_FILES = 1,
    CLI_FOLDERS = 2,
    CLI_PRESETS = 4,
    CLI_KINDS = 8,
    CLI_COMPONENTS = 16,
};

struct cli_list {
    const char **item; // into argv
    size_t count;
};

struct cli_option {
    const char *name; // "batch" is --batch; "n" alone is -n; "p|prompt" is both; "MODEL" a word
    enum cli_type type;
    size_t offset;         // of the field in the command's struct
    const char *value;     // what --help calls it: "N", "FILE"
    const char *help;      // without a full stop
    const char *preset;    // the default as it would be typed; set before parsing
    const char *otherwise; // what an absent option means, in words, where `preset` cannot say it
    const char *choices;   // CLI_CHOICE: "f32|bf16"
    double min, max;       // numbers: both allowed; 0, 0: any that the type holds
    unsigned suggest;      // enum cli_suggest
    bool many;             // CLI_LIST
    bool needed;           // its absence is wrong usage
    size_t given;          // offset of a bool that is set when it was typed; 0: none
};

// Options that every command has; --json where a command prints figures.
struct cli_common {
    ember_runtime runtime;
    struct cli_list plugins;
    size_t threads;
    int backend, dtype;
    bool seed_given, quiet, json;
};
extern const struct cli_option cli_common_options[], cli_json_option[];

struct cli_command {
    const char *name;        // "train", "tokenizer train"
    const char *usage;       // after "ember NAME": "MODEL --data FILE..."; a line for each way
    const char *help;        // one line, lower case, no full stop
    const char *description; // more, in sentences; NULL: nothing. Paragraphs part at "\n\n"
    const char *examples;    // lines, each a command; NULL: none
    const char *dtype; // what an absent --dtype means here; NULL: bf16 where there is hardware
    const char *seed;  // what an absent --seed means here; NULL: 0
    bool json;         // prints figures, so it has --json
    const struct cli_option *options; // ends with {0}; NULL: none
    size_t size;                      // of the struct that the options fill
    int (*run)(const struct cli_common *common, void *arguments);
    // Instead of options and run: commands of its own, NULL-terminated.
    const struct cli_command *const *commands;
    int (*unknown)(const char *word); // says why there is no such command; NULL: a general line
};

#define COMMAND(symbol) extern const struct cli_command command_##symbol;
#include "commands.def"
#undef COMMAND
extern const struct cli_command *const cli_commands[]; // NULL-terminated

// Parses argv[1..) by the command's table and runs it. Returns the exit status.
int cli_run(const struct cli_command *command, int argc, char **argv);

// Prints "ember: message" with the library's last error and returns the exit status that belongs to
// `status`.
int cli_fail(ember_status status);
// Prints that there was no memory for `what`; returns EXIT_FAILED.
int cli_no_memory(const char *what);
// Prints "ember NAME: ..." and the hint to --help; returns EXIT_USAGE.
int cli_usage(const struct cli_command *command, const char *format, ...) EMBER_PRINTF(2, 3);

// SIGINT and SIGTERM ask the library to stop with everything saved.
void cli_catch_signals(void);

// The names of "p|prompt", one after the other; NULL past the last. `n` is the name's length.
const char *cli_name_at(const struct cli_option *o, size_t i, size_t *n);
// The i-th word of "f32|bf16", the same way.
const char *cli_choice_at(const char *choices, size_t i, size_t *n);
// Whether the command has an option of its own in place of this one, which every command has. `c`
// may be NULL.
bool cli_is_replaced(const struct cli_command *c, const struct cli_option *o);

#endif
