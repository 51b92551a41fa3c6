// The part of a report's page that shows mixtures of experts.
#ifndef EM_REPORT_PAGE_EXPERTS_H
#define EM_REPORT_PAGE_EXPERTS_H

#include "report/report.h"

ember_status em_page_experts(const struct em_report *r, struct em_buf *out) EMBER_CHECKED;

#endif
