// A gated recurrent unit after its input product, as torch has it: with zh = w h + bias,
// r = sigmoid(zx0 + zh0), u = sigmoid(zx1 + zh1), m = tanh(zx2 + r zh2), h' = (1 - u) m + u h.
// zx [T, 3 H]; w [3 H, H]; bias [3 H] or absent. The state is h.
// Cho et al. 2014, arXiv:1406.1078.
#include <math.h>

#include "ops/gated_cell.h"

enum { ZX = EM_GATED_ZX, W, BIAS };

static void sizes(const struct em_call *c, struct em_cell_sizes *s)
{
    const size_t H = em_gated_width(c);
    *s = (struct em_cell_sizes){.I = 3 * H,
                                .S = H,
                                .O = H,
                                .work = 6 * H,
                                .taps = 4 * H,
                                .product = H,
                                .reference_work = 9 * H};
}

static ember_status shape(struct em_call *c)
{
    return em_gated_shape(c, 3);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), H = (double)em_gated_width(c);
    *forward = (struct em_cost){n * (6 * H + 50), 4 * 5 * n};
    *backward = (struct em_cost){n * (18 * H + 100), 4 * 15 * n};
}

static void step(const struct em_step *s)
{
    em_gated_product(s, 3, s->work, false);
    em_kernels()->gru_gates_f32(s->after, s->x, s->work, s->before, em_gated_width(s->call));
}

static void step_back(const struct em_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    float *dzx = em_lanes_at(s->work, 3 * H);
    em_gated_product(s, 3, s->work, false);
    em_kernels()->gru_gates_backward_f32(dzx, s->tap, s->ds, s->ds, s->x, s->work, s->before, H);
    em_kernels()->add_f32(s->dx, s->dx, dzx, 3 * H * EM_LANES);
    memcpy(em_lanes_at(s->tap, 3 * H), s->before, H * EM_LANES * sizeof(float));
    em_kernels()->lanes_product_f32(s->ds,
                                    &(struct em_lanes_product){.w = em_f32(c->in[W]),
                                                               .row_stride = 1,
                                                               .col_stride = H,
                                                               .rows = H,
                                                               .columns = 3 * H,
                                                               .add = true},
                                    s->tap);
}

static void finish(const struct em_call *c, const void *prepared, const float *taps,
                   const double *sums)
{
    (void)prepared, (void)sums;
    em_gated_finish(c, 3, taps);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

// In work: zh [3 H], r, u, m.
static void reference(const struct em_reference_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    double *zh = s->work, *r = zh + 3 * H, *u = r + H, *m = u + H;
    for (size_t i = 0; i < 3 * H; i++) {
        zh[i] = c->in[BIAS] ? (double)em_f32(c->in[BIAS])[i] : 0;
        for (size_t k = 0; k < H; k++)
            zh[i] += (double)em_f32(c->in[W])[i * H + k] * s->before[k];
    }
    for (size_t i = 0; i < H; i++) {
        r[i] = sigmoid(s->x[i] + zh[i]);
        u[i] = sigmoid(s->x[H + i] + zh[H + i]);
        m[i] = tanh(s->x[2 * H + i] + r[i] * zh[2 * H + i]);
        if (s->after) s->after[i] = (1 - u[i]) * m[i] + u[i] * s->before[i];
    }
}

static void reference_back(const struct em_reference_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    const double *zh = s->work, *r = zh + 3 * H, *u = r + H, *m = u + H;
    double *dz = s->work + 6 * H;
    float *dw = em_gradient_of(c, W), *db = em_gradient_of(c, BIAS);
    reference(s);
    for (size_t i = 0; i < H; i++) {
        const double d = s->ds[i], dm = d * (1 - u[i]) * (1 - m[i] * m[i]);
        dz[i] = dm * zh[2 * H + i] * r[i] * (1 - r[i]);
        dz[H + i] = d * (s->before[i] - m[i]) * u[i] * (1 - u[i]);
        dz[2 * H + i] = dm * r[i];
        s->dx[i] += dz[i];
        s->dx[H + i] += dz[H + i];
        s->dx[2 * H + i] += dm;
        s->ds[i] = d * u[i];
    }
    for (size_t i = 0; i < 3 * H; i++) {
        if (db) db[i] += (float)dz[i];
        for (size_t k = 0; k < H; k++) {
            s->ds[k] += dz[i] * (double)em_f32(c->in[W])[i * H + k];
            if (dw) dw[i * H + k] += (float)(dz[i] * s->before[k]);
        }
    }
}

static const struct em_cell cell = {.sizes = sizes,
                                    .step = step,
                                    .step_back = step_back,
                                    .finish = finish,
                                    .reference = reference,
                                    .reference_back = reference_back};

const struct em_op em_op_gru = {
    .name = "gru",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_recurrent_forward, em_recurrent_backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_recurrent_reference_forward, em_recurrent_reference_backward)},
    .backward_reads = EM_READS_IN(ZX),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_gru(ember_flow *flow, ember_tensor *zx, ember_tensor *w, ember_tensor *bias,
                       ember_tensor **y)
{
    return em_gated_record(flow, &em_op_gru, &cell, 1, zx, w, bias, y);
}
