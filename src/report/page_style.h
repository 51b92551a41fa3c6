// The page's fixed parts: its style sheet and its script, which only adds what the pointer shows.
#ifndef EM_REPORT_PAGE_STYLE_H
#define EM_REPORT_PAGE_STYLE_H

#include "base/buf.h"
#include "base/fail.h"

ember_status em_page_style(struct em_buf *out) EMBER_CHECKED;
extern const char em_page_script[];

#endif
