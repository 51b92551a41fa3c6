// Linear attention by chunks of products (ops/linear_attention.c says which), heads of keys side by
// side.
#include "ops/linear_attention.h"

#include <math.h>

#include "base/sizes.h"
#include "kernels/kernels.h"
#include "ops/matmul.h"

// Below FEW tokens the recurrence itself costs less than the products.
enum { CHUNK = EM_LINEAR_CHUNK, FEW = 4 };

// ---- memory of one thread ----

struct room {
    float *q, *k, *v, *o;      // features [C, K], values [C, V1], outputs [C, V1]
    float *p, *gradient;       // [C, C]
    float *dq, *dk, *dv, *tmp; // [C, K], [C, K], [C, V1], [C, max(K, V1)]
    float *S, *dS, *next;      // [K, V1]
    float *starts;             // [chunks + 1][K, V1]
    double *L, *dL;            // [C]
    float *rise, *fall;        // [C]: exp(L_i), exp(L_C - L_i)
    float *M;                  // [C, C]
    struct em_gemm_scratch gemm;
};

static size_t chunks_of(size_t T)
{
    return T / CHUNK + (T % CHUNK != 0);
}

// What a chunk's products need at most.
static size_t gemm_bytes(const struct em_linear_attention *a)
{
    const size_t most = em_max_size(CHUNK, em_max_size(a->K, a->V1));
    return em_gemm_unpacked_scratch_size(EM_GEMM_F32, most, most, 1);
}

static ember_status room_size(const struct em_call *c, const struct em_linear_attention *a,
                              bool gradients, size_t T, size_t *bytes)
{
    size_t states;
    EM_TRY(em_add_scratch(c, 3 * CHUNK, CHUNK, bytes)); // p, gradient, M
    EM_TRY(em_add_scratch(c, 4 * CHUNK, a->K, bytes));
    EM_TRY(em_add_scratch(c, 3 * CHUNK, a->V1, bytes));
    EM_TRY(em_add_scratch(c, CHUNK, em_max_size(a->K, a->V1), bytes));
    EM_TRY(em_add_scratch(c, 8, CHUNK, bytes)); // L, dL (doubles), rise, fall
    if (!em_mul_size(gradients ? chunks_of(T) + 4 : 1, a->K, &states)) states = SIZE_MAX;
    EM_TRY(em_add_scratch(c, states, a->V1, bytes));
    return em_add_matmul_scratch(c, gemm_bytes(a), bytes);
}

ember_status em_linear_attention_scratch(const struct em_call *c,
                                         const struct em_linear_attention *a, size_t *bytes)
{
    EM_TRY(room_size(c, a, em_is_training(c), c->in[EM_LINEAR_Q]->dim[0], bytes));
    if (!em_mul_size(*bytes, em_call_threads(c), bytes))
        return em_fail(EMBER_E_NOMEM, "linear_attention: scratch does not fit into memory");
    return EMBER_OK;
}

static float *take(float **at, size_t n)
{
    float *p = *at;
    *at += n;
    return p;
}

// Cuts a thread's memory up. One block for the floats: room_size() added the pieces rounded up.
static struct room room_of(const struct em_linear_attention *a, float *at, bool gradients)
{
    struct room r;
    r.gemm = (struct em_gemm_scratch){at, gemm_bytes(a)};
    at += (gemm_bytes(a) + EM_SCRATCH_ALIGNMENT - 1) / EM_SCRATCH_ALIGNMENT *
          (EM_SCRATCH_ALIGNMENT / sizeof(float));
    r.L = (double *)(void *)take(&at, 2 * CHUNK);
    r.dL = (double *)(void *)take(&at, 2 * CHUNK);
    r.rise = take(&at, CHUNK);
    r.fall = take(&at, CHUNK);
    r.p = take(&at, CHUNK * CHUNK);
    r.gradient = take(&at, CHUNK * CHUNK);
    r.M = take(&at, CHUNK * CHUNK);
    r.q = take(&at, CHUNK * a->K);
    r.k = take(&at, CHUNK * a->K);
    r.dq = take(&at, CHUNK * a->K);
    r.dk = take(&at, CHUNK * a->K);
    r.v = take(&at, CHUNK * a->V1);
    r.o = take(&at, CHUNK * a->V1);
    r.dv = take(&at, CHUNK * a->V1);
    r.tmp = take(&at, CHUNK * em_max_size(a->K, a->V1));
    r.S = take(&at, a->K * a->V1);
    r.dS = r.next = r.starts = NULL;
    if (gradients) {
        r.dS = take(&at, a->K * a->V1);
        r.next = take(&at, a->K * a->V1);
        r.starts = at;
    }
    return r;
}

// ---- one chunk ----

struct work {
    const struct em_call *c;
    const struct em_linear_attention *a;
    float *memory;
    size_t floats; // of a thread
    bool gradients;
};

// A sequence's tokens [at, at + n) for one head of keys.
struct chunk {
    size_t at, n, g;
    bool decays;
};

static void features(const struct em_linear_attention *a, float *to, const float *x)
{
    const struct em_kernels *k = em_kernels();
    switch (a->o.feature) {
    case EMBER_FEATURE_IDENTITY: memcpy(to, x, a->K * sizeof *to); break;
    case EMBER_FEATURE_ELU1: k->elu1_f32(to, x, a->K); break;
    case EMBER_FEATURE_RELU:
        for (size_t i = 0; i < a->K; i++)
            to[i] = x[i] > 0 ? x[i] : 0;
        break;
    case EMBER_FEATURE_SOFTMAX: k->softmax_f32(to, x, a->K); break;
    }
}

// dx += the features' derivative at y = f(x) times dy.
static void features_backward(const struct em_linear_attention *a, float *dx, const float *dy,
                              const float *y)
{
    switch (a->o.feature) {
    case EMBER_FEATURE_IDENTITY: em_kernels()->add_f32(dx, dx, dy, a->K); break;
    case EMBER_FEATURE_ELU1: // exp(x) below 0, where it is y; x + 1 from there on
        for (size_t i = 0; i < a->K; i++)
            dx[i] += y[i] < 1 ? y[i] * dy[i] : dy[i];
        break;
    case EMBER_FEATURE_RELU:
        for (size_t i = 0; i < a->K; i++)
            dx[i] += y[i] > 0 ? dy[i] : 0;
        break;
    case EMBER_FEATURE_SOFTMAX: em_kernels()->softmax_backward_f32(dx, dy, y, a->K); break;
    }
}

static void scale_rows(float *to, const float *x, const float *factor, size_t rows, size_t width)
{
    for (size_t i = 0; i < rows; i++)
        em_kernels()->scale_f32(to + i * width, x + i * width, factor[i], width);
}

// Keys, values and decays of a chunk; the matrix M where anything decays.
static void load(const struct work *w, const struct chunk *h, struct room *r, bool matrix)
{
    const struct em_linear_attention *a = w->a;
    for (size_t i = 0; i < h->n; i++) {
        features(a, r->k + i * a->K, ember_row(w->c->in[EM_LINEAR_K], h->at + i) + h->g * a->K);
        memcpy(r->v + i * a->V1, ember_row(w->c->in[EM_LINEAR_V], h->at + i) + h->g * a->V,
               a->V * sizeof(float));
        if (a->o.normalise) r->v[i * a->V1 + a->V] = 1;
    }
    if (!h->decays) return;
    const ember_tensor *gate = w->c->in[EM_LINEAR_GATE];
    double sum = 0;
    for (size_t i = 0; i < h->n; i++) {
        sum +=
            gate ? em_log_sigmoid((double)ember_row(gate, h->at + i)[h->g]) / a->o.gate_temperature
                 : em_linear_log_decay(a, h->g);
        r->L[i] = sum;
    }
    for (size_t i = 0; i < h->n; i++) {
        r->rise[i] = expf((float)r->L[i]);
        r->fall[i] = expf((float)(r->L[h->n - 1] - r->L[i]));
    }
    // A fixed decay gives one value for each distance, which is `fall` read backwards.
    for (size_t i = 0; matrix && i < h->n; i++)
        for (size_t j = 0; j <= i; j++)
            r->M[i * CHUNK + j] =
                gate ? expf((float)(r->L[i] - r->L[j])) : r->fall[h->n - 1 - (i - j)];
}

static void load_queries(const struct work *w, const struct chunk *h, size_t head, struct room *r)
{
    const struct em_linear_attention *a = w->a;
    for (size_t i = 0; i < h->n; i++) {
        float *q = r->q + i * a->K;
        features(a, q, ember_row(w->c->in[EM_LINEAR_Q], h->at + i) + head * a->K);
        em_kernels()->scale_f32(q, q, (float)a->o.scale, a->K);
    }
}

// p [n, n] within the triangle: times M, and 0 beyond it.
static void mask(const struct chunk *h, const struct room *r, float *p)
{
    for (size_t i = 0; i < h->n; i++) {
        if (h->decays) em_kernels()->mul_f32(p + i * CHUNK, p + i * CHUNK, r->M + i * CHUNK, i + 1);
        memset(p + i * CHUNK + i + 1, 0, (h->n - i - 1) * sizeof *p);
    }
}

static void product(struct room *r, size_t M, size_t N, size_t K, struct em_matrix a,
                    struct em_matrix b, float *c, size_t stride, bool add)
{
    em_gemm(EM_GEMM_F32, M, N, K, a, b, c, stride, &(struct em_gemm_epilogue){.accumulate = add},
            &r->gemm, NULL);
}

// S = exp(L_C) S + (exp(L_C - L) f(k))^T v.
static void advance(const struct work *w, const struct chunk *h, struct room *r, float *S)
{
    const struct em_linear_attention *a = w->a;
    const float *k = r->k;
    if (h->decays) {
        em_kernels()->scale_f32(S, S, r->rise[h->n - 1], a->K * a->V1);
        scale_rows(r->tmp, r->k, r->fall, h->n, a->K);
        k = r->tmp;
    }
    product(r, a->K, a->V1, h->n, em_matmul_columns(k, a->K), em_matmul_rows(r->v, a->V1), S, a->V1,
            true);
}

// p = (f(q) f(k)^T) . M
static void scores(const struct work *w, const struct chunk *h, struct room *r)
{
    const size_t K = w->a->K;
    product(r, h->n, h->n, K, em_matmul_rows(r->q, K), em_matmul_columns(r->k, K), r->p, CHUNK,
            false);
    mask(h, r, r->p);
}

static void write_outputs(const struct work *w, const struct chunk *h, size_t head,
                          const struct room *r)
{
    const struct em_linear_attention *a = w->a;
    for (size_t i = 0; i < h->n; i++) {
        float *y = ember_row(w->c->out[0], h->at + i) + head * a->V;
        const float *o = r->o + i * a->V1;
        if (!a->o.normalise) {
            memcpy(y, o, a->V * sizeof *y);
            continue;
        }
        const float denominator = o[a->V] + a->o.eps;
        if (w->c->saved[0]) ember_row(w->c->saved[0], h->at + i)[head] = denominator;
        em_kernels()->scale_f32(y, o, 1 / denominator, a->V);
    }
}

static void forward_chunk(const struct work *w, const struct chunk *h, struct room *r)
{
    const struct em_linear_attention *a = w->a;
    const size_t per = a->H / a->G, n = h->n;
    load(w, h, r, true);
    for (size_t head = h->g * per; head < (h->g + 1) * per; head++) {
        load_queries(w, h, head, r);
        scores(w, h, r);
        product(r, n, a->V1, n, em_matmul_rows(r->p, CHUNK), em_matmul_rows(r->v, a->V1), r->o,
                a->V1, false);
        if (h->decays) scale_rows(r->q, r->q, r->rise, n, a->K);
        product(r, n, a->V1, a->K, em_matmul_rows(r->q, a->K), em_matmul_rows(r->S, a->V1), r->o,
                a->V1, true);
        write_outputs(w, h, head, r);
    }
    advance(w, h, r, r->S);
}

// One token: the recurrence as it stands.
static void forward_token(const struct work *w, const struct chunk *h, struct room *r)
{
    const struct em_linear_attention *a = w->a;
    const struct em_kernels *k = em_kernels();
    const size_t per = a->H / a->G;
    load(w, h, r, false);
    if (h->decays) k->scale_f32(r->S, r->S, r->rise[0], a->K * a->V1);
    for (size_t i = 0; i < a->K; i++)
        k->axpy_f32(r->S + i * a->V1, r->k[i], r->v, a->V1);
    for (size_t head = h->g * per; head < (h->g + 1) * per; head++) {
        load_queries(w, h, head, r);
        memset(r->o, 0, a->V1 * sizeof *r->o);
        for (size_t i = 0; i < a->K; i++)
            k->axpy_f32(r->o, r->q[i], r->S + i * a->V1, a->V1);
        write_outputs(w, h, head, r);
    }
}

static void start_state(const struct work *w, size_t s, size_t g, float *S)
{
    const size_t n = w->a->K * w->a->V1;
    const struct em_slot *in = em_slot_in(w->c, s);
    if (in)
        memcpy(S, in->fixed + g * n, n * sizeof *S);
    else
        memset(S, 0, n * sizeof *S);
}

static void forward_heads(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const size_t *offset = w->c->exec->batch->offset, G = w->a->G, n = w->a->K * w->a->V1;
    struct room r = room_of(w->a, w->memory + thread * w->floats, w->gradients);
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / G, T = offset[s + 1] - offset[s];
        struct chunk h = {.g = i % G, .decays = em_linear_decays(w->c, w->a)};
        start_state(w, s, h.g, r.S);
        for (size_t t = 0; t < T; t += h.n) {
            h.at = offset[s] + t;
            h.n = T < FEW ? 1 : T - t < CHUNK ? T - t : CHUNK;
            if (h.n == 1)
                forward_token(w, &h, &r);
            else
                forward_chunk(w, &h, &r);
        }
        struct em_slot *out = em_slot_out(w->c, s);
        if (out) memcpy(out->fixed + h.g * n, r.S, n * sizeof *r.S);
    }
}

static struct work work_of(const struct em_call *c, bool gradients)
{
    struct work w = {.c = c, .a = em_attr_const(c, struct em_linear_attention)};
    size_t bytes = 0;
    // The shape rule asked for the same with the most tokens that there can be.
    const ember_status status = room_size(c, w.a, gradients, c->out[0]->dim[0], &bytes);
    assert(status == EMBER_OK);
    (void)status;
    w.gradients = gradients;
    w.floats = bytes / sizeof(float);
    w.memory = em_scratch_take(em_scratch_of(c), bytes * em_pool_threads(c->exec->pool));
    return w;
}

void em_linear_attention_forward(const struct em_call *c)
{
    struct work w = work_of(c, false);
    em_parallel(c->exec->pool, c->exec->batch->n_sequences * w.a->G, 1, forward_heads, &w);
}

// ---- backward ----

// The gradient of o from that of y: dy / d, and for the denominator d itself -dy y / d.
static void output_gradient(const struct work *w, const struct chunk *h, size_t head,
                            struct room *r)
{
    const struct em_linear_attention *a = w->a;
    for (size_t i = 0; i < h->n; i++) {
        const float *dy = ember_row(w->c->out[0]->grad, h->at + i) + head * a->V;
        float *o = r->o + i * a->V1;
        if (!a->o.normalise) {
            memcpy(o, dy, a->V * sizeof *o);
            continue;
        }
        const float d = ember_row(w->c->saved[0], h->at + i)[head];
        const float *y = ember_row(w->c->out[0], h->at + i) + head * a->V;
        em_kernels()->scale_f32(o, dy, 1 / d, a->V);
        o[a->V] = -em_kernels()->dot_f32(dy, y, a->V) / d;
    }
}

// A query head's part: dq, and what it adds to dk, dv, the gradient of the state and of the decays.
static void backward_head(const struct work *w, const struct chunk *h, size_t head, struct room *r)
{
    const struct em_linear_attention *a = w->a;
    const size_t n = h->n, K = a->K, V1 = a->V1;
    load_queries(w, h, head, r);
    output_gradient(w, h, head, r);
    scores(w, h, r);
    product(r, n, n, V1, em_matmul_rows(r->o, V1), em_matmul_columns(r->v, V1), r->gradient, CHUNK,
            false);
    mask(h, r, r->gradient);
    // dq = (gradient) f(k) + exp(L) do S^T
    product(r, n, K, V1, em_matmul_rows(r->o, V1), em_matmul_columns(r->S, V1), r->dq, K, false);
    if (h->decays) scale_rows(r->dq, r->dq, r->rise, n, K);
    product(r, n, K, n, em_matmul_rows(r->gradient, CHUNK), em_matmul_rows(r->k, K), r->dq, K,
            true);
    product(r, n, K, n, em_matmul_columns(r->gradient, CHUNK), em_matmul_rows(r->q, K), r->dk, K,
            true);
    product(r, n, V1, n, em_matmul_columns(r->p, CHUNK), em_matmul_rows(r->o, V1), r->dv, V1, true);
    for (size_t i = 0; h->decays && i < n; i++)
        r->dL[i] += (double)em_kernels()->dot_f32(r->q + i * K, r->dq + i * K, K);
    if (em_wants(w->c, EM_LINEAR_Q))
        for (size_t i = 0; i < n; i++) {
            float *dq = r->dq + i * K, *f = r->tmp;
            em_kernels()->scale_f32(dq, dq, (float)a->o.scale, K);
            em_kernels()->scale_f32(f, r->q + i * K, (float)(1 / a->o.scale), K);
            features_backward(a, ember_row(w->c->in[EM_LINEAR_Q]->grad, h->at + i) + head * K, dq,
                              f);
        }
    if (h->decays) scale_rows(r->q, r->q, r->rise, n, K);
    product(r, K, V1, n, em_matmul_columns(r->q, K), em_matmul_rows(r->o, V1), r->next, V1, true);
}

static double dot_states(const float *a, const float *b, size_t rows, size_t width)
{
    double sum = 0;
    for (size_t i = 0; i < rows; i++)
        sum += (double)em_kernels()->dot_f32(a + i * width, b + i * width, width);
    return sum;
}

// d log a_t is the sum of dL from t to the chunk's end; with those of all terms, dL_i is q_i dq_i -
// k_i dk_i, and at the end what the state after the chunk adds.
static void gate_gradient(const struct work *w, const struct chunk *h, const struct room *r,
                          const float *S_after)
{
    const struct em_linear_attention *a = w->a;
    const ember_tensor *gate = w->c->in[EM_LINEAR_GATE];
    if (!em_wants(w->c, EM_LINEAR_GATE)) return;
    double sum = dot_states(r->dS, S_after, a->K, a->V1);
    for (size_t i = h->n; i-- > 0;) {
        sum += r->dL[i] - (double)em_kernels()->dot_f32(r->k + i * a->K, r->dk + i * a->K, a->K);
        const double slope = em_log_sigmoid_slope((double)ember_row(gate, h->at + i)[h->g]);
        ember_row(gate->grad, h->at + i)[h->g] += (float)(sum * slope / a->o.gate_temperature);
    }
}

static void backward_chunk(const struct work *w, const struct chunk *h, struct room *r,
                           const float *S_after)
{
    const struct em_linear_attention *a = w->a;
    const size_t n = h->n, K = a->K, V1 = a->V1, per = a->H / a->G;
    load(w, h, r, true);
    product(r, n, K, V1, em_matmul_rows(r->v, V1), em_matmul_columns(r->dS, V1), r->dk, K, false);
    product(r, n, V1, K, em_matmul_rows(r->k, K), em_matmul_rows(r->dS, V1), r->dv, V1, false);
    memcpy(r->next, r->dS, K * V1 * sizeof *r->next);
    if (h->decays) {
        scale_rows(r->dk, r->dk, r->fall, n, K);
        scale_rows(r->dv, r->dv, r->fall, n, V1);
        em_kernels()->scale_f32(r->next, r->next, r->rise[n - 1], K * V1);
        memset(r->dL, 0, n * sizeof *r->dL);
    }
    for (size_t head = h->g * per; head < (h->g + 1) * per; head++)
        backward_head(w, h, head, r);
    gate_gradient(w, h, r, S_after);
    for (size_t i = 0; i < n; i++) {
        if (em_wants(w->c, EM_LINEAR_K))
            features_backward(a, ember_row(w->c->in[EM_LINEAR_K]->grad, h->at + i) + h->g * K,
                              r->dk + i * K, r->k + i * K);
        if (em_wants(w->c, EM_LINEAR_V)) {
            float *dv = ember_row(w->c->in[EM_LINEAR_V]->grad, h->at + i) + h->g * a->V;
            em_kernels()->add_f32(dv, dv, r->dv + i * V1, a->V);
        }
    }
    float *const done = r->dS;
    r->dS = r->next;
    r->next = done;
}

static void backward_heads(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const size_t *offset = w->c->exec->batch->offset, G = w->a->G, n = w->a->K * w->a->V1;
    struct room r = room_of(w->a, w->memory + thread * w->floats, true);
    float *const S = r.S;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / G, T = offset[s + 1] - offset[s], chunks = chunks_of(T);
        struct chunk h = {.g = i % G, .decays = em_linear_decays(w->c, w->a)};
        start_state(w, s, h.g, r.starts);
        for (size_t j = 0; j < chunks; j++) {
            h.at = offset[s] + j * CHUNK;
            h.n = T - j * CHUNK < CHUNK ? T - j * CHUNK : CHUNK;
            load(w, &h, &r, false);
            memcpy(r.starts + (j + 1) * n, r.starts + j * n, n * sizeof *r.starts);
            advance(w, &h, &r, r.starts + (j + 1) * n);
        }
        memset(r.dS, 0, n * sizeof *r.dS);
        for (size_t j = chunks; j-- > 0;) {
            h.at = offset[s] + j * CHUNK;
            h.n = T - j * CHUNK < CHUNK ? T - j * CHUNK : CHUNK;
            r.S = r.starts + j * n;
            backward_chunk(w, &h, &r, r.starts + (j + 1) * n);
        }
        r.S = S;
    }
}

void em_linear_attention_backward(const struct em_call *c)
{
    struct work w = work_of(c, true);
    em_parallel(c->exec->pool, c->exec->batch->n_sequences * w.a->G, 1, backward_heads, &w);
}
