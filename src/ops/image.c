#include "ops/image.h"

ember_status em_check_pixels(const ember_tensor *x, const char *op, const struct em_grid *grid)
{
    char text[96];
    size_t each, pixels = 0;
    if (!x || x->ndim != 2 || !em_has_sequence_rows(x, &each))
        return em_fail(EMBER_E_SHAPE,
                       "%s: x has to be an activation [T, C] with a row per pixel, not %s", op,
                       x ? em_shape_text(x, text, sizeof text) : "absent");
    if (!grid->columns || (grid->rows && !em_mul_size(grid->rows, grid->columns, &pixels)))
        return em_fail(EMBER_E_RANGE, "%s: a grid of %zu x %zu", op, grid->rows, grid->columns);
    if (pixels && each && pixels != each)
        return em_fail(EMBER_E_SHAPE, "%s: images of %zu pixels are no grid of %zu x %zu", op, each,
                       grid->rows, grid->columns);
    return EMBER_OK;
}

void em_need_grid(struct em_call *c, const ember_tensor *x, const struct em_grid *grid)
{
    if (em_has_token_rows(x)) em_need_sequence_tokens(c, grid->rows * grid->columns);
}
