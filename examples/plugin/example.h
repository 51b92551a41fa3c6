// What the files of the example share.
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <ember/operation.h>

/**
 * y [T, E] = cos(x_t, w_e) exp(log_scale) / temperature; x [T, R], w [E, R], log_scale [1].
 * An operation of the plug-in's own: <ember/ops.h> has none that divides by norms of both sides.
 */
EMBER_CHECKED ember_status example_cosine_scores(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                                 ember_tensor *log_scale, float temperature,
                                                 ember_tensor **y);

#endif
