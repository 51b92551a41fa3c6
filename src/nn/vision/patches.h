// What the blocks that change an image's grid share.
#ifndef EM_NN_VISION_PATCHES_H
#define EM_NN_VISION_PATCHES_H

#include <ember/ops.h>

// A convolution with a bias and a LayerNorm behind it, on a grid.
struct em_patch_conv {
    ember_tensor *weight, *bias, *norm, *norm_bias;
    ember_conv2d_options grid;
};

// Declares the four, the norm only with `normed`; `name` is in front of ".weight" and ".bias".
// *rows and *columns are the grid before, and become the one after it.
ember_status em_patch_conv_build(struct em_patch_conv *c, ember_build *b, const char *const name[2],
                                 size_t in, size_t out, size_t side, size_t stride, size_t padding,
                                 bool normed, size_t *rows, size_t *columns) EMBER_CHECKED;
ember_status em_patch_conv_forward(const struct em_patch_conv *c, ember_flow *f, ember_tensor *x,
                                   ember_tensor **y) EMBER_CHECKED;
ember_status em_patch_norm_build(ember_build *b, const char *name, size_t width,
                                 ember_tensor **weight, ember_tensor **bias) EMBER_CHECKED;

#define EM_PATCH_NORM_EPS 1e-5f

#endif
