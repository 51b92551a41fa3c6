// Images are sequences whose tokens are pixels, row after row; what the operations on them share.
#ifndef EM_OPS_IMAGE_H
#define EM_OPS_IMAGE_H

#include "ops/rows.h"

// A grid of given size for the operations that change it, or only the number of columns: a sequence
// of n pixels then has ceil(n / columns) rows, the last of which may be shorter.
struct em_grid {
    size_t rows, columns;
};

// For recording functions: fails unless x [R, C] has rows of sequences, and exactly the grid's
// where the grid has rows.
ember_status em_check_pixels(const ember_tensor *x, const char *op,
                             const struct em_grid *grid) EMBER_CHECKED;
// For shape rules of operations that were given a whole grid: x may be the batch's tokens.
void em_need_grid(struct em_call *c, const ember_tensor *x, const struct em_grid *grid);

#endif
