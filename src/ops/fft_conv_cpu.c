// The long convolution by transforms: groups of up to EM_FC_LANES neighbouring channels at a time.
//
// A sequence is taken whole, or, where the kernel is much shorter, in segments of A tokens: from
// the H = lags - 1 inputs before them to the F inputs after them that reach them. Of what comes
// round in a segment nothing reaches the A places that are taken, nor the lags that have taps.
#include "ops/fft_conv_rows.h"

#include "base/sizes.h"

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
        z.N = em_max_size(z.N, em_min_size(block, EM_FC_LARGEST));
        z.rows = em_max_size(z.rows, em_min_size(2 * block, EM_FC_LARGEST));
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

static void convolve(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                     const float *spectrum, float *rows)
{
    for (size_t t = 0; t < p->T; t += p->A) {
        const struct em_fft_conv_segment q = em_fft_conv_segment_at(p, t);
        em_fft_conv_read(g, s, p, q.input, q.input + q.H + q.A + q.F, g->scratch->work);
        em_kernels()->fft_convolve_f32(g->scratch->work, spectrum, p->N);
        em_kernels()->fft_take_f32(rows + t * EM_FC_LANES, g->scratch->work, p->N, q.H, q.A, false);
    }
}

void em_fft_conv_whole(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct em_fft_conv_plan p =
        em_fft_conv_plan_of(g->f, 0, em_fft_conv_tokens(g->f->call, s));
    em_fft_conv_plan_spectrum(g, &p, g->scratch->spectrum);
    convolve(g, s, &p, g->scratch->spectrum, rows);
}

// ---- forward ----

static void finish(const struct em_fft_conv_group *g, size_t s, const float *rows)
{
    const struct em_call *c = g->f->call;
    const ember_tensor *y = c->out[0], *z = c->saved[0];
    const size_t start = c->exec->batch->offset[s], T = em_fft_conv_tokens(c, s);
    float mask[EM_FC_LANES], skip[EM_FC_LANES], u[EM_FC_STRETCH * EM_FC_LANES],
        post[EM_FC_STRETCH * EM_FC_LANES];
    em_fft_conv_lane_values(g, s, mask, skip);
    for (size_t t = 0; t < T; t += EM_FC_STRETCH) {
        const size_t n = em_min_size(EM_FC_STRETCH, T - t), at = start + t;
        struct em_fft_finish f = {.v = em_fft_conv_batch_rows(g, at, n, u),
                                  .conv = rows + t * EM_FC_LANES,
                                  .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                  .mask = mask,
                                  .y = em_row(y, at) + g->channel,
                                  .y_stride = y->stride[0],
                                  .gelu = g->f->attr.gelu,
                                  .add = g->i > 0};
        f.post = em_fft_conv_post_rows(g, at, n, post, &f.post_stride);
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
    em_fft_conv_task *task;
    bool forward;
};

static void over_groups(const struct work *w, size_t unit, unsigned thread)
{
    const size_t each = unit_channels(&w->f), stop = em_min_size((unit + 1) * each, w->f.D);
    for (size_t c = unit * each; c < stop; c += EM_FC_LANES)
        for (size_t i = 0; i < w->f.d; i++)
            w->task(&(struct em_fft_conv_group){.f = &w->f,
                                                .scratch = &w->scratch[thread],
                                                .channel = c,
                                                .lanes = em_min_size(EM_FC_LANES, stop - c),
                                                .i = i,
                                                .kept = w->kept.spectra ? &w->kept : NULL});
}

static void keep_unit(const struct work *w, size_t unit)
{
    const size_t each = unit_channels(&w->f), stop = em_min_size((unit + 1) * each, w->f.D);
    for (size_t c = unit * each; c < stop; c += EM_FC_LANES)
        em_fft_conv_keep(&(struct em_fft_conv_group){
            .f = &w->f, .channel = c, .lanes = em_min_size(EM_FC_LANES, stop - c)});
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
    em_fft_conv_lane_values(g, s, mask, skip);
    const struct em_fft_rows rows = em_fft_conv_batch_rows(g, start, p->T, NULL);
    struct em_fft_finish finish = {.v = rows,
                                   .skip = c->in[EM_FC_SKIP] ? skip : NULL,
                                   .mask = mask,
                                   .y = em_row(y, start) + g->channel,
                                   .y_stride = y->stride[0],
                                   .gelu = g->f->attr.gelu};
    finish.post = em_fft_conv_post_rows(g, start, p->T, NULL, &finish.post_stride);
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
        const struct em_fft_conv_plan p = em_fft_conv_plan_of(g->f, 0, em_fft_conv_tokens(c, s));
        const float *spectrum = spectrum_for(g, &p, &ready, &filled);
        if (em_fft_conv_fused(g->f, &p)) {
            forward_fused(g, s, &p, spectrum);
        } else {
            convolve(g, s, &p, spectrum, rows);
            finish(g, s, rows);
        }
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
    k.plan = em_fft_conv_plan_of(f, 0, em_fft_conv_tokens(c, 0));
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

static void units(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    for (size_t unit = begin; unit < end; unit++) {
        over_groups(w, unit, thread);
        if (w->forward) keep_unit(w, unit);
    }
}

void em_fft_conv_each_group(const struct em_call *c, em_fft_conv_task *task, bool forward)
{
    struct work w = {.f = em_fft_conv_of(c), .task = task, .forward = forward};
    const size_t n = units_of(&w.f);
    if (!c->out[0]->dim[0]) return;
    w.scratch = take_scratch(c);
    if (forward && !has_states(c)) w.kept = kept_spectra(&w.f);
    if (n < em_pool_threads(c->exec->pool))
        units(&w, 0, n, 0);
    else
        em_parallel(c->exec->pool, n, 1, units, &w);
}

void em_fft_conv_cpu_forward(const struct em_call *c)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    const ember_batch *b = c->exec->batch;
    em_fft_conv_each_group(c, forward_group, true);
    for (size_t s = 0; c->slot >= 0 && s < b->n_sequences; s++) {
        struct em_slot *out = em_slot_out(c, s);
        const size_t now = em_fft_conv_seen(&f, s) + em_fft_conv_tokens(c, s);
        if (out) out->length = em_min_size(now, f.attr.block);
    }
}
