// How alike experts are: by their weights, and by what they make of the same inputs.
#ifndef EM_REPORT_SIMILARITY_H
#define EM_REPORT_SIMILARITY_H

#include <stddef.h>

#include "base/fail.h"
#include "base/threads.h"

// Adds the inner products of E vectors of n values to products [E][E].
void em_add_products(const float *const *v, size_t E, size_t n, double *products,
                     struct em_pool *pool);
// Products to cosines, in place; NAN where a vector is zero.
void em_cosines(double *products, size_t E);

// Linear CKA of E sets of outputs y[e] [rows][columns] of the same inputs, into cka [E][E]. With
// few rows the plain figure is far from 0 even for unrelated outputs; this is the one without that
// bias. Kornblith et al. 2019, arXiv:1905.00414; Nguyen et al. 2021, arXiv:2010.15327. Invariant to
// rotations and scales of the outputs. NAN where one has no variance; needs four rows.
enum { EM_CKA_ROWS = 4 };
ember_status em_linear_cka(const float *const *y, size_t E, size_t rows, size_t columns,
                           double *cka, struct em_pool *pool) EMBER_CHECKED;

#endif
