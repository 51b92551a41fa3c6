// Long short-term memory after its input product, torch's order of gates: with z = zx + w h + bias
// = [i | f | g | o], c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'). zx [T, 4 H];
// w [4 H, H]; bias [4 H] or absent. The state is [h | c]. Hochreiter and Schmidhuber 1997, "Long
// Short-Term Memory"; forget gates: Gers et al. 2000.
#include <math.h>

#include "ops/gated_cell.h"

enum { ZX = EM_GATED_ZX, W, BIAS };

static void sizes(const struct em_call *c, struct em_cell_sizes *s)
{
    const size_t H = em_gated_width(c);
    *s = (struct em_cell_sizes){.I = 4 * H,
                                .S = 2 * H,
                                .O = H,
                                .work = 4 * H,
                                .taps = 5 * H,
                                .product = H,
                                .reference_work = 8 * H};
}

static ember_status shape(struct em_call *c)
{
    return em_gated_shape(c, 4);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), H = (double)em_gated_width(c);
    *forward = (struct em_cost){n * (8 * H + 60), 4 * 7 * n};
    *backward = (struct em_cost){n * (24 * H + 120), 4 * 20 * n};
}

// z = zx + w h + bias.
static void gates(const struct em_step *s, float *z)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    memcpy(z, s->x, 4 * H * EM_LANES * sizeof *z);
    em_gated_product(s, 4, z, true);
}

static struct em_lstm_gates order_of(size_t H)
{
    return (struct em_lstm_gates){.H = H, .place = {0, 1, 2, 3}};
}

static void step(const struct em_step *s)
{
    const size_t H = em_gated_width(s->call);
    const struct em_lstm_gates order = order_of(H);
    gates(s, s->work);
    em_kernels()->lstm_gates_f32(&order, s->after, em_lanes_at(s->after, H), s->work,
                                 s->before + H * EM_LANES);
}

static void step_back(const struct em_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    const struct em_lstm_gates order = order_of(H);
    gates(s, s->work);
    em_kernels()->lstm_gates_backward_f32(&order, s->tap, em_lanes_at(s->ds, H), s->ds, s->work,
                                          s->before + H * EM_LANES);
    em_kernels()->add_f32(s->dx, s->dx, s->tap, 4 * H * EM_LANES);
    memcpy(em_lanes_at(s->tap, 4 * H), s->before, H * EM_LANES * sizeof(float));
    em_kernels()->lanes_product_f32(
        s->ds,
        &(struct em_lanes_product){
            .w = em_f32(c->in[W]), .row_stride = 1, .col_stride = H, .rows = H, .columns = 4 * H},
        s->tap);
}

static void finish(const struct em_call *c, const void *prepared, const float *taps,
                   const double *sums)
{
    (void)prepared, (void)sums;
    em_gated_finish(c, 4, taps);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void reference(const struct em_reference_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    double *a = s->work;
    for (size_t i = 0; i < 4 * H; i++) {
        double z = s->x[i] + (c->in[BIAS] ? (double)em_f32(c->in[BIAS])[i] : 0);
        for (size_t k = 0; k < H; k++)
            z += (double)em_f32(c->in[W])[i * H + k] * s->before[k];
        a[i] = i / H == 2 ? tanh(z) : sigmoid(z);
    }
    for (size_t i = 0; i < H && s->after; i++) {
        s->after[H + i] = a[H + i] * s->before[H + i] + a[i] * a[2 * H + i];
        s->after[i] = a[3 * H + i] * tanh(s->after[H + i]);
    }
}

static void reference_back(const struct em_reference_step *s)
{
    const struct em_call *c = s->call;
    const size_t H = em_gated_width(c);
    double *a = s->work, *dz = a + 4 * H, *dh = s->ds, *dc = s->ds + H;
    float *dw = em_gradient_of(c, W), *db = em_gradient_of(c, BIAS);
    reference(s);
    for (size_t j = 0; j < H; j++) {
        const double i = a[j], f = a[H + j], g = a[2 * H + j], o = a[3 * H + j],
                     t = tanh(f * s->before[H + j] + i * g), d = dc[j] + dh[j] * o * (1 - t * t);
        dz[j] = d * g * i * (1 - i);
        dz[H + j] = d * s->before[H + j] * f * (1 - f);
        dz[2 * H + j] = d * i * (1 - g * g);
        dz[3 * H + j] = dh[j] * t * o * (1 - o);
        dc[j] = d * f;
        dh[j] = 0;
    }
    for (size_t i = 0; i < 4 * H; i++) {
        s->dx[i] += dz[i];
        if (db) db[i] += (float)dz[i];
        for (size_t k = 0; k < H; k++) {
            dh[k] += dz[i] * (double)em_f32(c->in[W])[i * H + k];
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

const struct em_op em_op_lstm = {
    .name = "lstm",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_recurrent_forward, em_recurrent_backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_recurrent_reference_forward, em_recurrent_reference_backward)},
    .backward_reads = EM_READS_IN(ZX),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_lstm(ember_flow *flow, ember_tensor *zx, ember_tensor *w, ember_tensor *bias,
                        ember_tensor **y)
{
    return em_gated_record(flow, &em_op_lstm, &cell, 2, zx, w, bias, y);
}
