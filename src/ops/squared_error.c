// Squared errors against the run's values, which are as many rows: error [T] = the mean over a row of (x - value)^2, loss
// [1] = loss_scale * their sum. dx = loss_scale * 2 (x - value) / width.
#include "kernels/kernels.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

enum { LOSS, ERROR };

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    if (c->in[0]->ndim != 2 || !c->in[0]->dim[1])
        return em_fail(EMBER_E_SHAPE, "squared_error: x has to be [T, M]");
    size_t each;
    if (!em_has_sequence_rows(c->in[0], &each))
        return em_fail(EMBER_E_SHAPE, "squared_error: x has to have rows of tokens or sequences");
    EM_TRY(em_out(c, LOSS, EMBER_F32, (size_t[]){1}, 1));
    return em_out_rows(c, ERROR, EMBER_F32, c->in[0], 1, NULL, 0);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]);
    *forward = (struct em_cost){3 * n, 8 * n};
    *backward = (struct em_cost){3 * n, 16 * n};
}

static const float *values_of(const struct em_call *c, size_t row)
{
    return c->exec->values + row * c->in[0]->dim[1];
}

// So small beside what made x that one thread does it, in double; both backends are this one.
static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    double sum = 0;
    for (size_t r = 0; r < x.count; r++) {
        const float *value = values_of(c, r);
        double error = 0;
        for (size_t j = 0; j < x.width; j++) {
            const double d = (double)em_strip_row(&x, r)[j] - (double)value[j];
            error += d * d;
        }
        em_f32(c->out[ERROR])[r] = (float)(error / (double)x.width);
        sum += error / (double)x.width;
    }
    em_f32(c->out[LOSS])[0] = (float)(sum * c->exec->loss_scale);
}

static void backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip x = em_strip_of(c->in[0]), dx = em_strip_of(c->in[0]->grad);
    const double factor =
        2 * c->exec->loss_scale * (double)em_f32(c->out[LOSS]->grad)[0] / (double)x.width;
    em_zero_fresh(c, 0);
    for (size_t r = 0; r < x.count; r++) {
        const float *value = values_of(c, r);
        for (size_t j = 0; j < x.width; j++)
            em_strip_row(&dx, r)[j] +=
                (float)(factor * ((double)em_strip_row(&x, r)[j] - (double)value[j]));
    }
}

const struct em_op em_op_squared_error = {
    .name = "squared_error",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(0),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_squared_error(ember_flow *flow, ember_tensor *x, ember_tensor **loss,
                                 ember_tensor **error)
{
    struct em_call *c = em_call_new(flow, &em_op_squared_error, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_record(flow, c));
    c->program->values = true;
    *loss = c->out[LOSS];
    *error = c->out[ERROR];
    return EMBER_OK;
}
