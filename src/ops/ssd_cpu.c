// Mamba-2's scan by chunks of products (ops/ssd.c says which), heads of a group shared out to
// threads.
#include "ops/ssd.h"

#include <assert.h>
#include <math.h>

#include "base/sizes.h"
#include "kernels/kernels.h"
#include "ops/matmul.h"

enum { X = EM_SSD_X, DT, A_LOG, B, C, D, DT_BIAS };
// Below FEW tokens the recurrence itself costs less than the products. The heads of a group are
// shared out in at most SPANS parts, whose dB and dC are summed in the end.
enum { CHUNK = EM_SSD_CHUNK, FEW = 8, SPANS = 4 };

// ---- memory of one thread ----

struct room {
    float *u, *du, *dx, *tmp;    // [C, P], the last [C, max(N, P)]
    float *cb, *w, *dw, *M;      // [C, C]
    float *t, *scaled;           // [C, N]
    float *h, *dh;               // [heads of a span][N, P]; [N, P]
    float *starts;               // [chunks][N, P]
    double *L, *dL, *dt, *slope; // [C]
    float *rise, *fall;          // [C]: exp(L_i), exp(L_n - L_i)
    struct em_gemm_scratch gemm;
};

static size_t spans_of(const struct em_ssd *a)
{
    const size_t per = a->H / a->G;
    return per < SPANS ? per : SPANS;
}

static size_t gemm_bytes(const struct em_ssd *a)
{
    const size_t most = em_max_size(CHUNK, em_max_size(a->N, a->P));
    const size_t bytes = em_gemm_unpacked_scratch_size(EM_GEMM_F32, most, most, 1);
    return em_ceil_div(bytes, EM_SCRATCH_ALIGNMENT) * EM_SCRATCH_ALIGNMENT;
}

static ember_status room_size(const struct em_call *c, const struct em_ssd *a, bool gradients,
                              size_t T, size_t *bytes)
{
    size_t states;
    EM_TRY(em_add_matmul_scratch(c, gemm_bytes(a), bytes));
    EM_TRY(em_add_scratch(c, 10 + 4 * CHUNK, CHUNK, bytes)); // vectors, of which four are double
    EM_TRY(em_add_scratch(c, 3 * CHUNK, a->P, bytes));
    EM_TRY(em_add_scratch(c, CHUNK, em_max_size(a->N, a->P), bytes));
    EM_TRY(em_add_scratch(c, 2 * CHUNK, a->N, bytes));
    if (!em_mul_size(gradients ? em_ceil_div(T, CHUNK) + 2 : em_ceil_div(a->H / a->G, spans_of(a)),
                     a->N, &states))
        states = SIZE_MAX;
    return em_add_scratch(c, states, a->P, bytes);
}

ember_status em_ssd_cpu_scratch(const struct em_call *c, const struct em_ssd *a, size_t *bytes)
{
    const size_t T = c->in[X]->dim[0];
    size_t n;
    EM_TRY(room_size(c, a, em_is_training(c), T, bytes));
    if (!em_mul_size(*bytes, em_call_threads(c), bytes))
        return em_fail(EMBER_E_NOMEM, "ssd: scratch does not fit into memory");
    if (!em_is_training(c)) return EMBER_OK;
    const size_t S = em_flow_options(em_program_flow(c->program))->max_sequences;
    if (!em_mul_size(2 * a->G * spans_of(a), a->N, &n)) n = SIZE_MAX;
    EM_TRY(em_add_scratch(c, T, n, bytes));
    return em_add_scratch(c, S, 3 * a->H, bytes);
}

static float *take(float **at, size_t n)
{
    float *p = *at;
    *at += n;
    return p;
}

static struct room room_of(const struct em_ssd *a, float *at, bool gradients)
{
    struct room r = {.gemm = {at, gemm_bytes(a)}};
    at += gemm_bytes(a) / sizeof(float);
    r.L = (double *)(void *)take(&at, 2 * CHUNK);
    r.dL = (double *)(void *)take(&at, 2 * CHUNK);
    r.dt = (double *)(void *)take(&at, 2 * CHUNK);
    r.slope = (double *)(void *)take(&at, 2 * CHUNK);
    r.rise = take(&at, CHUNK);
    r.fall = take(&at, CHUNK);
    r.cb = take(&at, CHUNK * CHUNK);
    r.w = take(&at, CHUNK * CHUNK);
    r.dw = take(&at, CHUNK * CHUNK);
    r.M = take(&at, CHUNK * CHUNK);
    r.u = take(&at, CHUNK * a->P);
    r.du = take(&at, CHUNK * a->P);
    r.dx = take(&at, CHUNK * a->P);
    r.tmp = take(&at, CHUNK * em_max_size(a->N, a->P));
    r.t = take(&at, CHUNK * a->N);
    r.scaled = take(&at, CHUNK * a->N);
    r.h = at;
    if (gradients) {
        r.dh = take(&at, a->N * a->P);
        r.starts = at;
    }
    return r;
}

// ---- one chunk ----

struct work {
    const struct em_call *c;
    const struct em_ssd *a;
    float *memory;
    size_t floats, spans; // of a thread; of a group
    bool gradients;
    float *db, *dc;    // [groups * spans][T, N]
    float *parameters; // [sequences][3][H]: dA, dD, ddt_bias
};

// Tokens [at, at + n) of the batch, which are of one sequence.
struct chunk {
    size_t at, n, s, g, span;
};

// Heads [begin, end) of a span.
static size_t head_at(const struct work *w, size_t g, size_t span)
{
    const size_t per = w->a->H / w->a->G;
    return g * per + per * span / w->spans;
}

static const float *row_of(const struct work *w, unsigned input, const struct chunk *k, size_t i)
{
    return em_row(w->c->in[input], k->at + i);
}

static struct em_matrix states_of(const struct work *w, unsigned input, const struct chunk *k,
                                  bool transposed)
{
    const struct em_strip s = em_strip_of(w->c->in[input]);
    const float *at = em_strip_row(&s, k->at) + k->g * w->a->N;
    return transposed ? em_matmul_columns(at, s.stride) : em_matmul_rows(at, s.stride);
}

static double rate(const struct work *w, size_t head)
{
    return -exp((double)em_f32(w->c->in[A_LOG])[head]);
}

// Steps, decays and u of a head in the chunk; M where it is wanted.
static void load(const struct work *w, const struct chunk *k, size_t head, struct room *r,
                 bool matrix)
{
    const float *bias = w->c->in[DT_BIAS] ? em_f32(w->c->in[DT_BIAS]) : NULL;
    const double A = rate(w, head);
    const size_t P = w->a->P;
    double sum = 0;
    for (size_t i = 0; i < k->n; i++) {
        const double x = (double)row_of(w, DT, k, i)[head] + (bias ? (double)bias[head] : 0);
        r->dt[i] = em_ssd_step(w->a, x, &r->slope[i]);
        r->L[i] = sum += r->dt[i] * A;
        em_kernels()->scale_f32(r->u + i * P, row_of(w, X, k, i) + head * P, (float)r->dt[i], P);
    }
    for (size_t i = 0; i < k->n; i++) {
        r->rise[i] = (float)r->L[i];
        r->fall[i] = (float)(sum - r->L[i]);
    }
    em_kernels()->exp_f32(r->rise, r->rise, k->n);
    em_kernels()->exp_f32(r->fall, r->fall, k->n);
    for (size_t i = 0; matrix && i < k->n; i++) {
        float *row = r->M + i * CHUNK;
        for (size_t j = 0; j <= i; j++)
            row[j] = (float)(r->L[i] - r->L[j]);
        em_kernels()->exp_f32(row, row, i + 1);
        memset(row + i + 1, 0, (CHUNK - 1 - i) * sizeof *row);
    }
}

static void product(struct room *r, size_t M, size_t N, size_t K, struct em_matrix a,
                    struct em_matrix b, float *c, size_t stride, bool add)
{
    em_gemm(EM_GEMM_F32, M, N, K, a, b, c, stride, &(struct em_gemm_epilogue){.accumulate = add},
            &r->gemm, NULL);
}

static void states_times_states(const struct work *w, const struct chunk *k, struct room *r)
{
    product(r, k->n, k->n, w->a->N, states_of(w, C, k, false), states_of(w, B, k, true), r->cb,
            CHUNK, false);
}

// Rows of B or C, each times a factor.
static void scale_states(const struct work *w, unsigned input, const struct chunk *k,
                         const float *factor, float *to)
{
    for (size_t i = 0; i < k->n; i++)
        em_kernels()->scale_f32(to + i * w->a->N, row_of(w, input, k, i) + k->g * w->a->N,
                                factor[i], w->a->N);
}

// h = exp(L_n) h + (exp(L_n - L) B)^T u.
static void advance(const struct work *w, const struct chunk *k, struct room *r, float *h)
{
    const size_t N = w->a->N, P = w->a->P;
    em_kernels()->scale_f32(h, h, r->rise[k->n - 1], N * P);
    scale_states(w, B, k, r->fall, r->scaled);
    product(r, N, P, k->n, em_matmul_columns(r->scaled, N), em_matmul_rows(r->u, P), h, P, true);
}

static void weigh(const struct chunk *k, struct room *r)
{
    for (size_t i = 0; i < k->n; i++)
        em_kernels()->mul_f32(r->w + i * CHUNK, r->cb + i * CHUNK, r->M + i * CHUNK, k->n);
}

static float skip_of(const struct work *w, size_t head)
{
    return w->c->in[D] ? em_f32(w->c->in[D])[head] : 0;
}

static void forward_chunk(const struct work *w, const struct chunk *k, size_t head, struct room *r,
                          float *h)
{
    const size_t N = w->a->N, P = w->a->P, n = k->n;
    const struct em_strip y = em_strip_of(w->c->out[0]);
    float *to = em_strip_row(&y, k->at) + head * P;
    load(w, k, head, r, true);
    weigh(k, r);
    for (size_t i = 0; i < n; i++)
        em_kernels()->scale_f32(to + i * y.stride, row_of(w, X, k, i) + head * P, skip_of(w, head),
                                P);
    product(r, n, P, n, em_matmul_rows(r->w, CHUNK), em_matmul_rows(r->u, P), to, y.stride, true);
    scale_states(w, C, k, r->rise, r->scaled);
    product(r, n, P, N, em_matmul_rows(r->scaled, N), em_matmul_rows(h, P), to, y.stride, true);
    advance(w, k, r, h);
}

// A few tokens: the recurrence as it stands.
static void forward_tokens(const struct work *w, const struct chunk *k, size_t head, struct room *r,
                           float *h)
{
    const size_t N = w->a->N, P = w->a->P;
    const double A = rate(w, head);
    load(w, k, head, r, false);
    for (size_t i = 0; i < k->n; i++) {
        float *y = em_row(w->c->out[0], k->at + i) + head * P;
        em_kernels()->scale_f32(y, row_of(w, X, k, i) + head * P, skip_of(w, head), P);
        em_kernels()->ssd_token_f32(h, y, r->u + i * P, row_of(w, B, k, i) + k->g * N,
                                    row_of(w, C, k, i) + k->g * N, expf((float)(r->dt[i] * A)), N,
                                    P);
    }
}

static void forward_span(const struct work *w, struct chunk *k, struct room *r)
{
    const size_t *offset = w->c->exec->batch->offset, size = w->a->N * w->a->P;
    const size_t T = offset[k->s + 1] - offset[k->s];
    const size_t begin = head_at(w, k->g, k->span), end = head_at(w, k->g, k->span + 1);
    const struct em_slot *in = em_slot_in(w->c, k->s);
    struct em_slot *out = em_slot_out(w->c, k->s);
    if (in)
        memcpy(r->h, in->fixed + begin * size, (end - begin) * size * sizeof *r->h);
    else
        memset(r->h, 0, (end - begin) * size * sizeof *r->h);
    for (size_t t = 0; t < T; t += k->n) {
        k->at = offset[k->s] + t;
        k->n = T - t < CHUNK ? T - t : CHUNK;
        if (k->n >= FEW) states_times_states(w, k, r);
        for (size_t head = begin; head < end; head++) {
            if (k->n < FEW)
                forward_tokens(w, k, head, r, r->h + (head - begin) * size);
            else
                forward_chunk(w, k, head, r, r->h + (head - begin) * size);
        }
    }
    if (out) memcpy(out->fixed + begin * size, r->h, (end - begin) * size * sizeof *r->h);
}

static void forward_spans(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    struct room r = room_of(w->a, w->memory + thread * w->floats, w->gradients);
    for (size_t i = begin; i < end; i++) {
        struct chunk k = {
            .s = i / (w->a->G * w->spans), .g = i / w->spans % w->a->G, .span = i % w->spans};
        forward_span(w, &k, &r);
    }
}

static struct work work_of(const struct em_call *c, bool gradients)
{
    struct work w = {.c = c, .a = em_attr_const(c, struct em_ssd), .gradients = gradients};
    size_t bytes = 0;
    // The shape rule asked for the same with the most tokens that there can be.
    const ember_status status = room_size(c, w.a, gradients, c->out[0]->dim[0], &bytes);
    assert(status == EMBER_OK);
    (void)status;
    w.floats = bytes / sizeof(float);
    w.spans = spans_of(w.a);
    w.memory = em_scratch_take(em_scratch_of(c), bytes * em_pool_threads(c->exec->pool));
    return w;
}

void em_ssd_cpu_forward(const struct em_call *c)
{
    struct work w = work_of(c, false);
    em_parallel(c->exec->pool, c->exec->batch->n_sequences * w.a->G * w.spans, 1, forward_spans,
                &w);
}

// ---- backward ----

static double dot(const float *a, const float *b, size_t n)
{
    return (double)em_kernels()->dot_f32(a, b, n);
}

// Through y = (C B^T . M) u: du, and what goes to B, C and L.
static void within_chunk(const struct work *w, const struct chunk *k, struct em_matrix dy,
                         struct room *r, float *db, float *dc)
{
    const size_t N = w->a->N, P = w->a->P, n = k->n;
    product(r, n, n, P, dy, em_matmul_columns(r->u, P), r->dw, CHUNK, false);
    product(r, n, P, n, em_matmul_columns(r->w, CHUNK), dy, r->du, P, false);
    for (size_t i = 0; i < n; i++) {
        float *row = r->dw + i * CHUNK;
        for (size_t j = 0; j < i; j++) { // on the diagonal M is 1
            const double moved = (double)row[j] * (double)r->w[i * CHUNK + j];
            r->dL[i] += moved;
            r->dL[j] -= moved;
        }
        em_kernels()->mul_f32(row, row, r->M + i * CHUNK, n);
    }
    product(r, n, N, n, em_matmul_rows(r->dw, CHUNK), states_of(w, B, k, false), dc, N, true);
    product(r, n, N, n, em_matmul_columns(r->dw, CHUNK), states_of(w, C, k, false), db, N, true);
}

// Through the state before the chunk and the one after it.
static void between_chunks(const struct work *w, const struct chunk *k, struct em_matrix dy,
                           const float *h, struct room *r, float *db, float *dc)
{
    const size_t N = w->a->N, P = w->a->P, n = k->n;
    product(r, n, N, P, dy, em_matmul_columns(h, P), r->t, N, false);
    for (size_t i = 0; i < n; i++) {
        em_kernels()->axpy_f32(dc + i * N, r->rise[i], r->t + i * N, N);
        r->dL[i] += (double)r->rise[i] * dot(r->t + i * N, row_of(w, C, k, i) + k->g * N, N);
    }
    product(r, n, N, P, em_matmul_rows(r->u, P), em_matmul_columns(r->dh, P), r->t, N, false);
    product(r, n, P, N, states_of(w, B, k, false), em_matmul_rows(r->dh, P), r->tmp, P, false);
    for (size_t i = 0; i < n; i++) {
        const double moved =
            (double)r->fall[i] * dot(r->t + i * N, row_of(w, B, k, i) + k->g * N, N);
        em_kernels()->axpy_f32(db + i * N, r->fall[i], r->t + i * N, N);
        em_kernels()->axpy_f32(r->du + i * P, r->fall[i], r->tmp + i * P, P);
        r->dL[i] -= moved;
        r->dL[n - 1] += moved;
    }
    r->dL[n - 1] += (double)r->rise[n - 1] * dot(r->dh, h, N * P);
    em_kernels()->scale_f32(r->dh, r->dh, r->rise[n - 1], N * P);
    scale_states(w, C, k, r->rise, r->scaled);
    product(r, N, P, n, em_matmul_columns(r->scaled, N), dy, r->dh, P, true);
}

static void put(float *to, const float *x, size_t n, bool set)
{
    if (set)
        memcpy(to, x, n * sizeof *to);
    else
        em_kernels()->add_f32(to, to, x, n);
}

// du and dL become the gradients of inputs and parameters.
static void end_chunk(const struct work *w, const struct chunk *k, size_t head, struct room *r)
{
    const struct em_call *c = w->c;
    const size_t P = w->a->P, H = w->a->H;
    const double A = rate(w, head);
    float *parameters = w->parameters + k->s * 3 * H + head;
    double dA = 0, dD = 0, dbias = 0, later = 0;
    for (size_t i = k->n; i-- > 0;) {
        const float *x = row_of(w, X, k, i) + head * P, *du = r->du + i * P;
        const float *dy = em_row(c->out[0]->grad, k->at + i) + head * P;
        later += r->dL[i];
        const double ddt = (A * later + dot(du, x, P)) * r->slope[i];
        dA += later * r->dt[i];
        dD += dot(dy, x, P);
        dbias += ddt;
        if (em_wants(c, DT)) {
            float *to = em_row(c->in[DT]->grad, k->at + i) + head;
            *to = em_fresh(c, DT) ? (float)ddt : *to + (float)ddt;
        }
        if (!em_wants(c, X)) continue;
        em_kernels()->scale_f32(r->dx, du, (float)r->dt[i], P);
        em_kernels()->axpy_f32(r->dx, skip_of(w, head), dy, P);
        put(em_row(c->in[X]->grad, k->at + i) + head * P, r->dx, P, em_fresh(c, X));
    }
    parameters[0] += (float)(dA * A);
    parameters[H] += (float)dD;
    parameters[2 * H] += (float)dbias;
}

static void head_backward(const struct work *w, struct chunk *k, size_t head, struct room *r)
{
    const size_t *offset = w->c->exec->batch->offset, N = w->a->N, size = N * w->a->P;
    const size_t T = offset[k->s + 1] - offset[k->s], chunks = em_ceil_div(T, CHUNK);
    const struct em_strip dys = em_strip_of(w->c->out[0]->grad);
    const size_t part = (k->g * w->spans + k->span) * w->c->out[0]->dim[0];
    const struct em_slot *in = em_slot_in(w->c, k->s);
    if (in)
        memcpy(r->starts, in->fixed + head * size, size * sizeof *r->starts);
    else
        memset(r->starts, 0, size * sizeof *r->starts);
    for (size_t i = 0; i + 1 < chunks; i++) {
        k->at = offset[k->s] + i * CHUNK;
        k->n = CHUNK;
        load(w, k, head, r, false);
        memcpy(r->starts + (i + 1) * size, r->starts + i * size, size * sizeof *r->starts);
        advance(w, k, r, r->starts + (i + 1) * size);
    }
    memset(r->dh, 0, size * sizeof *r->dh);
    for (size_t i = chunks; i-- > 0;) {
        k->at = offset[k->s] + i * CHUNK;
        k->n = T - i * CHUNK < CHUNK ? T - i * CHUNK : CHUNK;
        const struct em_matrix dy =
            em_matmul_rows(em_strip_row(&dys, k->at) + head * w->a->P, dys.stride);
        float *db = w->db + (part + k->at) * N, *dc = w->dc + (part + k->at) * N;
        load(w, k, head, r, true);
        states_times_states(w, k, r);
        weigh(k, r);
        memset(r->dL, 0, CHUNK * sizeof *r->dL);
        within_chunk(w, k, dy, r, db, dc);
        between_chunks(w, k, dy, r->starts + i * size, r, db, dc);
        end_chunk(w, k, head, r);
    }
}

static void backward_spans(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const size_t *offset = w->c->exec->batch->offset, N = w->a->N;
    struct room r = room_of(w->a, w->memory + thread * w->floats, true);
    for (size_t i = begin; i < end; i++) {
        struct chunk k = {
            .s = i / (w->a->G * w->spans), .g = i / w->spans % w->a->G, .span = i % w->spans};
        const size_t T = offset[k.s + 1] - offset[k.s];
        const size_t part = ((k.g * w->spans + k.span) * w->c->out[0]->dim[0] + offset[k.s]) * N;
        memset(w->db + part, 0, T * N * sizeof *w->db);
        memset(w->dc + part, 0, T * N * sizeof *w->dc);
        for (size_t head = head_at(w, k.g, k.span); head < head_at(w, k.g, k.span + 1); head++)
            head_backward(w, &k, head, &r);
    }
}

// The spans' parts of dB or dC, in order.
static void add_parts(const struct work *w, unsigned input, const float *parts, size_t t)
{
    const size_t N = w->a->N, T = w->c->out[0]->dim[0];
    for (size_t g = 0; em_wants(w->c, input) && g < w->a->G; g++) {
        float *row = em_row(w->c->in[input]->grad, t) + g * N;
        for (size_t j = 0; j < w->spans; j++)
            put(row, parts + ((g * w->spans + j) * T + t) * N, N, em_fresh(w->c, input) && !j);
    }
}

static void add_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    for (size_t t = begin; t < end; t++) {
        add_parts(w, B, w->db, t);
        add_parts(w, C, w->dc, t);
    }
}

void em_ssd_cpu_backward(const struct em_call *c)
{
    static const unsigned parameter[] = {A_LOG, D, DT_BIAS};
    struct work w = work_of(c, true);
    const size_t T = c->out[0]->dim[0], S = c->exec->batch->n_sequences, H = w.a->H;
    if (!T) return;
    w.db = em_take_floats(c, T, w.a->G * w.spans * w.a->N);
    w.dc = em_take_floats(c, T, w.a->G * w.spans * w.a->N);
    w.parameters = em_take_floats(c, S, 3 * H);
    memset(w.parameters, 0, S * 3 * H * sizeof *w.parameters);
    em_parallel(c->exec->pool, S * w.a->G * w.spans, 1, backward_spans, &w);
    em_parallel(c->exec->pool, T, em_row_grain(w.a->G * w.spans * w.a->N), add_rows, &w);
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < 3; i++)
            if (em_wants(c, parameter[i])) {
                float *d = em_f32(c->in[parameter[i]]->grad);
                em_kernels()->add_f32(d, d, w.parameters + (s * 3 + i) * H, H);
            }
}
