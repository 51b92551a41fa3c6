// Soft mixtures (Puigcerver et al. 2023, arXiv:2308.00951): no token is routed. With logits L of
// the tokens t of a sequence and all slots n:
//   soft_slots: X'_n = sum_t D_tn x_t, D = softmax of L over t;     the rows that experts get
//   soft_sum:   y_t = sum_n C_tn row_n, C = softmax of L over n
// Rows are ordered by expert, then sequence, then slot, so that experts run on them by a plan.
//   dL_tn += D_tn (dD_tn - sum_t D dD),  dD_tn = dX'_n . x_t,  dx_t += sum_n D_tn dX'_n
//   dL_tn += C_tn (dC_tn - sum_n C dC),  dC_tn = dy_t . row_n,  drow_n += sum_t C_tn dy_t
#include <math.h>

#include "kernels/kernels.h"
#include "ops/moe_plan.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct attr {
    size_t n_experts, slots; // slots: of each expert
};

static const struct attr *attr_of(const struct em_call *c)
{
    return em_attr_const(c, struct attr);
}

// ---- soft_plan: as many rows for each expert as there are sequences times slots ----

static ember_status plan_shape(struct em_call *c)
{
    const size_t E = attr_of(c)->n_experts;
    size_t rows;
    if (!em_mul_size(E * attr_of(c)->slots, c->program->options.max_sequences, &rows) ||
        rows > INT32_MAX)
        return em_fail(EMBER_E_SHAPE, "soft_slots: more than %d slots", INT32_MAX);
    return em_out(c, 0, EMBER_I32, (size_t[]){em_plan_size(E, rows)}, 1);
}

static void no_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    (void)c;
    *forward = *backward = (struct em_cost){0};
}

static void plan_forward(const struct em_call *c)
{
    const size_t E = attr_of(c)->n_experts, each = c->exec->batch->n_sequences * attr_of(c)->slots;
    for (size_t e = 0; e <= E; e++)
        em_plan_offset(c->out[0])[e] = (int32_t)(e * each);
    for (size_t r = 0; r < E * each; r++)
        em_plan_order(c->out[0], E)[r] = em_plan_place(c->out[0], E)[r] = (int32_t)r;
}

const struct em_op em_op_soft_plan = {
    .name = "soft_plan",
    .shape = plan_shape,
    .cost = no_cost,
    .backend = {[EM_CPU] = {plan_forward, NULL}, [EM_REFERENCE] = {plan_forward, NULL}},
};

// ---- what both directions share ----

enum { ROWS, LOGITS, PLAN, INPUTS }; // ROWS: x, or what experts made of slots

static ember_status check(struct em_call *c, bool token_rows)
{
    const struct attr *a = attr_of(c);
    const ember_tensor *logits = c->in[LOGITS];
    EM_TRY(em_check_f32(c, c->in[ROWS], token_rows ? "x" : "rows", 0));
    EM_TRY(em_check_f32(c, logits, "logits", a->n_experts * a->slots));
    if (c->in[ROWS]->ndim != 2 || logits->ndim != 2 || !em_has_token_rows(logits) ||
        (token_rows && !em_has_token_rows(c->in[ROWS])))
        return em_fail(EMBER_E_SHAPE, "%s: there has to be a row for each token of the batch",
                       c->op->name);
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, logits->dim[0], 2 * logits->dim[1], &bytes));
    em_need_scratch(c, bytes + 512);
    return EMBER_OK;
}

static void mix_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]), D = (double)c->out[0]->dim[1];
    *forward = (struct em_cost){n * (2 * D + 20), 4 * n + 4 * em_elements(c->in[ROWS])};
    *backward = (struct em_cost){n * (4 * D + 20), 12 * n + 8 * em_elements(c->in[ROWS])};
}

// The row of slot n (of all experts) of sequence s.
static size_t row_of(const struct em_call *c, size_t s, size_t n)
{
    const struct attr *a = attr_of(c);
    return (n / a->slots * c->exec->batch->n_sequences + s) * a->slots + n % a->slots;
}

struct work {
    const struct em_call *call;
    float *weight, *slope; // [T, N]
};

static struct work take(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], N = c->in[LOGITS]->dim[1];
    struct work w = {c, em_take_floats(c, T, N), em_take_floats(c, T, N)};
    return w;
}

// Items of the two loops: all slots of all sequences, and all tokens.
static size_t slots_of(const struct em_call *c)
{
    return c->exec->batch->n_sequences * c->in[LOGITS]->dim[1];
}

static size_t grain(const struct em_call *c)
{
    return em_row_grain(8 * c->out[0]->dim[1]);
}

static double dot(const struct em_call *c, const float *a, const float *b, size_t n)
{
    if (c->exec->backend == EM_CPU) return (double)em_kernels()->dot_f32(a, b, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

// ---- soft_slots ----

static ember_status slots_shape(struct em_call *c)
{
    const struct attr *a = attr_of(c);
    EM_TRY(check(c, true));
    const size_t limit = em_plan_pairs(c->in[PLAN], a->n_experts);
    return em_out_plan(c, 0, EMBER_F32, c->in[PLAN], a->n_experts, limit, &c->in[ROWS]->dim[1], 1);
}

// The softmax of one slot over the tokens of its sequence.
static void weigh_slot(const struct work *w, size_t s, size_t n)
{
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], *offset = c->exec->batch->offset;
    double most = -INFINITY, sum = 0;
    for (size_t t = offset[s]; t < offset[s + 1]; t++)
        most = fmax(most, (double)em_row(c->in[LOGITS], t)[n]);
    for (size_t t = offset[s]; t < offset[s + 1]; t++)
        sum += exp((double)em_row(c->in[LOGITS], t)[n] - most);
    for (size_t t = offset[s]; t < offset[s + 1]; t++)
        w->weight[t * N + n] = (float)(exp((double)em_row(c->in[LOGITS], t)[n] - most) / sum);
}

static void slots_forward_range(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1], *offset = c->exec->batch->offset;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / N, n = i % N;
        float *y = em_row(c->out[0], row_of(c, s, n));
        weigh_slot(w, s, n);
        memset(y, 0, D * sizeof *y);
        for (size_t t = offset[s]; t < offset[s + 1]; t++)
            em_kernels()->axpy_f32(y, w->weight[t * N + n], em_row(c->in[ROWS], t), D);
    }
}

static void slots_forward(const struct em_call *c)
{
    struct work w = take(c);
    em_parallel(c->exec->pool, slots_of(c), grain(c), slots_forward_range, &w);
}

static void slots_reference_forward(const struct em_call *c)
{
    struct work w = take(c);
    const size_t N = c->in[LOGITS]->dim[1], *offset = c->exec->batch->offset;
    for (size_t i = 0; i < slots_of(c); i++) {
        const size_t s = i / N, n = i % N;
        weigh_slot(&w, s, n);
        for (size_t d = 0; d < c->out[0]->dim[1]; d++) {
            double sum = 0;
            for (size_t t = offset[s]; t < offset[s + 1]; t++)
                sum += (double)w.weight[t * N + n] * (double)em_row(c->in[ROWS], t)[d];
            em_row(c->out[0], row_of(c, s, n))[d] = (float)sum;
        }
    }
}

static void slots_backward_range(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1], *offset = c->exec->batch->offset;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / N, n = i % N;
        const float *dy = em_row(c->out[0]->grad, row_of(c, s, n));
        double inner = 0;
        weigh_slot(w, s, n);
        for (size_t t = offset[s]; t < offset[s + 1]; t++) {
            const double slope = dot(c, dy, em_row(c->in[ROWS], t), D);
            w->slope[t * N + n] = (float)slope;
            inner += slope * (double)w->weight[t * N + n];
        }
        for (size_t t = offset[s]; em_wants(c, LOGITS) && t < offset[s + 1]; t++)
            em_row(c->in[LOGITS]->grad, t)[n] +=
                (float)((double)w->weight[t * N + n] * ((double)w->slope[t * N + n] - inner));
    }
}

static void slots_backward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1];
    for (size_t t = begin; t < end; t++) {
        const size_t s = em_sequence_of(c, t);
        for (size_t n = 0; n < N; n++)
            em_kernels()->axpy_f32(em_row(c->in[ROWS]->grad, t), w->weight[t * N + n],
                                   em_row(c->out[0]->grad, row_of(c, s, n)), D);
    }
}

static void slots_backward(const struct em_call *c)
{
    struct work w = take(c);
    em_parallel(c->exec->pool, slots_of(c), grain(c), slots_backward_range, &w);
    if (em_wants(c, ROWS))
        em_parallel(c->exec->pool, c->in[ROWS]->dim[0], grain(c), slots_backward_tokens, &w);
}

const struct em_op em_op_soft_slots = {
    .name = "soft_slots",
    .shape = slots_shape,
    .cost = mix_cost,
    .backend = {[EM_CPU] = EM_PASSES(slots_forward, slots_backward),
                [EM_REFERENCE] = EM_PASSES(slots_reference_forward, slots_backward)},
    .backward_reads = EM_READS_IN(ROWS) | EM_READS_IN(LOGITS) | EM_READS_IN(PLAN),
};

// ---- soft_sum ----

static ember_status sum_shape(struct em_call *c)
{
    EM_TRY(check(c, false));
    EM_TRY(em_check_plan_rows(c, c->in[PLAN], attr_of(c)->n_experts, c->in[ROWS]));
    return em_out_rows(c, 0, EMBER_F32, c->in[LOGITS], 1, &c->in[ROWS]->dim[1], 1);
}

// The softmax of one token over all slots.
static void weigh_token(const struct work *w, size_t t)
{
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1];
    const float *h = em_row(c->in[LOGITS], t);
    double most = -INFINITY, sum = 0;
    for (size_t n = 0; n < N; n++)
        most = fmax(most, (double)h[n]);
    for (size_t n = 0; n < N; n++)
        sum += exp((double)h[n] - most);
    for (size_t n = 0; n < N; n++)
        w->weight[t * N + n] = (float)(exp((double)h[n] - most) / sum);
}

static void sum_forward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1];
    for (size_t t = begin; t < end; t++) {
        const size_t s = em_sequence_of(c, t);
        float *y = em_row(c->out[0], t);
        weigh_token(w, t);
        memset(y, 0, D * sizeof *y);
        for (size_t n = 0; n < N; n++)
            em_kernels()->axpy_f32(y, w->weight[t * N + n], em_row(c->in[ROWS], row_of(c, s, n)),
                                   D);
    }
}

static void sum_forward(const struct em_call *c)
{
    struct work w = take(c);
    em_parallel(c->exec->pool, c->out[0]->dim[0], grain(c), sum_forward_tokens, &w);
}

static void sum_reference_forward(const struct em_call *c)
{
    struct work w = take(c);
    const size_t N = c->in[LOGITS]->dim[1];
    for (size_t t = 0; t < c->out[0]->dim[0]; t++) {
        const size_t s = em_sequence_of(c, t);
        weigh_token(&w, t);
        for (size_t d = 0; d < c->out[0]->dim[1]; d++) {
            double sum = 0;
            for (size_t n = 0; n < N; n++)
                sum +=
                    (double)w.weight[t * N + n] * (double)em_row(c->in[ROWS], row_of(c, s, n))[d];
            em_row(c->out[0], t)[d] = (float)sum;
        }
    }
}

static void sum_backward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1];
    for (size_t t = begin; t < end; t++) {
        const size_t s = em_sequence_of(c, t);
        const float *dy = em_row(c->out[0]->grad, t);
        double inner = 0;
        weigh_token(w, t);
        for (size_t n = 0; em_wants(c, LOGITS) && n < N; n++) {
            const double slope = dot(c, dy, em_row(c->in[ROWS], row_of(c, s, n)), D);
            w->slope[t * N + n] = (float)slope;
            inner += slope * (double)w->weight[t * N + n];
        }
        for (size_t n = 0; em_wants(c, LOGITS) && n < N; n++)
            em_row(c->in[LOGITS]->grad, t)[n] +=
                (float)((double)w->weight[t * N + n] * ((double)w->slope[t * N + n] - inner));
    }
}

static void sum_backward_slots(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t N = c->in[LOGITS]->dim[1], D = c->out[0]->dim[1], *offset = c->exec->batch->offset;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / N, n = i % N;
        for (size_t t = offset[s]; t < offset[s + 1]; t++)
            em_kernels()->axpy_f32(em_row(c->in[ROWS]->grad, row_of(c, s, n)), w->weight[t * N + n],
                                   em_row(c->out[0]->grad, t), D);
    }
}

static void sum_backward(const struct em_call *c)
{
    struct work w = take(c);
    em_parallel(c->exec->pool, c->out[0]->dim[0], grain(c), sum_backward_tokens, &w);
    if (em_wants(c, ROWS))
        em_parallel(c->exec->pool, slots_of(c), grain(c), sum_backward_slots, &w);
}

const struct em_op em_op_soft_sum = {
    .name = "soft_sum",
    .shape = sum_shape,
    .cost = mix_cost,
    .backend = {[EM_CPU] = EM_PASSES(sum_forward, sum_backward),
                [EM_REFERENCE] = EM_PASSES(sum_reference_forward, sum_backward)},
    .backward_reads = EM_READS_IN(ROWS) | EM_READS_IN(LOGITS) | EM_READS_IN(PLAN),
};

static ember_status record(ember_flow *flow, const struct em_op *op, ember_tensor *rows,
                           ember_tensor *logits, ember_tensor *plan, const struct attr *a,
                           ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, op, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[ROWS] = rows;
    c->in[LOGITS] = logits;
    c->in[PLAN] = plan;
    *em_attr(c, struct attr) = *a;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_soft_slots(ember_flow *flow, ember_tensor *x, ember_tensor *logits, size_t slots,
                              ember_routing *routing, ember_tensor **y)
{
    const struct attr a = {routing->n_experts, slots};
    struct em_call *plan = em_call_new(flow, &em_op_soft_plan, 0);
    if (!plan) return EMBER_E_NOMEM;
    *em_attr(plan, struct attr) = a;
    EM_TRY(em_record(flow, plan));
    em_keep(plan->out[0]);
    routing->plan = plan->out[0];
    routing->k = 1;
    return record(flow, &em_op_soft_slots, x, logits, routing->plan, &a, y);
}

ember_status ember_soft_sum(ember_flow *flow, ember_tensor *rows, ember_tensor *logits,
                            size_t slots, const ember_routing *routing, ember_tensor **y)
{
    return record(flow, &em_op_soft_sum, rows, logits, routing->plan,
                  &(struct attr){routing->n_experts, slots}, y);
}
