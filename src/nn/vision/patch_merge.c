// Four patches become one, between the stages of a model of images. Version v1: they are put beside
// each other, normalised and multiplied with a matrix (Liu et al. 2021, arXiv:2103.14030; a grid of
// odd size gets zeros at its lower and right edge); v2: a convolution of 2 x 2; v3: one of 3 x 3
// that overlaps (VMamba, arXiv:2401.10166).
#include "nn/vision/patches.h"

enum { V1, V2, V3 };

struct patch_merge {
    ember_layer base; // param: v1's norm, its bias, and reduction [width, 4 D]
    size_t width, rows, columns;
    int version;
    bool norm;
    struct em_patch_conv conv;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct patch_merge, width, 0, 0, 1 << 20,
                   "of what the blocks after it read; 0: twice that of the blocks before it"),
    EMBER_OPT_ENUM(struct patch_merge, version, V3, "v1|v2|v3",
                   "a matrix over four patches, a convolution of 2 x 2, or one of 3 x 3"),
    EMBER_OPT_BOOL(struct patch_merge, norm, true,
                   "LayerNorm before the matrix, or after the "
                   "convolution"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct patch_merge *p = (struct patch_merge *)l;
    const size_t D = ember_build_width(b);
    static const char *const names[] = {"conv", "norm"};
    size_t rows, columns;
    ember_build_grid(b, &p->rows, &p->columns);
    rows = p->rows;
    columns = p->columns;
    if (!rows)
        return ember_build_refuse(b, "", "no block before this one makes images: patch_embed does");
    if (!p->width) p->width = 2 * D;
    if (p->version == V1) {
        const size_t shape[] = {p->width, 4 * D};
        if (p->norm) EMBER_TRY(em_patch_norm_build(b, "norm", 4 * D, &l->param[0], &l->param[1]));
        EMBER_TRY(ember_param(b, &l->param[2], "reduction.weight", EMBER_INIT_NORMAL,
                              EMBER_ROLE_OTHER, shape, 2));
        rows = (rows + 1) / 2;
        columns = (columns + 1) / 2;
    } else {
        EMBER_TRY(em_patch_conv_build(&p->conv, b, names, D, p->width, p->version == V2 ? 2 : 3, 2,
                                      p->version == V2 ? 0 : 1, p->norm, &rows, &columns));
    }
    ember_build_becomes(b, p->width, rows, columns);
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct patch_merge *p = (const struct patch_merge *)l;
    ember_tensor *four, *h;
    if (p->version != V1) return em_patch_conv_forward(&p->conv, f, x, y);
    EMBER_TRY(ember_space_to_depth(f, x, p->rows, p->columns, &four));
    h = four;
    if (p->norm)
        EMBER_TRY(ember_layernorm(f, four, l->param[0], l->param[1], EM_PATCH_NORM_EPS, &h));
    return ember_linear(f, h, l->param[2], NULL, NULL, y);
}

extern const ember_layer_type em_layer_patch_merge;
const ember_layer_type em_layer_patch_merge = {
    .name = "patch_merge",
    .kind = EMBER_BLOCK,
    .flags = EMBER_NOT_CAUSAL | EMBER_IMAGES,
    .size = sizeof(struct patch_merge),
    .options = options,
    .help = "four patches become one, between the stages of a model of images. arXiv:2103.14030",
    .build = build,
    .forward = forward,
};
