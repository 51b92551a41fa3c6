// The long convolution by transforms: groups of up to EM_FC_LANES neighbouring channels at a time.
//
// A sequence is taken whole, or, where the kernel is much shorter, in segments of A tokens: from
// the H = lags - 1 inputs before them to the F inputs after them that reach them. Of what comes
// round in a segment nothing reaches the A places that are taken, nor the lags that have taps.
#include "ops/fft_conv.h"

#include "kernels/fft.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}
static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// ---- scratch ----

static size_t unit_channels(const struct em_fft_conv *f)
{
    return f->d < EM_FC_LANES ? EM_FC_LANES / f->d * f->d : f->d;
}

static size_t units_of(const struct em_fft_conv *f)
{
    return (f->D + unit_channels(f) - 1) / unit_channels(f);
}

struct sizes {
    size_t N, rows, threads;
    bool training;
};

static struct sizes sizes_of(const struct em_call *c, size_t T)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    struct sizes z = {em_fft_conv_most_numbers(&f, T), T, em_call_threads(c), em_is_training(c)};
    if (units_of(&f) < z.threads) z.threads = 1;
    if (f.causal && c->slot >= 0) {
        const size_t block = f.attr.block;
        z.rows += f.taps;
        z.N = larger(z.N, smaller(block, EM_FC_LARGEST));
        z.rows = larger(z.rows, smaller(2 * block, EM_FC_LARGEST));
    }
    return z;
}

ember_status em_fft_conv_cpu_scratch(const struct em_call *c, size_t T, size_t *bytes)
{
    size_t lags;
    const struct em_fft_conv f = em_fft_conv_of(c);
    if (!em_add_size(f.taps, T, &lags) || lags > SIZE_MAX / 4096)
        return em_fail(EMBER_E_NOMEM, "fft_conv: %zu lags and %zu tokens do not fit into memory",
                       f.taps, T);
    const struct sizes z = sizes_of(c, T);
    for (size_t i = 0; i < z.threads; i++) {
        for (int w = 0; w < (z.training ? 4 : 2); w++)
            EM_TRY(em_add_scratch(c, 1, em_fft_floats(z.N), bytes));
        for (int r = 0; r < 3; r++)
            EM_TRY(em_add_scratch(c, z.rows, EM_FC_LANES, bytes));
        EM_TRY(em_add_scratch(c, (size_t)2 * EM_FC_DIRECT, EM_FC_LANES, bytes));
    }
    // Counted as floats: more than enough.
    return em_add_scratch(c, z.threads, sizeof(struct em_fft_conv_scratch), bytes);
}

static struct em_fft_conv_scratch *take_scratch(const struct em_call *c)
{
    // What the program was planned for, whatever the batch: offsets are those of the shape rule.
    const struct sizes z = sizes_of(c, em_flow_options(em_program_flow(c->program))->max_tokens);
    struct em_fft_conv_scratch *all = em_scratch_take(em_scratch_of(c), z.threads * sizeof *all);
    for (size_t i = 0; i < z.threads; i++) {
        struct em_fft_conv_scratch *s = &all[i];
        *s = (struct em_fft_conv_scratch){0};
        s->work = em_take_floats(c, 1, em_fft_floats(z.N));
        s->spectrum = em_take_floats(c, 1, em_fft_floats(z.N));
        if (z.training) {
            s->other = em_take_floats(c, 1, em_fft_floats(z.N));
            s->gradient = em_take_floats(c, 1, em_fft_floats(z.N));
        }
        s->signal = em_take_floats(c, z.rows, EM_FC_LANES);
        s->rows = em_take_floats(c, z.rows, EM_FC_LANES);
        s->more = em_take_floats(c, z.rows, EM_FC_LANES);
        s->taps = em_take_floats(c, (size_t)2 * EM_FC_DIRECT, EM_FC_LANES);
    }
    return all;
}

// ---- rows of a group ----

// The channel of u and post_gate that a lane's signal has.
static size_t partner(const struct em_fft_conv_group *g, size_t lane)
{
    return em_fft_conv_head(g, lane) * g->f->d + g->i;
}

// Partners' columns of an input's rows, one beside the other.
static void gather(const struct em_fft_conv_group *g, const ember_tensor *x, size_t start,
                   size_t count, float *rows)
{
    for (size_t t = 0; t < count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            rows[t * EM_FC_LANES + lane] = em_row(x, start + t)[partner(g, lane)];
}

// What goes in at tokens [start, start + count) of the batch. `own`: room for gathered rows.
static struct em_fft_rows batch_rows(const struct em_fft_conv_group *g, size_t start, size_t count,
                                     float *own)
{
    const ember_tensor *u = g->f->call->in[EM_FC_U], *pre = g->f->call->in[EM_FC_PRE];
    struct em_fft_rows r = {.count = count, .lanes = g->lanes};
    if (g->f->d > 1) {
        gather(g, u, start, count, own);
        r.x = own, r.stride = EM_FC_LANES;
    } else {
        r.x = em_row(u, start) + g->channel, r.stride = u->stride[0];
    }
    if (pre) r.gate = em_row(pre, start) + g->channel, r.gate_stride = pre->stride[0];
    return r;
}

void em_fft_conv_signal(const struct em_fft_conv_group *g, size_t s, size_t seen, size_t begin,
                        size_t end, float *rows)
{
    const struct em_fft_conv *f = g->f;
    const size_t start = f->call->exec->batch->offset[s], block = f->attr.block;
    const struct em_slot *in = seen ? em_slot_in(f->call, s) : NULL;
    for (; begin < end && begin < seen; begin++, rows += EM_FC_LANES) {
        const float *row = in->tokens + begin % block * em_fft_conv_row(f);
        for (size_t lane = 0; lane < g->lanes; lane++) {
            const size_t c = g->channel + lane;
            rows[lane] = f->d > 1 ? row[partner(g, lane)] * row[f->D + c] : row[c];
        }
    }
    if (begin == end) return;
    const struct em_fft_rows r = batch_rows(g, start + begin - seen, end - begin, rows);
    for (size_t t = 0; t < r.count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            rows[t * EM_FC_LANES + lane] =
                r.x[t * r.stride + lane] * (r.gate ? r.gate[t * r.gate_stride + lane] : 1);
}

// Inputs [begin, end), counted from the first one that the plan has, as values 0 .. of `work`.
static void read_inputs(const struct em_fft_conv_group *g, size_t s,
                        const struct em_fft_conv_plan *p, size_t begin, size_t end, float *work)
{
    const size_t start = g->f->call->exec->batch->offset[s];
    if (!p->past) {
        const struct em_fft_rows r = batch_rows(g, start + begin, end - begin, g->scratch->signal);
        em_kernels()->fft_read_f32(work, p->N, 0, &r);
        return;
    }
    const size_t seen = em_fft_conv_seen(g->f, s), first = seen - p->past;
    em_fft_conv_signal(g, s, seen, first + begin, first + end, g->scratch->signal);
    em_kernels()->fft_read_f32(work, p->N, 0,
                               &(struct em_fft_rows){.x = g->scratch->signal,
                                                     .stride = EM_FC_LANES,
                                                     .count = end - begin,
                                                     .lanes = g->lanes});
}

// ---- segments ----

struct segment {
    size_t H, A, F; // inputs before the outputs, outputs, inputs after them
    size_t input;   // the first input
};

// Segment with outputs from token t on.
static struct segment segment_at(const struct em_fft_conv_plan *p, size_t t)
{
    struct segment s = {.A = smaller(p->A, p->T - t)};
    s.H = smaller(p->past + t, p->before - 1);
    s.F = p->late ? smaller(p->T - t - s.A, p->late - 1) : 0;
    if (p->A == p->T) s.H = p->past;
    s.input = p->past + t - s.H;
    return s;
}

static void convolve(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                     const float *spectrum, float *rows)
{
    for (size_t t = 0; t < p->T; t += p->A) {
        const struct segment q = segment_at(p, t);
        read_inputs(g, s, p, q.input, q.input + q.H + q.A + q.F, g->scratch->work);
        em_kernels()->fft_convolve_f32(g->scratch->work, spectrum, p->N);
        em_kernels()->fft_take_f32(rows + t * EM_FC_LANES, g->scratch->work, p->N, q.H, q.A, false);
    }
}

static size_t tokens_of(const struct em_call *c, size_t s)
{
    return c->exec->batch->offset[s + 1] - c->exec->batch->offset[s];
}

void em_fft_conv_whole(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct em_fft_conv_plan p = em_fft_conv_plan_of(g->f, 0, tokens_of(g->f->call, s));
    em_fft_conv_plan_spectrum(g, &p, g->scratch->spectrum);
    convolve(g, s, &p, g->scratch->spectrum, rows);
}

// ---- forward ----

static void lane_values(const struct em_fft_conv_group *g, size_t s, float *mask, float *skip)
{
    const ember_tensor *t = g->f->call->in[EM_FC_SKIP];
    for (size_t lane = 0; lane < EM_FC_LANES; lane++) {
        const bool there = lane < g->lanes;
        mask[lane] = there ? em_fft_conv_mask(g->f, s, g->channel + lane) : 0;
        skip[lane] = there && t ? em_f32(t)[em_fft_conv_head(g, lane)] : 0;
    }
}

// The rows of post_gate that go with the group's, gathered where they have to be.
static const float *post_rows(const struct em_fft_conv_group *g, size_t start, size_t count,
                              float *own, size_t *stride)
{
    const ember_tensor *post = g->f->call->in[EM_FC_POST];
    if (!post) return NULL;
    if (g->f->d == 1) {
        *stride = post->stride[0];
        return em_row(post, start) + g->channel;
    }
    gather(g, post, start, count, own);
    *stride = EM_FC_LANES;
    return own;
}

// Rows that are gathered or filtered at once, beside what came out of the transforms.
enum { STRETCH = 256 };

static void finish(const struct em_fft_conv_group *g, size_t s, const float *rows)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *y = c->out[0], *z = c->saved[0];
    const size_t start = c->exec->batch->offset[s], T = tokens_of(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], u[STRETCH * EM_FC_LANES],
        post[STRETCH * EM_FC_LANES];
    lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += STRETCH) {
        const size_t n = smaller(STRETCH, T - t), at = start + t;
        struct em_fft_finish f = {.v = batch_rows(g, at, n, u),
                                  .conv = rows + t * EM_FC_LANES,
                                  .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                  .mask = mask,
                                  .y = em_row(y, at) + g->channel,
                                  .y_stride = y->stride[0],
                                  .gelu = g->f->attr.gelu,
                                  .add = g->i > 0};
        f.post = post_rows(g, at, n, post, &f.post_stride);
        if (z) {
            f.z = em_f32(z) + at * z->stride[0] + g->i * g->f->D + g->channel;
            f.z_stride = z->stride[0];
        }
        em_kernels()->fft_finish_f32(&f);
    }
}

// ---- units: whole heads that a thread takes ----

struct work {
    struct em_fft_conv f;
    struct em_fft_conv_scratch *scratch;
    struct em_fft_conv_kept kept;
};

typedef void group_task(const struct em_fft_conv_group *g);

static void over_groups(const struct work *w, size_t unit, unsigned thread, group_task *task)
{
    const size_t each = unit_channels(&w->f), stop = smaller((unit + 1) * each, w->f.D);
    for (size_t c = unit * each; c < stop; c += EM_FC_LANES)
        for (size_t i = 0; i < w->f.d; i++)
            task(&(struct em_fft_conv_group){.f = &w->f,
                                             .scratch = &w->scratch[thread],
                                             .channel = c,
                                             .lanes = smaller(EM_FC_LANES, stop - c),
                                             .i = i,
                                             .kept = w->kept.spectra ? &w->kept : NULL});
}

static void keep_unit(const struct work *w, size_t unit)
{
    const size_t each = unit_channels(&w->f), stop = smaller((unit + 1) * each, w->f.D);
    for (size_t c = unit * each; c < stop; c += EM_FC_LANES)
        em_fft_conv_keep(&(struct em_fft_conv_group){
            .f = &w->f, .channel = c, .lanes = smaller(EM_FC_LANES, stop - c)});
}

bool em_fft_conv_fused(const struct em_fft_conv *f, const struct em_fft_conv_plan *p)
{
    return f->d == 1 && p->A == p->T && !p->past && p->T <= p->N && p->N >= EM_FC_LANES;
}

// Reads u and the gate, writes y: the rows of no step between them are kept.
static void forward_fused(const struct em_fft_conv_group *g, size_t s,
                          const struct em_fft_conv_plan *p, const float *spectrum)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *y = c->out[0], *z = c->saved[0];
    const size_t start = c->exec->batch->offset[s];
    float mask[EM_FC_LANES], skip[EM_FC_LANES];
    lane_values(g, s, mask, skip);
    const struct em_fft_rows rows = batch_rows(g, start, p->T, NULL);
    struct em_fft_finish finish = {.v = rows,
                                   .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                   .mask = mask,
                                   .y = em_row(y, start) + g->channel,
                                   .y_stride = y->stride[0],
                                   .gelu = g->f->attr.gelu};
    finish.post = post_rows(g, start, p->T, NULL, &finish.post_stride);
    if (z) {
        finish.z = em_f32(z) + start * z->stride[0] + g->channel;
        finish.z_stride = z->stride[0];
    }
    const struct em_fft_conv_transform t = {
        .call = c,
        .N = p->N,
        .parts = {.work = EM_FFT_CONVOLVE, .x = g->scratch->work, .k = spectrum},
        .rows = &rows,
        .finish = &finish};
    for (enum em_fft_conv_step step = EM_FC_ENTER; step <= EM_FC_LEAVE; step++)
        em_fft_conv_run(&t, step);
}

// The spectrum for a plan: kept, or made where the group had another one before. *ready: whose is
// in the scratch.
static const float *spectrum_for(const struct em_fft_conv_group *g,
                                 const struct em_fft_conv_plan *p, struct em_fft_conv_plan *ready,
                                 bool *filled)
{
    if (g->kept && memcmp(p, &g->kept->plan, sizeof *p) == 0) {
        float *kept = g->kept->spectra + g->channel / EM_FC_LANES * g->kept->each;
        if (g->kept->fill && !*filled) em_fft_conv_plan_spectrum(g, p, kept);
        *filled = true;
        return kept;
    }
    if (memcmp(p, ready, sizeof *p) != 0) em_fft_conv_plan_spectrum(g, p, g->scratch->spectrum);
    *ready = *p;
    return g->scratch->spectrum;
}

static void forward_group(const struct em_fft_conv_group *g)
{
    const struct em_call *c = g->f->call;
    struct em_fft_conv_plan ready = {0};
    bool filled = false;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        float *rows = g->scratch->rows;
        const bool state = c->slot >= 0 && (em_slot_in(c, s) || em_slot_out(c, s));
        if (state || g->f->attr.exact) {
            em_fft_conv_stream(g, s, rows);
            finish(g, s, rows);
            ready = (struct em_fft_conv_plan){0};
            continue;
        }
        const struct em_fft_conv_plan p = em_fft_conv_plan_of(g->f, 0, tokens_of(c, s));
        const float *spectrum = spectrum_for(g, &p, &ready, &filled);
        if (em_fft_conv_fused(g->f, &p)) {
            forward_fused(g, s, &p, spectrum);
        } else {
            convolve(g, s, &p, spectrum, rows);
            finish(g, s, rows);
        }
    }
}

static void forward_units(void *arg, size_t begin, size_t end, unsigned thread)
{
    for (size_t unit = begin; unit < end; unit++) {
        over_groups(arg, unit, thread, forward_group);
        keep_unit(arg, unit);
    }
}

static bool has_states(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    return c->slot >= 0 && (b->state_in || b->state_out);
}

// Which spectra out[1] has, or is about to get: those of the first sequence's plan.
static struct em_fft_conv_kept kept_spectra(const struct em_fft_conv *f)
{
    const struct em_call *c = f->call;
    struct em_fft_conv_kept k = {.each = c->n_out > 1 ? c->out[1]->dim[1] : 0};
    if (!k.each) return k;
    k.plan = em_fft_conv_plan_of(f, 0, tokens_of(c, 0));
    if (em_fft_floats(k.plan.N) > k.each) return k;
    const uint64_t version = em_weights_version(c);
    const struct em_fft_conv_plan *p = &k.plan;
    const size_t marks[EM_FC_MARKS] = {version, version >> 31, p->N,      p->A,
                                       p->past, p->T,          p->before, p->late};
    int32_t *mark = em_i32(c->out[2]);
    for (size_t i = 0; i < EM_FC_MARKS; i++) {
        const int32_t now = (int32_t)(marks[i] & 0x7fffffff);
        k.fill = k.fill || mark[i] != now;
        mark[i] = now;
    }
    k.spectra = em_f32(c->out[1]);
    return k;
}

// Units side by side; or, where they are fewer than threads, one after the other, each with all of
// them.
static void run_units(const struct em_call *c, em_task *task, bool forward)
{
    struct work w = {.f = em_fft_conv_of(c)};
    const size_t units = units_of(&w.f);
    if (!c->out[0]->dim[0]) return;
    w.scratch = take_scratch(c);
    if (forward && !has_states(c)) w.kept = kept_spectra(&w.f);
    if (units < em_pool_threads(c->exec->pool))
        task(&w, 0, units, 0);
    else
        em_parallel(c->exec->pool, units, 1, task, &w);
}

void em_fft_conv_cpu_forward(const struct em_call *c)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    const ember_batch *b = c->exec->batch;
    run_units(c, forward_units, true);
    for (size_t s = 0; c->slot >= 0 && s < b->n_sequences; s++) {
        struct em_slot *out = em_slot_out(c, s);
        const size_t now = em_fft_conv_seen(&f, s) + tokens_of(c, s);
        if (out) out->length = smaller(now, f.attr.block);
    }
}

// ---- backward ----

// The group's channels of a gradient that partners share: sums over the lanes of a head.
static void add_partners(const struct em_fft_conv_group *g, const ember_tensor *d, size_t start,
                         size_t count, const float *rows)
{
    for (size_t t = 0; t < count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            em_row(d, start + t)[partner(g, lane)] += rows[t * EM_FC_LANES + lane];
}

static ember_tensor *wanted(const struct em_call *c, unsigned i)
{
    return em_wants(c, i) ? c->in[i]->grad : NULL;
}

// dz of a sequence into rows, and post_gate's gradient.
static void begin_backward(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *dy = c->out[0]->grad, *z = c->saved[0], *d = wanted(c, EM_FC_POST);
    const size_t start = c->exec->batch->offset[s], T = tokens_of(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], post[STRETCH * EM_FC_LANES],
        dpost[STRETCH * EM_FC_LANES];
    lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += STRETCH) {
        const size_t n = smaller(STRETCH, T - t), at = start + t;
        struct em_fft_gradient q = {.v = {.count = n, .lanes = g->lanes},
                                    .dy = em_row(dy, at) + g->channel,
                                    .dy_stride = dy->stride[0],
                                    .mask = mask,
                                    .dz = rows + t * EM_FC_LANES,
                                    .gelu = g->f->attr.gelu};
        q.post = post_rows(g, at, n, post, &q.post_stride);
        if (z) {
            q.z = em_f32(z) + at * z->stride[0] + g->i * g->f->D + g->channel;
            q.z_stride = z->stride[0];
        }
        if (d && g->f->d == 1) {
            q.dpost = em_row(d, at) + g->channel, q.dpost_stride = d->stride[0];
        } else if (d) {
            memset(dpost, 0, sizeof dpost);
            q.dpost = dpost, q.dpost_stride = EM_FC_LANES;
        }
        em_kernels()->fft_begin_backward_f32(&q);
        if (d && g->f->d > 1) add_partners(g, d, at, n, dpost);
    }
}

static void end_backward(const struct em_fft_conv_group *g, size_t s, float *dz, const float *dv)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *du = wanted(c, EM_FC_U), *dpre = wanted(c, EM_FC_PRE),
                       *dskip = wanted(c, EM_FC_SKIP);
    const size_t start = c->exec->batch->offset[s], T = tokens_of(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], u[STRETCH * EM_FC_LANES], dx[STRETCH * EM_FC_LANES],
        sum[EM_FC_LANES] = {0};
    lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += STRETCH) {
        const size_t n = smaller(STRETCH, T - t), at = start + t;
        struct em_fft_gradient q = {.v = batch_rows(g, at, n, u),
                                    .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                    .dz = dz + t * EM_FC_LANES,
                                    .dv = dv + t * EM_FC_LANES,
                                    .dskip = dskip ? sum : NULL};
        if (dpre) q.dgate = em_row(dpre, at) + g->channel, q.dgate_stride = dpre->stride[0];
        if (du && g->f->d == 1) {
            q.dx = em_row(du, at) + g->channel, q.dx_stride = du->stride[0];
        } else if (du) {
            memset(dx, 0, sizeof dx);
            q.dx = dx, q.dx_stride = EM_FC_LANES;
        }
        em_kernels()->fft_end_backward_f32(&q);
        if (du && g->f->d > 1) add_partners(g, du, at, n, dx);
    }
    for (size_t lane = 0; dskip && lane < g->lanes; lane++)
        em_f32(dskip)[em_fft_conv_head(g, lane)] += sum[lane];
}

// dv of a sequence, and its part of the kernel's spectrum's gradient.
static void correlate(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                      const float *dz, float *dv, bool taps)
{
    struct em_fft_conv_scratch *x = g->scratch;
    memset(dv, 0, (p->past + p->T) * EM_FC_LANES * sizeof *dv);
    for (size_t t = 0; t < p->T; t += p->A) {
        const struct segment q = segment_at(p, t);
        const size_t inputs = q.H + q.A + q.F;
        if (taps) read_inputs(g, s, p, q.input, q.input + inputs, x->other);
        em_kernels()->fft_read_f32(x->work, p->N, q.H,
                                   &(struct em_fft_rows){.x = dz + t * EM_FC_LANES,
                                                         .stride = EM_FC_LANES,
                                                         .count = q.A,
                                                         .lanes = EM_FC_LANES});
        em_kernels()->fft_correlate_f32(x->work, x->other, x->spectrum, taps ? x->gradient : NULL,
                                        p->N);
        em_kernels()->fft_take_f32(dv + q.input * EM_FC_LANES, x->work, p->N, 0, inputs, true);
    }
}

// All of a sequence that is transformed at once; gradients that hold nothing yet are set.
static void backward_fused(const struct em_fft_conv_group *g, size_t s,
                           const struct em_fft_conv_plan *p, bool taps)
{
    const struct em_call *c = g->f->call;
    struct em_fft_conv_scratch *x = g->scratch;
    const ember_tensor *dy = c->out[0]->grad, *z = c->saved[0], *dpost = wanted(c, EM_FC_POST),
                       *du = wanted(c, EM_FC_U), *dpre = wanted(c, EM_FC_PRE),
                       *dskip = wanted(c, EM_FC_SKIP);
    const size_t start = c->exec->batch->offset[s];
    float mask[EM_FC_LANES], skip[EM_FC_LANES], sums[(EM_FC_PIECES + 1) * EM_FC_LANES] = {0};
    lane_values(g, s, mask, skip);
    struct em_fft_gradient q = {.v = batch_rows(g, start, p->T, NULL),
                                .dy = em_row(dy, start) + g->channel,
                                .dy_stride = dy->stride[0],
                                .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                .mask = mask,
                                .gelu = g->f->attr.gelu,
                                .set_post = em_fresh(c, EM_FC_POST),
                                .set_x = em_fresh(c, EM_FC_U),
                                .set_gate = em_fresh(c, EM_FC_PRE)};
    // One tensor in several places: the first step that gets to it sets it.
    if (c->in[EM_FC_POST] && c->in[EM_FC_POST] == c->in[EM_FC_PRE])
        q.set_post = q.set_post || q.set_gate, q.set_gate = false;
    if (c->in[EM_FC_POST] == c->in[EM_FC_U]) q.set_post = q.set_post || q.set_x, q.set_x = false;
    q.post = post_rows(g, start, p->T, NULL, &q.post_stride);
    if (z) {
        q.z = em_f32(z) + start * z->stride[0] + g->channel;
        q.z_stride = z->stride[0];
    }
    if (dpost) q.dpost = em_row(dpost, start) + g->channel, q.dpost_stride = dpost->stride[0];
    if (du) q.dx = em_row(du, start) + g->channel, q.dx_stride = du->stride[0];
    if (dpre) q.dgate = em_row(dpre, start) + g->channel, q.dgate_stride = dpre->stride[0];
    const struct em_fft_conv_transform signal = {
        .call = c, .N = p->N, .parts = {.x = x->other}, .rows = &q.v};
    const struct em_fft_conv_transform t = {
        .call = c,
        .N = p->N,
        .parts = {.work = taps ? EM_FFT_GRADIENTS : EM_FFT_CORRELATE,
                  .x = x->work,
                  .other = x->other,
                  .dk = x->gradient,
                  .k = x->spectrum},
        .gradient = &q,
        .dskip = dskip ? sums : NULL};
    if (taps) em_fft_conv_run(&signal, EM_FC_ENTER);
    for (enum em_fft_conv_step step = EM_FC_ENTER; step <= EM_FC_LEAVE; step++)
        em_fft_conv_run(&t, step);
    for (size_t piece = 0; dskip && piece <= EM_FC_PIECES; piece++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            em_f32(dskip)[g->channel + lane] += sums[piece * EM_FC_LANES + lane];
}

static void backward_group(const struct em_fft_conv_group *g)
{
    const struct em_call *c = g->f->call;
    const bool taps = em_wants(c, EM_FC_K) || em_wants(c, EM_FC_K_REV);
    struct em_fft_conv_scratch *x = g->scratch;
    struct em_fft_conv_plan ready = {0}; // whose spectrum is there, and whose gradient is summed
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const size_t seen = em_fft_conv_seen(g->f, s);
        const struct em_fft_conv_plan p =
            em_fft_conv_plan_of(g->f, smaller(seen, g->f->taps - 1), tokens_of(c, s));
        if (memcmp(&p, &ready, sizeof p) != 0) {
            if (ready.N && taps) em_fft_conv_spectrum_gradient(g, &ready, x->gradient);
            em_fft_conv_plan_spectrum(g, &p, x->spectrum);
            if (taps) em_fft_conv_clear(x->gradient, p.N);
            ready = p;
        }
        if (em_fft_conv_fused(g->f, &p)) {
            backward_fused(g, s, &p, taps);
        } else {
            begin_backward(g, s, x->rows);
            correlate(g, s, &p, x->rows, x->more, taps);
            end_backward(g, s, x->rows, x->more + p.past * EM_FC_LANES);
        }
    }
    if (taps) em_fft_conv_spectrum_gradient(g, &ready, x->gradient);
}

static void backward_units(void *arg, size_t begin, size_t end, unsigned thread)
{
    for (size_t unit = begin; unit < end; unit++)
        over_groups(arg, unit, thread, backward_group);
}

// Zeros where what adds will find garbage: in all that is not a row per token, and in the rows of
// sequences that are not transformed at once.
static void zero_rows(const struct em_call *c, const struct em_fft_conv *f, unsigned i)
{
    if (!em_wants(c, i) || !em_fresh(c, i)) return;
    const struct em_strip d = em_strip_of(c->in[i]->grad);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_fft_conv_plan p =
            em_fft_conv_plan_of(f, smaller(em_fft_conv_seen(f, s), f->taps - 1), tokens_of(c, s));
        const size_t *offset = c->exec->batch->offset;
        for (size_t t = offset[s]; !em_fft_conv_fused(f, &p) && t < offset[s + 1]; t++)
            memset(em_strip_row(&d, t), 0, d.width * sizeof *d.data);
    }
}

void em_fft_conv_cpu_backward(const struct em_call *c)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    static const unsigned rows[] = {EM_FC_U, EM_FC_PRE, EM_FC_POST},
                          others[] = {EM_FC_K, EM_FC_K_REV, EM_FC_SKIP};
    for (size_t i = 0; i < 3; i++) {
        zero_rows(c, &f, rows[i]);
        em_zero_fresh(c, others[i]);
    }
    run_units(c, backward_units, false);
}
