// Mamba-2's scan: ops/ssd.c records it, ssd_cpu.c runs it by chunks, ssd_reference.c is the plain
// recurrence.
#ifndef EM_OPS_SSD_H
#define EM_OPS_SSD_H

#include "ops/rows.h"

enum em_ssd_input {
    EM_SSD_X,
    EM_SSD_DT,
    EM_SSD_A_LOG,
    EM_SSD_B,
    EM_SSD_C,
    EM_SSD_D,
    EM_SSD_DT_BIAS,
    EM_SSD_INPUTS
};

enum { EM_SSD_CHUNK = 64 }; // tokens

struct em_ssd {
    size_t H, P, G, N; // heads, their width, groups of heads, states
    double low, high;  // limits of steps
};

// The step of a token, and its derivative by what softplus takes: 0 outside the limits.
double em_ssd_step(const struct em_ssd *a, double x, double *slope);

// The state of a sequence is h, [H, N, P].
void em_ssd_cpu_forward(const struct em_call *c);
void em_ssd_cpu_backward(const struct em_call *c);
ember_status em_ssd_cpu_scratch(const struct em_call *c, const struct em_ssd *a,
                                size_t *bytes) EMBER_CHECKED;
void em_ssd_reference_forward(const struct em_call *c);
void em_ssd_reference_backward(const struct em_call *c);
ember_status em_ssd_reference_scratch(const struct em_call *c, const struct em_ssd *a,
                                      size_t *bytes) EMBER_CHECKED;

#endif
