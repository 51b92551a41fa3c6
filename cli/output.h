// Results on stdout.
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <ember/status.h>

// A JSON string with its quotes; control characters escaped, bytes above 127 as they are.
void cli_print_json_string(const char *s);
// Prints an owned text of the library's, and frees it.
void cli_print_owned(char *text);
// Empties stdout's buffer, where a full disk or a closed pipe shows. The exit status: that of
// `status` if it is a failure.
int cli_finish(ember_status status);

#endif
