// What the selective scan and its reference share.
#ifndef EM_OPS_SELECTIVE_SCAN_H
#define EM_OPS_SELECTIVE_SCAN_H

#include "ops/rows.h"

enum em_scan_input {
    EM_SCAN_X,
    EM_SCAN_DELTA,
    EM_SCAN_A_LOG,
    EM_SCAN_B,
    EM_SCAN_C,
    EM_SCAN_D,
    EM_SCAN_DELTA_BIAS,
    EM_SCAN_Z,
    EM_SCAN_INPUTS
};

struct em_scan_attr {
    size_t groups;
};

// The state of a sequence is h, [N, E]. Memory of the reference: h of one channel at every token.
void em_scan_reference_forward(const struct em_call *c);
void em_scan_reference_backward(const struct em_call *c);
ember_status em_scan_reference_scratch(const struct em_call *c, size_t *bytes) EMBER_CHECKED;

#endif
