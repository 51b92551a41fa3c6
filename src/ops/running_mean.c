// The mean of each sequence's rows so far: y_t = y_{t-1} + (x_t - y_{t-1}) / (t + 1), t the token's
// place in its sequence, so y_t = (x_0 + .. + x_t) / (t + 1). The state is the last row. With dy,
// dx_s = sum over t >= s of dy_t / (t + 1); no gradient goes into the state.
#include "ops/rows.h"

static ember_status shape(struct em_call *c)
{
    char text[96];
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    if (c->in[0]->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "running_mean: x has to be [T, D], not %s",
                       em_shape_text(c->in[0], text, sizeof text));
    size_t bytes = 0;
    if (em_is_training(c) || em_is_reference(c))
        EM_TRY(em_add_scratch(c, 2, c->in[0]->dim[1], &bytes)); // doubles
    em_need_scratch(c, bytes);
    return em_out_like(c, 0, c->in[0]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){3 * n, 8 * n};
    *backward = (struct em_cost){2 * n, 12 * n};
}

// Columns [begin, end) of every sequence.
static void forward_columns(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const ember_batch *b = c->exec->batch;
    const struct em_strip x = em_strip_of(c->in[0]), y = em_strip_of(c->out[0]);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        struct em_slot *out = em_slot_out(c, s);
        const float *before = in ? in->fixed : NULL;
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
            const float share = 1.0f / ((float)c->exec->position[t] + 1.0f);
            const float *from = em_strip_row(&x, t);
            float *to = em_strip_row(&y, t);
            for (size_t j = begin; j < end; j++) {
                const float m = before ? before[j] : 0;
                to[j] = m + (from[j] - m) * share;
            }
            before = to;
        }
        if (out) memcpy(out->fixed + begin, before + begin, (end - begin) * sizeof *before);
    }
}

enum { COLUMNS = 64 };

static void over_columns(const struct em_call *c, em_task *task)
{
    em_parallel(c->exec->pool, em_last_dim(c->out[0]), COLUMNS, task, &c);
}

static void forward(const struct em_call *c)
{
    over_columns(c, forward_columns);
}

struct work {
    const struct em_call *c;
    double *sum; // [D]
};

static void backward_columns(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const ember_batch *b = w->c->exec->batch;
    const struct em_strip dx = em_strip_of(w->c->in[0]->grad), dy = em_strip_of(w->c->out[0]->grad);
    for (size_t s = 0; s < b->n_sequences; s++) {
        memset(w->sum + begin, 0, (end - begin) * sizeof *w->sum);
        for (size_t t = b->offset[s + 1]; t-- > b->offset[s];) {
            const double share = 1 / ((double)w->c->exec->position[t] + 1);
            const float *from = em_strip_row(&dy, t);
            float *to = em_strip_row(&dx, t);
            for (size_t j = begin; j < end; j++) {
                w->sum[j] += share * (double)from[j];
                to[j] += (float)w->sum[j];
            }
        }
    }
}

static void backward(const struct em_call *c)
{
    const size_t D = em_last_dim(c->out[0]);
    if (!em_wants(c, 0)) return;
    struct work w = {c, em_scratch_take(em_scratch_of(c), D * sizeof(double))};
    em_parallel(c->exec->pool, D, COLUMNS, backward_columns, &w);
}

static void reference_forward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        struct em_slot *out = em_slot_out(c, s);
        for (size_t j = 0; j < em_last_dim(c->out[0]); j++) {
            double sum = in ? (double)in->fixed[j] * c->exec->position[b->offset[s]] : 0;
            for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
                sum += (double)em_row(c->in[0], t)[j];
                em_row(c->out[0], t)[j] = (float)(sum / (c->exec->position[t] + 1.0));
            }
            if (out) out->fixed[j] = (float)(sum / (c->exec->position[b->offset[s + 1] - 1] + 1.0));
        }
    }
}

static void reference_backward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    if (!em_wants(c, 0)) return;
    for (size_t s = 0; s < b->n_sequences; s++)
        for (size_t j = 0; j < em_last_dim(c->out[0]); j++)
            for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
                double sum = 0;
                for (size_t later = t; later < b->offset[s + 1]; later++)
                    sum += (double)em_row(c->out[0]->grad, later)[j] /
                           (c->exec->position[later] + 1.0);
                em_row(c->in[0]->grad, t)[j] += (float)sum;
            }
}

const struct em_op em_op_running_mean = {
    .name = "running_mean",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_running_mean(ember_flow *flow, ember_tensor *x, ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "running_mean", x));
    struct em_call *c = em_call_new(flow, &em_op_running_mean, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_need_state(flow, c,
                         &(struct em_state_spec){.name = "running_mean", .fixed = em_last_dim(x)}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
