// The first block of a model of images: pixels become patches. Version v1: one convolution whose
// windows lie side by side (Dosovitskiy et al. 2020, arXiv:2010.11929); v2: two with windows that
// overlap, half the side each (VMamba, arXiv:2401.10166). LayerNorm after each.
#include "nn/vision/patches.h"

enum { V1, V2 };

struct patch_embed {
    ember_layer base;
    size_t rows, columns, width, patch;
    int version;
    bool norm;
    struct em_patch_conv conv[2];
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct patch_embed, rows, 224, 1, 1 << 15, "of the image, in pixels"),
    EMBER_OPT_SIZE(struct patch_embed, columns, 224, 1, 1 << 15, "of the image, in pixels"),
    EMBER_OPT_SIZE(struct patch_embed, width, 96, 1, 1 << 20, "of what the blocks after it read"),
    EMBER_OPT_SIZE(struct patch_embed, patch, 4, 1, 1 << 12, "side of a patch, in pixels"),
    EMBER_OPT_ENUM(struct patch_embed, version, V1, "v1|v2",
                   "one convolution, or two that overlap"),
    EMBER_OPT_BOOL(struct patch_embed, norm, true, "LayerNorm after each"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct patch_embed *p = (struct patch_embed *)l;
    const size_t C = ember_build_width(b), stride = p->patch / 2;
    static const char *const first[] = {"conv", "norm"}, *const second[] = {"conv2", "norm2"};
    size_t rows = p->rows, columns = p->columns;
    if (p->version == V1) {
        EMBER_TRY(em_patch_conv_build(&p->conv[0], b, first, C, p->width, p->patch, p->patch, 0,
                                      p->norm, &rows, &columns));
    } else {
        if (p->patch < 2 || p->width < 2)
            return ember_build_refuse(b, p->patch < 2 ? "patch" : "width",
                                      "version v2 halves it, so 1 is too small");
        EMBER_TRY(em_patch_conv_build(&p->conv[0], b, first, C, p->width / 2, stride + 1, stride, 1,
                                      p->norm, &rows, &columns));
        EMBER_TRY(em_patch_conv_build(&p->conv[1], b, second, p->width / 2, p->width, stride + 1,
                                      stride, 1, p->norm, &rows, &columns));
    }
    ember_build_becomes(b, p->width, rows, columns);
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct patch_embed *p = (const struct patch_embed *)l;
    ember_tensor *h, *a;
    if (p->version == V1) return em_patch_conv_forward(&p->conv[0], f, x, y);
    EMBER_TRY(em_patch_conv_forward(&p->conv[0], f, x, &h));
    EMBER_TRY(ember_activation(f, h, EMBER_GELU, &a));
    return em_patch_conv_forward(&p->conv[1], f, a, y);
}

extern const ember_layer_type em_layer_patch_embed;
const ember_layer_type em_layer_patch_embed = {
    .name = "patch_embed",
    .kind = EMBER_BLOCK,
    .flags = EMBER_NOT_CAUSAL | EMBER_IMAGES,
    .size = sizeof(struct patch_embed),
    .options = options,
    .help = "pixels become patches: the first block of a model of images. arXiv:2401.10166",
    .build = build,
    .forward = forward,
};
