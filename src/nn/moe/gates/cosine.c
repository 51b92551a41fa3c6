// Cosines of a projection of x with a vector for each expert, times a learnt scale: logits stay
// bounded. Chi et al. 2022, arXiv:2204.09179.
#include <ember/ops.h>
#include <math.h>

struct cosine {
    ember_layer base; // param: projection [P, D], weight [E, P], log_scale [1]
    size_t width;
    float start, most;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct cosine, width, 256, 2, 1 << 16, "of the projection"),
    EMBER_OPT_FLOAT(struct cosine, start, 2, 1e-3, 1000, "the scale at the start"),
    EMBER_OPT_FLOAT(struct cosine, most, 100, 1e-3, 1e6, "the largest scale"),
    {0},
};

static void fill_scale(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    ((float *)param->data)[0] = logf(((const struct cosine *)context)->start);
}

static ember_status build(ember_layer *l, ember_build *b)
{
    const struct cosine *c = (const struct cosine *)l;
    EMBER_TRY(ember_param(b, &l->param[0], "projection", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){c->width, ember_build_width(b)}, 2));
    EMBER_TRY(ember_param(b, &l->param[1], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_ROUTER,
                          (size_t[]){ember_build_experts(b), c->width}, 2));
    EMBER_TRY(ember_param(b, &l->param[2], "log_scale", EMBER_INIT_ZEROS, EMBER_ROLE_ROUTER,
                          (size_t[]){1}, 1));
    ember_param_fill(b, l->param[2], &(ember_filling){.fill = fill_scale, .context = c});
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    ember_tensor *z;
    EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &z));
    return ember_cosine_logits(f, z, l->param[1], l->param[2],
                               logf(((const struct cosine *)l)->most), y);
}

extern const ember_layer_type em_layer_cosine;
const ember_layer_type em_layer_cosine = {
    .name = "cosine",
    .kind = EMBER_GATE,
    .size = sizeof(struct cosine),
    .options = options,
    .help = "scale * cos(P x, w_e), the scale learnt. arXiv:2204.09179",
    .build = build,
    .forward = forward,
};
