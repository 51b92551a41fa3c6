// Mamba's selective scan over packed sequences. Gu and Dao 2023, arXiv:2312.00752, algorithm 2:
//   dt = softplus(delta + delta_bias), A = -exp(A_log)
//   h[t] = exp(dt A) h[t-1] + dt x[t] B[t],  y[t] = (h[t] . C[t] + D x[t]) silu(z[t])
// Forward leaves a checkpoint of h every EM_SCAN_CHUNK tokens; backward computes the states between
// them again. No gradient goes into the state that a sequence starts from.
#include "ops/selective_scan.h"

#include "base/sizes.h"
#include "kernels/kernels.h"

enum { X = EM_SCAN_X, DELTA, A_LOG, B, C, D, DELTA_BIAS, Z, INPUTS };
enum { CHECKPOINTS }; // saved
// Forward works on blocks of channels; backward on spans of them, whose parts of dB and dC are
// summed in the end: few, so that they are no more memory than a row, in whole units.
enum { BLOCK = 64, UNIT = 32, SPANS = 16 };

struct sizes {
    size_t T, E, N, groups, per_group; // per_group: channels
};

static struct sizes sizes_of(const struct em_call *c)
{
    const ember_tensor *a = c->in[A_LOG];
    const size_t groups = em_attr_const(c, struct em_scan_attr)->groups;
    return (struct sizes){c->in[X]->dim[0], a->dim[0], a->dim[1], groups, a->dim[0] / groups};
}

static size_t at_least_one(size_t n)
{
    return n ? n : 1;
}

// Spans of a group.
static size_t spans_of(const struct sizes *n)
{
    const size_t units = em_ceil_div(n->per_group, UNIT);
    const size_t most =
        em_min_size(at_least_one(SPANS / n->groups), at_least_one(n->per_group / (2 * n->N)));
    return em_min_size(units, most);
}

static ember_status check_rows(const struct em_call *c, unsigned i, const char *name, size_t width)
{
    const ember_tensor *t = c->in[i];
    char text[96];
    EM_TRY(em_check_f32(c, t, name, 0));
    if (t->ndim != 2 || t->dim[1] != width || !em_same_rows(t, c->in[X]) || !t->info)
        return em_fail(EMBER_E_SHAPE, "selective_scan: %s has to be [T, %zu], not %s", name, width,
                       em_shape_text(t, text, sizeof text));
    return EMBER_OK;
}

static ember_status check_parameter(const struct em_call *c, unsigned i, const char *name, size_t E)
{
    const ember_tensor *t = c->in[i];
    char text[96];
    if (!t) return EMBER_OK;
    EM_TRY(em_check_f32(c, t, name, 0));
    if (t->info || !em_is_contiguous(t) || ember_tensor_count(t) != E)
        return em_fail(EMBER_E_SHAPE, "selective_scan: %s has to be a parameter [%zu], not %s",
                       name, E, em_shape_text(t, text, sizeof text));
    return EMBER_OK;
}

static ember_status check(const struct em_call *c)
{
    char text[96];
    const ember_tensor *a = c->in[A_LOG];
    const size_t groups = em_attr_const(c, struct em_scan_attr)->groups;
    EM_TRY(em_check_f32(c, a, "A_log", 0));
    if (a->info || !em_is_contiguous(a) || a->ndim != 2 || !a->dim[0] || !a->dim[1] ||
        a->dim[1] > EM_SCAN_STATES || !groups || a->dim[0] % groups)
        return em_fail(
            EMBER_E_SHAPE,
            "selective_scan: A_log is %s; it has to be a parameter [E, N], N at most %d, "
            "E a multiple of the %zu groups",
            em_shape_text(a, text, sizeof text), EM_SCAN_STATES, groups);
    EM_TRY(check_rows(c, X, "x", a->dim[0]));
    EM_TRY(check_rows(c, DELTA, "delta", a->dim[0]));
    EM_TRY(check_rows(c, B, "B", groups * a->dim[1]));
    EM_TRY(check_rows(c, C, "C", groups * a->dim[1]));
    EM_TRY(check_parameter(c, D, "D", a->dim[0]));
    EM_TRY(check_parameter(c, DELTA_BIAS, "delta_bias", a->dim[0]));
    return c->in[Z] ? check_rows(c, Z, "z", a->dim[0]) : EMBER_OK;
}

static size_t thread_scratch(const struct sizes *n)
{
    const size_t bytes = em_kernels()->scan_backward_scratch(&(struct em_scan){.N = n->N});
    return em_ceil_div(bytes, 128) * 128;
}

static ember_status shape(struct em_call *c)
{
    EM_TRY(check(c));
    const struct sizes n = sizes_of(c);
    size_t bytes = 0, reference = 0, states;
    EM_TRY(em_add_scratch(c, n.N, n.E, &bytes)); // rates
    if (em_is_training(c)) {
        EM_TRY(em_add_scratch(c, 2 * n.N, n.E, &bytes)); // dA, carry
        if (!em_mul_size(n.T, 2 * n.N, &states)) states = SIZE_MAX;
        EM_TRY(em_add_scratch(c, n.groups * spans_of(&n), states, &bytes));
        EM_TRY(em_add_scratch(c, em_call_threads(c), thread_scratch(&n) / sizeof(float), &bytes));
    }
    EM_TRY(em_scan_reference_scratch(c, &reference));
    em_need_scratch(c, bytes > reference ? bytes : reference);
    EM_TRY(em_out_like(c, 0, c->in[X]));
    const size_t S = em_flow_options(em_program_flow(c->program))->max_sequences;
    return em_saved(c, CHECKPOINTS, EMBER_F32, (size_t[]){n.T / EM_SCAN_CHUNK + S, n.N, n.E}, 3);
}

// By the number of operations on vectors that an exponential and the rest take.
static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct sizes n = sizes_of(c);
    const double rows = em_elements(c->in[X]), states = rows * (double)n.N;
    const double streams = c->in[Z] ? 4 : 3;
    *forward =
        (struct em_cost){9 * states + 20 * rows, 4 * (streams * rows + 2 * em_elements(c->in[B]))};
    *backward = (struct em_cost){25 * states + 40 * rows,
                                 4 * (2 * streams * rows + rows + 4 * em_elements(c->in[B]))};
}

static size_t first_row(const struct em_call *c, size_t s)
{
    return em_first_row(c, c->in[X], s);
}

static struct em_scan sequence(const struct em_call *c, const float *rate, size_t s)
{
    const struct sizes n = sizes_of(c);
    const size_t start = first_row(c, s);
    const struct em_strip x = em_strip_of(c->in[X]), delta = em_strip_of(c->in[DELTA]);
    const struct em_strip b = em_strip_of(c->in[B]), cs = em_strip_of(c->in[C]);
    const struct em_strip z = c->in[Z] ? em_strip_of(c->in[Z]) : (struct em_strip){0};
    const struct em_slot *in = em_slot_in(c, s);
    return (struct em_scan){
        .x = em_strip_row(&x, start),
        .delta = em_strip_row(&delta, start),
        .z = z.data ? em_strip_row(&z, start) : NULL,
        .b = em_strip_row(&b, start),
        .c = em_strip_row(&cs, start),
        .x_stride = x.stride,
        .delta_stride = delta.stride,
        .z_stride = z.stride,
        .b_stride = b.stride,
        .c_stride = cs.stride,
        .rate = rate,
        .skip = c->in[D] ? em_f32(c->in[D]) : NULL,
        .delta_bias = c->in[DELTA_BIAS] ? em_f32(c->in[DELTA_BIAS]) : NULL,
        .E = n.E,
        .N = n.N,
        .T = first_row(c, s + 1) - start,
        .per_group = n.per_group,
        .state = in ? in->fixed : NULL,
    };
}

// Before sequence s, no more checkpoints than tokens / EM_SCAN_CHUNK + s can have been written.
static float *checkpoints(const struct em_call *c, size_t s)
{
    const struct sizes n = sizes_of(c);
    return em_f32(c->saved[CHECKPOINTS]) + (first_row(c, s) / EM_SCAN_CHUNK + s) * n.N * n.E;
}

struct work {
    const struct em_call *call;
    struct sizes n;
    float *rate;    // [N, E]
    float *dA;      // [N, E]
    float *carry;   // [N, E]
    float *db, *dc; // [groups * spans][T, N]
    char *scratch;  // of each thread
    size_t per_thread, spans, blocks;
};

static float *rates(const struct em_call *c)
{
    const struct sizes n = sizes_of(c);
    float *rate = em_take_floats(c, n.N, n.E);
    em_kernels()->transpose_f32(rate, em_f32(c->in[A_LOG]), n.E, n.N);
    em_kernels()->scan_rates_f32(rate, n.N * n.E);
    return rate;
}

static void forward_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const struct em_strip y = em_strip_of(c->out[0]);
    const size_t per_sequence = w->n.groups * w->blocks;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / per_sequence, g = i % per_sequence / w->blocks, b = i % w->blocks;
        const size_t first = g * w->n.per_group + b * BLOCK;
        const struct em_scan k = sequence(c, w->rate, s);
        struct em_slot *out = em_slot_out(c, s);
        const struct em_scan_out o = {
            .y = em_strip_row(&y, first_row(c, s)),
            .y_stride = y.stride,
            .state = out ? out->fixed : NULL,
            .checkpoints = em_recording(c) ? checkpoints(c, s) : NULL,
        };
        em_kernels()->scan_f32(&k, &o, first, em_min_size(first + BLOCK, (g + 1) * w->n.per_group));
    }
}

static void forward(const struct em_call *c)
{
    struct work w = {.call = c, .n = sizes_of(c), .rate = rates(c)};
    w.blocks = em_ceil_div(w.n.per_group, BLOCK);
    const size_t S = c->exec->batch->n_sequences;
    if (!S) return;
    // some 20 microseconds each
    const size_t work = BLOCK * w.n.N * at_least_one(w.n.T / S);
    em_parallel(c->exec->pool, S * w.n.groups * w.blocks, (100000 + work) / work, forward_blocks,
                &w);
}

static struct em_strip gradient(const struct em_call *c, unsigned i)
{
    return em_wants(c, i) ? em_strip_of(c->in[i]->grad) : (struct em_strip){0};
}

// Row of a gradient, NULL where none is wanted.
static float *gradient_row(const struct em_strip *s, size_t row)
{
    return s->data ? em_strip_row(s, row) : NULL;
}

static void span_backward(const struct work *w, size_t i, unsigned thread)
{
    const struct em_call *c = w->call;
    const size_t part = i * w->n.T * w->n.N;
    const size_t g = i / w->spans, j = i % w->spans, units = em_ceil_div(w->n.per_group, UNIT);
    const size_t begin = units * j / w->spans * UNIT, end = units * (j + 1) / w->spans * UNIT;
    const struct em_strip dy = em_strip_of(c->out[0]->grad), dx = gradient(c, X);
    const struct em_strip ddelta = gradient(c, DELTA), dz = gradient(c, Z);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_scan k = sequence(c, w->rate, s);
        const size_t first = first_row(c, s);
        const struct em_scan_gradient d = {
            .dy = em_strip_row(&dy, first),
            .checkpoints = checkpoints(c, s),
            .dy_stride = dy.stride,
            .dx = gradient_row(&dx, first),
            .ddelta = gradient_row(&ddelta, first),
            .dz = gradient_row(&dz, first),
            .dx_stride = dx.stride,
            .ddelta_stride = ddelta.stride,
            .dz_stride = dz.stride,
            .set_x = em_fresh(c, X),
            .set_delta = em_fresh(c, DELTA),
            .set_z = em_fresh(c, Z),
            .db = w->db + part + first * w->n.N,
            .dc = w->dc + part + first * w->n.N,
            .dA = w->dA,
            .dskip = em_wants(c, D) ? em_f32(c->in[D]->grad) : NULL,
            .ddelta_bias = em_wants(c, DELTA_BIAS) ? em_f32(c->in[DELTA_BIAS]->grad) : NULL,
            .carry = w->carry,
        };
        em_kernels()->scan_backward_f32(&k, &d, g * w->n.per_group + begin,
                                        g * w->n.per_group + em_min_size(end, w->n.per_group),
                                        w->scratch + thread * w->per_thread);
    }
}

static void backward_spans(void *arg, size_t begin, size_t end, unsigned thread)
{
    for (size_t i = begin; i < end; i++)
        span_backward(arg, i, thread);
}

// The spans' parts of dB or dC, in order.
static void add_parts(const struct work *w, unsigned input, const float *parts, size_t t)
{
    const struct em_strip d = em_strip_of(w->call->in[input]->grad);
    for (size_t g = 0; g < w->n.groups; g++) {
        float *row = em_strip_row(&d, t) + g * w->n.N;
        const bool set = em_fresh(w->call, input);
        for (size_t j = 0; j < w->spans; j++) {
            const float *part = parts + ((g * w->spans + j) * w->n.T + t) * w->n.N;
            if (set && !j)
                memcpy(row, part, w->n.N * sizeof *row);
            else
                em_kernels()->add_f32(row, row, part, w->n.N);
        }
    }
}

static void add_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    for (size_t t = begin; t < end; t++) {
        if (em_wants(w->call, B)) add_parts(w, B, w->db, t);
        if (em_wants(w->call, C)) add_parts(w, C, w->dc, t);
    }
}

// dA_log = A dA; what is there is A log2(e).
static void add_rates(const struct work *w)
{
    if (!em_wants(w->call, A_LOG)) return;
    float *d = em_f32(w->call->in[A_LOG]->grad);
    for (size_t e = 0; e < w->n.E; e++)
        for (size_t n = 0; n < w->n.N; n++)
            d[e * w->n.N + n] += w->rate[n * w->n.E + e] * 0x1.62e43p-1f * w->dA[n * w->n.E + e];
}

static void backward(const struct em_call *c)
{
    struct work w = {.call = c, .n = sizes_of(c), .rate = rates(c)};
    if (!w.n.T) return;
    w.spans = spans_of(&w.n);
    w.dA = em_take_floats(c, w.n.N, w.n.E);
    w.carry = em_take_floats(c, w.n.N, w.n.E);
    w.db = em_take_floats(c, w.n.groups * w.spans, w.n.T * w.n.N);
    w.dc = em_take_floats(c, w.n.groups * w.spans, w.n.T * w.n.N);
    w.per_thread = thread_scratch(&w.n);
    w.scratch = em_scratch_take(em_scratch_of(c), w.per_thread * em_call_threads(c));
    memset(w.dA, 0, w.n.N * w.n.E * sizeof *w.dA);
    em_parallel(c->exec->pool, w.n.groups * w.spans, 1, backward_spans, &w);
    em_parallel(c->exec->pool, w.n.T, em_row_grain(w.n.groups * w.spans * w.n.N), add_rows, &w);
    add_rates(&w);
}

const struct em_op em_op_selective_scan = {
    .name = "selective_scan",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(em_scan_reference_forward, em_scan_reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(DELTA) | EM_READS_IN(A_LOG) | EM_READS_IN(B) |
                      EM_READS_IN(C) | EM_READS_IN(D) | EM_READS_IN(DELTA_BIAS) | EM_READS_IN(Z),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_selective_scan(ember_flow *flow, const ember_scan_inputs *in, size_t groups,
                                  ember_tensor **y)
{
    size_t each = 0;
    if (!in->x || in->x->ndim != 2 || !em_has_sequence_rows(in->x, &each))
        EM_TRY(em_check_token_rows(flow, "selective_scan", in->x));
    struct em_call *c = em_call_new(flow, &em_op_selective_scan, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = in->x;
    c->in[DELTA] = in->delta;
    c->in[A_LOG] = in->A_log;
    c->in[B] = in->B;
    c->in[C] = in->C;
    c->in[D] = in->D;
    c->in[DELTA_BIAS] = in->delta_bias;
    c->in[Z] = in->z;
    em_attr(c, struct em_scan_attr)->groups = groups;
    size_t states;
    // Pixels of images are no tokens that others follow: nothing is kept.
    if (!each && in->A_log && in->A_log->ndim == 2 &&
        em_mul_size(in->A_log->dim[0], in->A_log->dim[1], &states))
        EM_TRY(em_need_state(flow, c,
                             &(struct em_state_spec){.name = "selective_scan", .fixed = states}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
