// What the sketches of a terminal share.
#ifndef EM_REPORT_TERMINAL_PRIV_H
#define EM_REPORT_TERMINAL_PRIV_H

#include "report/report.h"

enum { EM_TERMINAL_NAME = 10 }; // columns of a name in front of a row

size_t em_terminal_columns(struct em_terminal t);
// Text cut or filled to `columns`; at the right where `right`.
ember_status em_terminal_field(struct em_buf *out, const char *text, size_t columns,
                               bool right) EMBER_CHECKED;
ember_status em_terminal_heading(struct em_buf *out, struct em_terminal t, const char *title,
                                 const char *unit) EMBER_CHECKED;
// What stands in `out` from there on, for terminals that have ASCII only: dashes become '-', other
// characters '?'.
void em_terminal_ascii(struct em_buf *out, size_t from);

#endif
