// What a command's table says, in all its forms: --help, man pages, completion of shells.
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include "options.h"

// --help on stdout, as wide as the terminal. Returns EXIT_OK.
int cli_help(const struct cli_command *command);
// `ember --help`: the commands.
int cli_help_all(void);

// --help=FORMAT: man for a command and for the program (command NULL); bash, zsh, fish for the
// program. Returns EXIT_OK or EXIT_USAGE.
int cli_help_as(const struct cli_command *command, const char *format);

void cli_manual(const struct cli_command *command); // NULL: the program
ember_status cli_completion_bash(void) EMBER_CHECKED;
ember_status cli_completion_zsh(void) EMBER_CHECKED;
ember_status cli_completion_fish(void) EMBER_CHECKED;

// "-p, --prompt" and then " TEXT" or " FILE..."; a word's own name.
struct cli_text {
    char text[256];
};
struct cli_text cli_names(const struct cli_option *o, const char *separator);
// What follows the help in brackets: "integer from 1 to 512, default 5". `command` has the defaults
// of common options.
struct cli_text cli_facts(const struct cli_option *o, const struct cli_command *command);
// The part of a command's name after the last space: "train" of "tokenizer train".
const char *cli_last_name(const struct cli_command *command);
// The i-th way of using a command, NULL past the last; `n` is its length.
const char *cli_usage_at(const struct cli_command *command, size_t i, size_t *n);
// "Trains a model": the help as the beginning of a sentence.
struct cli_text cli_sentence(const char *help);

#endif
