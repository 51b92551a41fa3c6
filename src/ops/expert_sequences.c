// Rows on their way to experts of sequences and back.
//   expert_sequences, within a subset: the rows of its sequences, one sequence after the other.
//   sequence_choices: y [T k, D]: row (t, n) is what the n-th expert of t's sequence made of t.
//   sequence_sum: y_t = sum_n w_n row (t, n), with the weights [S, k] of t's sequence.
#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/rows.h"
#include "ops/subset.h"

// ---- expert_sequences ----

static ember_status rows_shape(struct em_call *c)
{
    const ember_tensor *x = c->in[0];
    EM_TRY(em_check_f32(c, x, "x", 0));
    if (!c->subset || x->ndim != 2 || !em_has_token_rows(x))
        return em_fail(EMBER_E_SHAPE, "expert_sequences: x has to have a row for each token, and "
                                      "ember_sequences_begin() comes first");
    return em_out_like(c, 0, x);
}

static void copy_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){0, 8 * n};
    *backward = (struct em_cost){n, 12 * n};
}

// Where sequence i of the subset is in the whole batch.
static size_t whole_row(const struct em_call *c, size_t i)
{
    return c->program->batch.offset[c->exec->sequence[i]];
}

static void rows_forward(const struct em_call *c)
{
    const size_t *offset = c->exec->batch->offset, D = c->out[0]->dim[1];
    for (size_t i = 0; i < c->exec->batch->n_sequences; i++)
        for (size_t t = offset[i]; t < offset[i + 1]; t++)
            memcpy(em_row(c->out[0], t), em_row(c->in[0], whole_row(c, i) + t - offset[i]),
                   D * sizeof(float));
}

static void rows_backward(const struct em_call *c)
{
    const size_t *offset = c->exec->batch->offset, D = c->out[0]->dim[1];
    for (size_t i = 0; em_wants(c, 0) && i < c->exec->batch->n_sequences; i++)
        for (size_t t = offset[i]; t < offset[i + 1]; t++) {
            float *dx = em_row(c->in[0]->grad, whole_row(c, i) + t - offset[i]);
            em_kernels()->add_f32(dx, dx, em_row(c->out[0]->grad, t), D);
        }
}

const struct em_op em_op_expert_sequences = {
    .name = "expert_sequences",
    .shape = rows_shape,
    .cost = copy_cost,
    .backend = {[EM_CPU] = EM_PASSES(rows_forward, rows_backward),
                [EM_REFERENCE] = EM_PASSES(rows_forward, rows_backward)},
};

ember_status ember_expert_sequences(ember_flow *flow, ember_tensor *x, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_expert_sequences, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

// ---- sequence_choices ----

struct attr {
    size_t n_experts, k, width;
};

enum { PLAN, LIKE, ROWS };

static ember_status choices_shape(struct em_call *c)
{
    char text[96];
    const struct attr *a = em_attr_const(c, struct attr);
    if (!c->in[PLAN] || c->in[PLAN]->dtype != EMBER_I32)
        return em_fail(EMBER_E_SHAPE, "sequence_choices: the routing has no dispatch plan");
    for (size_t e = 0; e < a->n_experts; e++) {
        const ember_tensor *rows = c->in[ROWS + e];
        EM_TRY(em_check_f32(c, rows, "an expert's output", a->width));
        if (rows->ndim != 2 || !em_has_token_rows(rows))
            return em_fail(EMBER_E_SHAPE, "sequence_choices: %s does not have a row for each token",
                           em_shape_text(rows, text, sizeof text));
    }
    return em_out_rows(c, 0, EMBER_F32, c->in[LIKE], a->k, &a->width, 1);
}

typedef void copy_row(const struct em_call *c, unsigned from, size_t row, size_t to, bool there);

// Visits every (token, choice) with the row of its expert's output.
static void over_choices(const struct em_call *c, copy_row *visit)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const int32_t *first = em_plan_offset(c->in[PLAN]),
                  *order = em_plan_order(c->in[PLAN], a->n_experts),
                  *place = em_plan_place(c->in[PLAN], a->n_experts);
    const ember_batch *b = c->exec->batch;
    for (size_t e = 0; e < a->n_experts; e++) {
        size_t row = 0;
        for (int32_t r = first[e]; r < first[e + 1]; r++) {
            const size_t s = (size_t)order[r] / a->k, n = (size_t)order[r] % a->k;
            for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
                visit(c, ROWS + (unsigned)e, row++, t * a->k + n, true);
        }
    }
    for (size_t s = 0; s < b->n_sequences; s++)
        for (size_t n = 0; n < a->k; n++)
            for (size_t t = b->offset[s]; place[s * a->k + n] < 0 && t < b->offset[s + 1]; t++)
                visit(c, ROWS, 0, t * a->k + n, false);
}

static void take_row(const struct em_call *c, unsigned from, size_t row, size_t to, bool there)
{
    const size_t bytes = c->out[0]->dim[1] * sizeof(float);
    if (there)
        memcpy(em_row(c->out[0], to), em_row(c->in[from], row), bytes);
    else
        memset(em_row(c->out[0], to), 0, bytes);
}

static void give_row(const struct em_call *c, unsigned from, size_t row, size_t to, bool there)
{
    if (!there || !em_wants(c, from)) return;
    float *dx = em_row(c->in[from]->grad, row);
    em_kernels()->add_f32(dx, dx, em_row(c->out[0]->grad, to), c->out[0]->dim[1]);
}

static void choices_forward(const struct em_call *c)
{
    over_choices(c, take_row);
}

static void choices_backward(const struct em_call *c)
{
    over_choices(c, give_row);
}

const struct em_op em_op_sequence_choices = {
    .name = "sequence_choices",
    .shape = choices_shape,
    .cost = copy_cost,
    .backend = {[EM_CPU] = EM_PASSES(choices_forward, choices_backward),
                [EM_REFERENCE] = EM_PASSES(choices_forward, choices_backward)},
    .backward_reads = EM_READS_IN(PLAN),
};

// ---- sequence_sum ----

enum { CHOICES, WEIGHTS, SUM_INPUTS };

static ember_status sum_shape(struct em_call *c)
{
    const ember_tensor *rows = c->in[CHOICES], *w = c->in[WEIGHTS];
    EM_TRY(em_check_f32(c, rows, "rows", 0));
    EM_TRY(em_check_f32(c, w, "weights", em_attr_const(c, struct attr)->k));
    return em_out_tokens(c, 0, EMBER_F32, &rows->dim[1], 1);
}

static void sum_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[CHOICES]);
    *forward = (struct em_cost){2 * n, 8 * n};
    *backward = (struct em_cost){4 * n, 16 * n};
}

static void sum_forward(const struct em_call *c)
{
    const size_t k = em_attr_const(c, struct attr)->k, D = c->out[0]->dim[1];
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const float *w = em_row(c->in[WEIGHTS], s);
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
            float *y = em_row(c->out[0], t);
            em_kernels()->scale_f32(y, em_row(c->in[CHOICES], t * k), w[0], D);
            for (size_t n = 1; n < k; n++)
                em_kernels()->axpy_f32(y, w[n], em_row(c->in[CHOICES], t * k + n), D);
        }
    }
}

static void sum_backward(const struct em_call *c)
{
    const size_t k = em_attr_const(c, struct attr)->k, D = c->out[0]->dim[1];
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; s < b->n_sequences; s++)
        for (size_t n = 0; n < k; n++) {
            double sum = 0;
            for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
                const float *dy = em_row(c->out[0]->grad, t);
                sum += (double)em_kernels()->dot_f32(dy, em_row(c->in[CHOICES], t * k + n), D);
                if (em_wants(c, CHOICES))
                    em_kernels()->axpy_f32(em_row(c->in[CHOICES]->grad, t * k + n),
                                           em_row(c->in[WEIGHTS], s)[n], dy, D);
            }
            if (em_wants(c, WEIGHTS)) em_row(c->in[WEIGHTS]->grad, s)[n] += (float)sum;
        }
}

const struct em_op em_op_sequence_sum = {
    .name = "sequence_sum",
    .shape = sum_shape,
    .cost = sum_cost,
    .backend = {[EM_CPU] = EM_PASSES(sum_forward, sum_backward),
                [EM_REFERENCE] = EM_PASSES(sum_forward, sum_backward)},
    .backward_reads = EM_READS_IN(CHOICES) | EM_READS_IN(WEIGHTS),
};

ember_status ember_merge_sequences(ember_flow *flow, ember_tensor *x, ember_tensor *const *rows,
                                   const ember_routing *routing, ember_tensor **y)
{
    struct em_call *c =
        em_call_new(flow, &em_op_sequence_choices, (unsigned)(ROWS + routing->n_experts));
    if (!c) return EMBER_E_NOMEM;
    c->in[PLAN] = routing->plan;
    c->in[LIKE] = x;
    memcpy(c->in + ROWS, rows, routing->n_experts * sizeof *rows);
    *em_attr(c, struct attr) = (struct attr){routing->n_experts, routing->k, x->dim[1]};
    EM_TRY(em_record(flow, c));
    struct em_call *sum = em_call_new(flow, &em_op_sequence_sum, SUM_INPUTS);
    if (!sum) return EMBER_E_NOMEM;
    sum->in[CHOICES] = c->out[0];
    sum->in[WEIGHTS] = routing->weights;
    *em_attr(sum, struct attr) = (struct attr){routing->n_experts, routing->k, x->dim[1]};
    EM_TRY(em_record(flow, sum));
    *y = sum->out[0];
    return EMBER_OK;
}
