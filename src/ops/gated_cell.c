#include "ops/gated_cell.h"

enum { ZX = EM_GATED_ZX, W, BIAS };

ember_status em_gated_shape(struct em_call *c, size_t gates)
{
    char text[2][96];
    const ember_tensor *x = c->in[ZX], *w = c->in[W];
    EM_TRY(em_check_f32(c, x, "zx", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 2 || !w->dim[1] || w->dim[0] % gates ||
        w->dim[0] / gates != w->dim[1] || x->dim[1] != w->dim[0])
        return em_fail(EMBER_E_SHAPE, "%s: zx is %s, w is %s; they have to be [T, %zuH], [%zuH, H]",
                       c->op->name, em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]), gates, gates);
    EM_TRY(em_check_parameter(c, W, "w", w->dim, 2));
    if (c->in[BIAS]) EM_TRY(em_check_parameter(c, BIAS, "bias", w->dim, 1));
    return em_recurrent_shape(c);
}

void em_gated_product(const struct em_step *s, size_t gates, float *z, bool add)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    em_kernels()->lanes_product_f32(z,
                                    &(struct em_lanes_product){
                                        .w = em_f32(c->in[W]),
                                        .row_stride = H,
                                        .col_stride = 1,
                                        .rows = gates * H,
                                        .columns = H,
                                        .bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL,
                                        .add = add,
                                    },
                                    s->before);
}

void em_gated_finish(const struct em_call *c, size_t gates, const float *taps)
{
    const size_t H = em_gated_width(c);
    em_tap_product(c, taps, 0, gates * H, gates * H, H, em_gradient_of(c, W));
    em_tap_bias(c, taps, 0, gates * H, em_gradient_of(c, BIAS));
}

ember_status em_gated_record(ember_flow *flow, const struct em_op *op, const struct em_cell *cell,
                             size_t vectors, ember_tensor *zx, ember_tensor *w, ember_tensor *bias,
                             ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, op->name, zx));
    struct em_call *c = em_recurrent_new(flow, op, cell, EM_GATED_INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[ZX] = zx;
    c->in[W] = w;
    c->in[BIAS] = bias;
    return em_recurrent_record(flow, c, w && w->ndim == 2 ? vectors * w->dim[1] : 0, y);
}
