// A gated cell after its input product: what LSTM and GRU share beside their gates' arithmetic.
// zx [T, gates H], w [gates H, H], bias [gates H] or absent.
#ifndef EM_OPS_GATED_CELL_H
#define EM_OPS_GATED_CELL_H

#include "ops/recurrent.h"

enum { EM_GATED_ZX, EM_GATED_W, EM_GATED_BIAS, EM_GATED_INPUTS };

static inline size_t em_gated_width(const struct em_call *c)
{
    return c->in[EM_GATED_W]->dim[1];
}
ember_status em_gated_shape(struct em_call *c, size_t gates) EMBER_CHECKED;
// z = w h + bias [gates H], or z += it; h is the first of what the step starts from.
void em_gated_product(const struct em_step *s, size_t gates, float *z, bool add);
// The gradients of w and bias. Taps of a token: dz [gates H], then h [H].
void em_gated_finish(const struct em_call *c, size_t gates, const float *taps);
// The cell's state is `vectors` of H.
ember_status em_gated_record(ember_flow *flow, const struct em_op *op, const struct em_cell *cell,
                             size_t vectors, ember_tensor *zx, ember_tensor *w, ember_tensor *bias,
                             ember_tensor **y) EMBER_CHECKED;

#endif
