// Activation functions as operations see them.
#ifndef EM_OPS_ACTIVATION_H
#define EM_OPS_ACTIVATION_H

#include "kernels/kernels.h"
#include "ops/rows.h"

// Fails with EMBER_E_RANGE unless kind is one of the enum; `kernel` is the same kind for kernels.
ember_status em_activation_of(const char *op, ember_activation_kind kind,
                              enum em_activation *kernel) EMBER_CHECKED;

// act(x) and act'(x), in double: the reference. At the kink of relu the derivative is 0.
double em_activation_reference(enum em_activation kind, double x, double *slope);

#endif
