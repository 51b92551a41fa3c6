#include "ops/recurrent.h"

#include "ops/program_priv.h"

static const struct em_recurrent_attr *attr_of(const struct em_call *c)
{
    return em_attr_const(c, struct em_recurrent_attr);
}

// A strided cell keeps the time since its last step behind its state.
static bool is_strided(const struct em_call *c)
{
    return attr_of(c)->stride > 1;
}

static struct em_cell_sizes sizes_of(const struct em_call *c)
{
    struct em_cell_sizes s = {0};
    attr_of(c)->cell->sizes(c, &s);
    return s;
}

static size_t groups_of(size_t sequences)
{
    return sequences / EM_LANES + (sequences % EM_LANES != 0);
}

struct em_call *em_recurrent_new(ember_flow *flow, const struct em_op *op,
                                 const struct em_cell *cell, unsigned n_in)
{
    struct em_call *c = em_call_new(flow, op, n_in);
    if (!c) return NULL;
    struct em_recurrent_attr *a = em_attr(c, struct em_recurrent_attr);
    a->cell = cell;
    a->sequences = em_flow_options(flow)->max_sequences;
    return c;
}

ember_status em_recurrent_record(ember_flow *flow, struct em_call *c, size_t S, ember_tensor **y)
{
    EM_TRY(em_need_state(
        flow, c,
        &(struct em_state_spec){.name = c->op->name, .fixed = S + (is_strided(c) ? 1 : 0)}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status em_check_parameter(const struct em_call *c, unsigned i, const char *what,
                                const size_t *dim, unsigned ndim)
{
    char text[96];
    const ember_tensor *t = c->in[i];
    EM_TRY(em_check_f32(c, t, what, 0));
    if (t->ndim != ndim || t->dim[0] != dim[0] || (ndim == 2 && t->dim[1] != dim[1]))
        return ndim == 2
                   ? em_fail(EMBER_E_SHAPE, "%s: %s has to be [%zu, %zu], not %s", c->op->name,
                             what, dim[0], dim[1], em_shape_text(t, text, sizeof text))
                   : em_fail(EMBER_E_SHAPE, "%s: %s has to be [%zu], not %s", c->op->name, what,
                             dim[0], em_shape_text(t, text, sizeof text));
    if (t->info || !em_is_contiguous(t))
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be a contiguous parameter", c->op->name, what);
    return EMBER_OK;
}

// Vectors of one thread's area: what em_step points to.
static size_t area_of(const struct em_cell_sizes *s, bool backward)
{
    const size_t forward = s->I + 1 + 2 * (s->S + 1) + s->work;
    return backward ? forward + s->I + 3 * (s->S + 1) + s->O + s->taps + s->sums : forward;
}

// One after the other in both passes, so the larger of them.
static ember_status need_scratch(struct em_call *c, const struct em_cell_sizes *s)
{
    const bool training = em_is_training(c);
    const unsigned threads = em_call_threads(c);
    const size_t T = c->in[0]->dim[0], groups = groups_of(attr_of(c)->sequences);
    size_t bytes = 0, vectors;
    if (c->exec->backend == EM_REFERENCE) {
        EM_TRY(em_add_scratch(c, 2, s->I * 2 + (s->S + 1) * 4 + s->reference_work + 2,
                              &bytes)); // doubles
        em_need_scratch(c, bytes);
        return EMBER_OK;
    }
    if (!em_mul_size(area_of(s, training), EM_LANES, &vectors)) vectors = SIZE_MAX;
    EM_TRY(em_add_scratch(c, threads, vectors, &bytes));
    EM_TRY(em_add_scratch(c, 1, s->prepared / sizeof(float) + 1, &bytes));
    if (training) {
        EM_TRY(em_add_scratch(c, T, s->taps, &bytes));
        EM_TRY(em_add_scratch(c, groups + 2, s->sums, &bytes));
        if (s->product) {
            EM_TRY(em_add_matmul_scratch(
                c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, s->product, T, threads), &bytes));
        }
    }
    em_need_scratch(c, bytes);
    return EMBER_OK;
}

ember_status em_recurrent_shape(struct em_call *c)
{
    const struct em_cell_sizes s = sizes_of(c);
    const size_t state = s.S + (is_strided(c) ? 1 : 0);
    EM_TRY(need_scratch(c, &s));
    EM_TRY(em_saved_rows(c, 0, EMBER_F32, c->in[0], 1, &state, 1));
    return em_out_rows(c, 0, EMBER_F32, c->in[0], 1, &s.O, 1);
}

// ---- cpu ----

struct walk {
    const struct em_call *call;
    struct em_cell_sizes size;
    const struct em_cell *cell;
    const void *prepared;
    float *area, *taps, *partial;
    size_t area_floats, strided;
};

struct group {
    const struct walk *w;
    size_t first, count, longest;
    size_t start[EM_LANES], length[EM_LANES];
};

static struct group group_of(const struct walk *w, size_t index)
{
    const ember_batch *b = w->call->exec->batch;
    struct group g = {.w = w, .first = index * EM_LANES};
    g.count = b->n_sequences - g.first < EM_LANES ? b->n_sequences - g.first : EM_LANES;
    for (size_t i = 0; i < g.count; i++) {
        g.start[i] = b->offset[g.first + i];
        g.length[i] = b->offset[g.first + i + 1] - g.start[i];
        if (g.length[i] > g.longest) g.longest = g.length[i];
    }
    return g;
}

// Rows of the group's tokens at time t; NULL where a sequence is over.
static void rows_at(const struct group *g, const struct em_strip *s, size_t t, float **rows)
{
    for (size_t i = 0; i < EM_LANES; i++)
        rows[i] = i < g->count && t < g->length[i] ? em_strip_row(s, g->start[i] + t) : NULL;
}

static void load_rows(float *lanes, float *const *rows, size_t n)
{
    const float *from[EM_LANES];
    for (size_t i = 0; i < EM_LANES; i++)
        from[i] = rows[i];
    em_kernels()->lanes_load_f32(lanes, from, n);
}

static void load_tokens(const struct group *g, const ember_tensor *x, size_t t, float *lanes,
                        size_t n)
{
    const struct em_strip s = em_strip_of(x);
    float *rows[EM_LANES];
    rows_at(g, &s, t, rows);
    load_rows(lanes, rows, n);
}

// What step t starts from: the states that were handed in, or zeros.
static void load_first_states(const struct group *g, float *lanes)
{
    const float *rows[EM_LANES] = {NULL};
    for (size_t i = 0; i < g->count; i++) {
        const struct em_slot *in = em_slot_in(g->w->call, g->first + i);
        rows[i] = in ? in->fixed : NULL;
    }
    em_kernels()->lanes_load_f32(lanes, rows, g->w->size.S + g->w->strided);
}

// Lanes that end at t leave their states.
static void leave_states(const struct group *g, size_t t, const float *lanes)
{
    float *rows[EM_LANES] = {NULL};
    bool any = false;
    for (size_t i = 0; i < g->count; i++) {
        struct em_slot *out = t + 1 == g->length[i] ? em_slot_out(g->w->call, g->first + i) : NULL;
        if (!out) continue;
        rows[i] = out->fixed;
        any = true;
    }
    if (any) em_kernels()->lanes_store_f32(rows, lanes, g->w->size.S + g->w->strided, false);
}

static bool moves(const struct em_call *c, size_t token)
{
    return (size_t)c->exec->position[token] % attr_of(c)->stride == 0;
}

// Tokens and times of step t. `elapsed` [EM_LANES], of strided cells, is added to the times.
static void time_of(const struct group *g, size_t t, size_t *token, float *dt, const float *elapsed)
{
    const float *spans = g->w->call->exec->batch->timespans;
    for (size_t i = 0; i < EM_LANES; i++) {
        const bool here = i < g->count && t < g->length[i];
        token[i] = here ? g->start[i] + t : SIZE_MAX;
        dt[i] = here && spans ? spans[token[i]] : 1;
        if (here && elapsed) dt[i] += elapsed[i];
    }
}

// Lanes whose cells stand still at this token keep what they had.
static void hold(const struct group *g, const size_t *token, const float *before, float *after,
                 const float *dt)
{
    const size_t S = g->w->size.S;
    for (size_t i = 0; i < EM_LANES; i++) {
        const bool still = token[i] != SIZE_MAX && !moves(g->w->call, token[i]);
        for (size_t j = 0; still && j < S; j++)
            after[j * EM_LANES + i] = before[j * EM_LANES + i];
        after[S * EM_LANES + i] = still ? dt[i] : 0;
    }
}

static void forward_group(const struct walk *w, size_t index, float *area)
{
    const struct em_call *c = w->call;
    const struct group g = group_of(w, index);
    const size_t S = w->size.S;
    const struct em_strip y = em_strip_of(c->out[0]);
    size_t token[EM_LANES];
    float *x = area, *dt = em_lanes_at(x, w->size.I), *before = em_lanes_at(dt, 1),
          *after = em_lanes_at(before, S + 1), *rows[EM_LANES];
    struct em_step s = {.call = c, .prepared = w->prepared, .x = x, .dt = dt, .token = token};
    s.work = em_lanes_at(after, S + 1);
    load_first_states(&g, before);
    for (size_t t = 0; t < g.longest; t++) {
        load_tokens(&g, c->in[0], t, x, w->size.I);
        time_of(&g, t, token, dt, w->strided ? em_lanes_at(before, S) : NULL);
        s.before = before;
        s.after = after;
        w->cell->step(&s);
        if (w->strided) hold(&g, token, before, after, dt);
        rows_at(&g, &y, t, rows);
        em_kernels()->lanes_store_f32(rows, em_lanes_at(after, w->size.first), w->size.O, false);
        if (em_recording(c)) {
            const struct em_strip saved = em_strip_of(c->saved[0]);
            rows_at(&g, &saved, t, rows);
            em_kernels()->lanes_store_f32(rows, after, S + w->strided, false);
        }
        leave_states(&g, t, after);
        float *swap = before;
        before = after;
        after = swap;
    }
}

static void forward_groups(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct walk *w = arg;
    for (size_t i = begin; i < end; i++)
        forward_group(w, i, w->area + thread * w->area_floats);
}

static struct walk walk_of(const struct em_call *c, bool backward)
{
    struct walk w = {
        .call = c, .size = sizes_of(c), .cell = attr_of(c)->cell, .strided = is_strided(c) ? 1 : 0};
    float *prepared = em_take_floats(c, 1, w.size.prepared / sizeof(float) + 1);
    w.area_floats = area_of(&w.size, backward) * EM_LANES;
    w.area = em_take_floats(c, em_call_threads(c), w.area_floats);
    if (w.cell->prepare) w.cell->prepare(c, prepared);
    w.prepared = prepared;
    if (w.cell->sums) w.size.sums = w.cell->sums(prepared);
    return w;
}

void em_recurrent_forward(const struct em_call *c)
{
    if (!c->out[0]->dim[0]) return;
    struct walk w = walk_of(c, false);
    em_parallel(c->exec->pool, groups_of(c->exec->batch->n_sequences), 1, forward_groups, &w);
}

// The gradient of lanes that stand still goes past the step: moved from ds to `past`.
static void set_aside(const struct group *g, const size_t *token, float *ds, float *past)
{
    const size_t n = g->w->size.S * EM_LANES;
    memset(past, 0, n * sizeof *past);
    for (size_t i = 0; i < EM_LANES; i++)
        if (token[i] != SIZE_MAX && !moves(g->w->call, token[i]))
            for (size_t j = i; j < n; j += EM_LANES) {
                past[j] = ds[j];
                ds[j] = 0;
            }
}

static void store_gradient(const struct group *g, size_t t, const float *dx)
{
    const struct em_call *c = g->w->call;
    float *rows[EM_LANES];
    if (!em_wants(c, 0)) return;
    const struct em_strip to = em_strip_of(c->in[0]->grad);
    rows_at(g, &to, t, rows);
    em_kernels()->lanes_store_f32(rows, dx, g->w->size.I, !em_fresh(c, 0));
}

static void backward_group(const struct walk *w, size_t index, float *area)
{
    const struct em_call *c = w->call;
    const struct group g = group_of(w, index);
    const size_t I = w->size.I, S = w->size.S, O = w->size.O;
    const struct em_strip taps = {w->taps, c->out[0]->dim[0], w->size.taps, w->size.taps};
    size_t token[EM_LANES];
    float *x = area, *dt = em_lanes_at(x, I), *before = em_lanes_at(dt, 1),
          *work = em_lanes_at(before, S + 1), *dx = em_lanes_at(work, w->size.work),
          *ds = em_lanes_at(dx, I), *past = em_lanes_at(ds, S + 1), *dy = em_lanes_at(past, S + 1),
          *tap = em_lanes_at(dy, O), *sums = em_lanes_at(tap, w->size.taps), *rows[EM_LANES];
    struct em_step s = {.call = c,
                        .prepared = w->prepared,
                        .x = x,
                        .dt = dt,
                        .before = before,
                        .work = work,
                        .token = token,
                        .ds = ds,
                        .dx = dx,
                        .tap = tap,
                        .sums = sums};
    memset(ds, 0, S * EM_LANES * sizeof *ds);
    memset(sums, 0, w->size.sums * EM_LANES * sizeof *sums);
    for (size_t t = g.longest; t-- > 0;) {
        load_tokens(&g, c->in[0], t, x, I);
        if (t)
            load_tokens(&g, c->saved[0], t - 1, before, S + w->strided);
        else
            load_first_states(&g, before);
        // The row before exists for a lane whose sequence is over by now too: it is idle.
        time_of(&g, t, token, dt, w->strided ? em_lanes_at(before, S) : NULL);
        load_tokens(&g, c->out[0]->grad, t, dy, O);
        float *dout = em_lanes_at(ds, w->size.first);
        em_kernels()->add_f32(dout, dout, dy, O * EM_LANES);
        if (w->strided) set_aside(&g, token, ds, past);
        memset(dx, 0, I * EM_LANES * sizeof *dx);
        w->cell->step_back(&s);
        if (w->strided) em_kernels()->add_f32(ds, ds, past, S * EM_LANES);
        store_gradient(&g, t, dx);
        rows_at(&g, &taps, t, rows);
        if (w->size.taps) em_kernels()->lanes_store_f32(rows, tap, w->size.taps, false);
    }
    for (size_t i = 0; i < w->size.sums; i++) {
        float sum = 0;
        for (size_t lane = 0; lane < EM_LANES; lane++)
            sum += sums[i * EM_LANES + lane];
        w->partial[index * w->size.sums + i] = sum;
    }
}

static void backward_groups(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct walk *w = arg;
    for (size_t i = begin; i < end; i++)
        backward_group(w, i, w->area + thread * w->area_floats);
}

void em_recurrent_backward(const struct em_call *c)
{
    const size_t T = c->out[0]->dim[0];
    if (!T) return;
    const size_t groups = groups_of(c->exec->batch->n_sequences);
    struct walk w = walk_of(c, true);
    w.taps = em_take_floats(c, T, w.size.taps);
    w.partial = em_take_floats(c, groups, w.size.sums);
    double *sums = em_scratch_take(em_scratch_of(c), w.size.sums * sizeof *sums);
    em_parallel(c->exec->pool, groups, 1, backward_groups, &w);
    for (size_t i = 0; i < w.size.sums; i++) {
        sums[i] = 0;
        for (size_t g = 0; g < groups; g++)
            sums[i] += (double)w.partial[g * w.size.sums + i];
    }
    w.cell->finish(c, w.prepared, w.taps, sums);
}

static size_t taps_of(const struct em_call *c)
{
    return sizes_of(c).taps;
}

// Waking threads takes longer than a small sum does. The result does not depend on it.
static struct em_pool *pool_for(const struct em_call *c, size_t rows, size_t columns)
{
    enum { WORTH = 1 << 24 };
    const double products = (double)rows * (double)columns * (double)c->out[0]->dim[0];
    return products < WORTH ? NULL : c->exec->pool;
}

void em_tap_product(const struct em_call *c, const float *taps, size_t dz_at, size_t rows,
                    size_t z_at, size_t columns, float *gradient)
{
    if (!gradient) return;
    const size_t T = c->out[0]->dim[0], stride = taps_of(c);
    struct em_pool *pool = pool_for(c, rows, columns);
    const size_t mark = em_scratch_mark(em_scratch_of(c));
    struct em_gemm_scratch scratch = em_matmul_scratch(
        c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, columns, T, em_pool_threads(pool)));
    em_gemm(EM_GEMM_F32, rows, columns, T, em_matmul_columns(taps + dz_at, stride),
            em_matmul_rows(taps + z_at, stride), gradient, columns,
            &(struct em_gemm_epilogue){.accumulate = true}, &scratch, pool);
    em_scratch_reset(em_scratch_of(c), mark);
}

void em_tap_bias(const struct em_call *c, const float *taps, size_t dz_at, size_t rows,
                 float *gradient)
{
    if (!gradient) return;
    const struct em_strip s = {(float *)(uintptr_t)taps + dz_at, c->out[0]->dim[0], rows,
                               taps_of(c)};
    em_add_column_sums(pool_for(c, rows, 16), &s, gradient);
}

// ---- reference ----

struct reference_walk {
    const struct em_call *c;
    const struct em_cell *cell;
    struct em_cell_sizes size;
    double *x, *dx, *before, *after, *ds, *past, *work;
};

static struct reference_walk reference_walk_of(const struct em_call *c)
{
    struct reference_walk w = {.c = c, .cell = attr_of(c)->cell, .size = sizes_of(c)};
    const size_t I = w.size.I, S = w.size.S + 1;
    w.x =
        em_scratch_take(em_scratch_of(c), (2 * I + 4 * S + w.size.reference_work) * sizeof(double));
    w.dx = w.x + I;
    w.before = w.dx + I;
    w.after = w.before + S;
    w.ds = w.after + S;
    w.past = w.ds + S;
    w.work = w.past + S;
    return w;
}

// The state before token t of sequence s, and the step's time.
static struct em_reference_step reference_step_at(const struct reference_walk *w, size_t s,
                                                  size_t t, const float *state)
{
    const ember_batch *b = w->c->exec->batch;
    const size_t token = b->offset[s] + t, S = w->size.S;
    struct em_reference_step step = {.call = w->c,
                                     .token = token,
                                     .x = w->x,
                                     .before = w->before,
                                     .after = w->after,
                                     .work = w->work,
                                     .ds = w->ds,
                                     .dx = w->dx,
                                     .dt = b->timespans ? (double)b->timespans[token] : 1};
    for (size_t i = 0; i < w->size.I; i++)
        w->x[i] = (double)em_row(w->c->in[0], token)[i];
    for (size_t i = 0; i < S; i++)
        w->before[i] = state ? (double)state[i] : 0;
    if (is_strided(w->c) && state) step.dt += (double)state[S];
    return step;
}

void em_recurrent_reference_forward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    const struct reference_walk w = reference_walk_of(c);
    const size_t S = w.size.S;
    float *carried = (float *)(void *)w.past; // S + 1 floats
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        struct em_slot *out = em_slot_out(c, s);
        for (size_t i = 0; i < S + 1; i++)
            carried[i] = in && i < S + is_strided(c) ? in->fixed[i] : 0;
        for (size_t t = 0; t < b->offset[s + 1] - b->offset[s]; t++) {
            const struct em_reference_step step = reference_step_at(&w, s, t, carried);
            const bool still = is_strided(c) && !moves(c, step.token);
            if (!still) w.cell->reference(&step);
            for (size_t i = 0; i < S && !still; i++)
                carried[i] = (float)w.after[i];
            carried[S] = still ? (float)step.dt : 0;
            memcpy(em_row(c->out[0], step.token), carried + w.size.first, w.size.O * sizeof(float));
            if (em_recording(c))
                memcpy(em_row(c->saved[0], step.token), carried,
                       (S + is_strided(c)) * sizeof(float));
        }
        if (out) memcpy(out->fixed, carried, (S + is_strided(c)) * sizeof(float));
    }
}

void em_recurrent_reference_backward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    const struct reference_walk w = reference_walk_of(c);
    em_zero_fresh(c, 0);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        memset(w.ds, 0, w.size.S * sizeof *w.ds);
        for (size_t t = b->offset[s + 1] - b->offset[s]; t-- > 0;) {
            const size_t token = b->offset[s] + t;
            const struct em_reference_step step =
                reference_step_at(&w, s, t,
                                  t    ? em_row(c->saved[0], token - 1)
                                  : in ? in->fixed
                                       : NULL);
            for (size_t i = 0; i < w.size.O; i++)
                w.ds[w.size.first + i] += (double)em_row(c->out[0]->grad, token)[i];
            if (is_strided(c) && !moves(c, token)) continue;
            memset(w.dx, 0, w.size.I * sizeof *w.dx);
            w.cell->reference_back(&step);
            for (size_t i = 0; em_wants(c, 0) && i < w.size.I; i++)
                em_row(c->in[0]->grad, token)[i] += (float)w.dx[i];
        }
    }
}
