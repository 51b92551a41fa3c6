// Results on stdout.
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <ember/status.h>

// Opens what the program was started without (`ember ... >&-`) so that it fails when used: else the
// first file that is opened would be stdout, and results would be written into it. And a pipe whose
// reader has gone is an error to see, not a signal that ends a training.
void cli_prepare_output(void);
// Empties stdout's buffer, where a full disk or a closed pipe shows. The exit status: `result` if
// that is a failure. A reader that has gone has what it wanted: that is told by the status alone.
int cli_close_output(int result);

// Writes at once, for text that people watch.
bool cli_put(const char *text, size_t n);

// A JSON string with its quotes; control characters escaped, bytes above 127 as they are.
void cli_print_json_string(const char *s);
// Prints an owned text of the library's, and frees it.
void cli_print_owned(char *text);

#endif
