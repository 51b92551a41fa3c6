#include "nn/vision/patches.h"

#include <stdio.h>

ember_status em_patch_norm_build(ember_build *b, const char *name, size_t width,
                                 ember_tensor **weight, ember_tensor **bias)
{
    char text[64];
    snprintf(text, sizeof text, "%s.weight", name);
    EMBER_TRY(ember_param(b, weight, text, EMBER_INIT_ONES, EMBER_ROLE_NORM, &width, 1));
    snprintf(text, sizeof text, "%s.bias", name);
    return ember_param(b, bias, text, EMBER_INIT_ZEROS, EMBER_ROLE_NORM, &width, 1);
}

ember_status em_patch_conv_build(struct em_patch_conv *c, ember_build *b, const char *const name[2],
                                 size_t in, size_t out, size_t side, size_t stride, size_t padding,
                                 bool normed, size_t *rows, size_t *columns)
{
    char text[64];
    if (*rows + 2 * padding < side || *columns + 2 * padding < side)
        return ember_build_refuse(b, "", "windows of %zu do not fit an image of %zu x %zu", side,
                                  *rows, *columns);
    c->grid = (ember_conv2d_options){*rows, *columns, stride, padding};
    snprintf(text, sizeof text, "%s.weight", name[0]);
    EMBER_TRY(ember_param(b, &c->weight, text, EMBER_INIT_NORMAL, EMBER_ROLE_CONVOLUTION,
                          (size_t[]){out, in, side, side}, 4));
    snprintf(text, sizeof text, "%s.bias", name[0]);
    EMBER_TRY(ember_param(b, &c->bias, text, EMBER_INIT_ZEROS, EMBER_ROLE_CONVOLUTION, &out, 1));
    if (normed) EMBER_TRY(em_patch_norm_build(b, name[1], out, &c->norm, &c->norm_bias));
    *rows = (*rows + 2 * padding - side) / stride + 1;
    *columns = (*columns + 2 * padding - side) / stride + 1;
    return EMBER_OK;
}

ember_status em_patch_conv_forward(const struct em_patch_conv *c, ember_flow *f, ember_tensor *x,
                                   ember_tensor **y)
{
    ember_tensor *h;
    EMBER_TRY(ember_conv2d(f, x, c->weight, c->bias, &c->grid, &h));
    *y = h;
    if (!c->norm) return EMBER_OK;
    return ember_layernorm(f, h, c->norm, c->norm_bias, EM_PATCH_NORM_EPS, y);
}
