// Causal attention over packed sequences, with keys and values kept in the state.
//   P = softmax(scale Q K^T + mask), O = P V;  dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(dO
//   O)), dQ = scale dS K, dK = scale dS^T Q. Saved for backward: the log-sum-exp of each row, [T,
//   H].
// Grouped queries: Ainslie et al. 2023, arXiv:2305.13245; blocks: Dao et al. 2022,
// arXiv:2205.14135. A state's token is G keys, then G values, [2, G, K]: rotated already, so their
// order is all that matters.
#include <float.h>
#include <math.h>

#include "base/sizes.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "ops/bytes.h"
#include "ops/rows.h"

struct attr {
    float scale;
    size_t window;
};

enum { Q, K, V, INPUTS };

// The kernel's view of one sequence, or of the largest there can be when only sizes matter.
static struct em_attention geometry(const struct em_call *c)
{
    const ember_tensor *q = c->in[Q], *k = c->in[K];
    return (struct em_attention){.H = q->dim[1],
                                 .G = k->dim[1],
                                 .K = q->dim[2],
                                 .T = q->dim[0],
                                 .window = em_attr_const(c, struct attr)->window,
                                 .scale = em_attr_const(c, struct attr)->scale};
}

// The kernels of a number format.
struct format {
    size_t (*scratch)(const struct em_attention *a);
    void (*forward)(const struct em_attention *a, size_t g, size_t g_end, size_t begin, size_t end,
                    void *scratch);
    size_t (*backward_scratch)(const struct em_attention *a);
    void (*backward)(const struct em_attention *a, const struct em_attention_gradient *d, size_t g,
                     void *scratch);
};

// Passes with gradients round the operands of products as matrix products do. The others compute in
// f32: they are bound by memory where it matters, and a token's output then does not depend on how
// a prompt was cut.
static struct format format_of(const struct em_call *c, bool gradients)
{
    const struct em_kernels *k = em_kernels();
    if (c->exec->bf16 && gradients && em_gemm_native(EM_GEMM_BF16))
        return (struct format){k->attention_bf16_scratch, k->attention_bf16,
                               k->attention_backward_bf16_scratch, k->attention_backward_bf16};
    return (struct format){k->attention_scratch, k->attention_f32, k->attention_backward_scratch,
                           k->attention_backward_f32};
}

static size_t thread_scratch(size_t bytes)
{
    return (bytes + 127) / 128 * 128;
}

static ember_status shape(struct em_call *c)
{
    char text[3][96];
    const ember_tensor *q = c->in[Q], *k = c->in[K], *v = c->in[V];
    EM_TRY(em_check_f32(c, q, "q", 0));
    EM_TRY(em_check_f32(c, k, "k", 0));
    EM_TRY(em_check_f32(c, v, "v", 0));
    if (q->ndim != 3 || k->ndim != 3 || !em_same_shape(k, v) || q->dim[2] != k->dim[2] ||
        !k->dim[1] || q->dim[1] % k->dim[1] || !em_has_token_rows(k) || !em_has_token_rows(v))
        return em_fail(EMBER_E_SHAPE,
                       "attention: q is %s, k is %s, v is %s; they have to be [T, H, K] and twice "
                       "[T, G, K], G dividing H",
                       em_shape_text(q, text[0], sizeof text[0]),
                       em_shape_text(k, text[1], sizeof text[1]),
                       em_shape_text(v, text[2], sizeof text[2]));
    if (q->dim[2] > 256)
        return em_fail(EMBER_E_SHAPE, "attention: a head has at most 256 dimensions, not %zu",
                       q->dim[2]);
    const struct em_attention a = geometry(c);
    size_t bytes = format_of(c, false).scratch(&a);
    if (em_is_training(c)) {
        const struct format f = format_of(c, true);
        bytes = em_max_size(bytes, em_max_size(f.scratch(&a), f.backward_scratch(&a)));
    }
    em_need_scratch(c, thread_scratch(bytes) * em_call_threads(c) + 64);
    EM_TRY(em_out_like(c, 0, q));
    return em_saved_rows(c, 0, EMBER_F32, q, 1, &q->dim[1], 1);
}

// Keys that the queries of a sequence see, at the planned size: T (T + 1) / 2, less with a window.
static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double T = (double)c->in[Q]->dim[0], H = (double)c->in[Q]->dim[1],
                 width = (double)c->in[Q]->dim[2];
    const size_t window = em_attr_const(c, struct attr)->window;
    const double S = (double)em_flow_options(em_program_flow(c->program))->max_sequences,
                 each = T / (S > 0 ? S : 1);
    const double seen = window && (double)window < each ? (double)window : each / 2;
    const double flops = 4 * T * seen * H * width,
                 bytes = 4 * (2 * em_elements(c->in[Q]) + 2 * em_elements(c->in[K]));
    *forward = (struct em_cost){flops, bytes};
    *backward = (struct em_cost){2.5 * flops, 2.5 * bytes};
}

// Makes room at the end of the sequence's state for its new keys and values, with those before them
// that a window still sees: `past` tokens.
static void extend_state(const struct em_call *c, size_t s)
{
    const size_t *offset = c->exec->batch->offset, T = offset[s + 1] - offset[s];
    const size_t token = 2 * c->in[K]->dim[1] * c->in[K]->dim[2],
                 window = em_attr_const(c, struct attr)->window;
    const struct em_slot *in = em_slot_in(c, s);
    struct em_slot *out = em_slot_out(c, s);
    size_t past = in ? in->length : 0;
    const size_t keep = window && past > window - 1 ? window - 1 : past;
    if (in && in != out) {
        em_copy_bytes(c->exec->pool, out->tokens, keep ? in->tokens + (past - keep) * token : NULL,
                      keep * token * sizeof(float));
        past = keep;
    } else if (past + T > out->capacity) {
        memmove(out->tokens, out->tokens + (past - keep) * token, keep * token * sizeof(float));
        past = keep;
    }
    out->length = past + T;
}

// Tokens [begin, end) of the batch into the ends of their sequences' states.
static void append_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const size_t *offset = c->exec->batch->offset, half = c->in[K]->dim[1] * c->in[K]->dim[2];
    const struct em_strip k = em_strip_of(c->in[K]), v = em_strip_of(c->in[V]);
    size_t s = em_sequence_of(c, begin);
    for (size_t t = begin; t < end; t++) {
        while (t >= offset[s + 1])
            s++;
        const struct em_slot *out = em_slot_out(c, s);
        if (!out) continue;
        float *to = out->tokens + (out->length - (offset[s + 1] - t)) * 2 * half;
        memcpy(to, em_strip_row(&k, t), half * sizeof *to);
        memcpy(to + half, em_strip_row(&v, t), half * sizeof *to);
    }
}

static void extend_states(const struct em_call *c)
{
    if (!c->exec->batch->state_out) return;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        if (em_slot_out(c, s)) extend_state(c, s);
    em_over_rows(c, c->in[K]->dim[0], 2 * em_strip_of(c->in[K]).width, append_tokens);
}

// Sequence s for the kernels. Its keys are those of this batch, or its state's, which end with
// them.
static struct em_attention sequence(const struct em_call *c, size_t s)
{
    struct em_attention a = geometry(c);
    const size_t *offset = c->exec->batch->offset;
    const struct em_strip q = em_strip_of(c->in[Q]), k = em_strip_of(c->in[K]),
                          v = em_strip_of(c->in[V]), o = em_strip_of(c->out[0]);
    const struct em_slot *out = em_slot_out(c, s);
    a.T = offset[s + 1] - offset[s];
    a.q = em_strip_row(&q, offset[s]);
    a.q_stride = q.stride;
    a.o = em_strip_row(&o, offset[s]);
    a.o_stride = o.stride;
    a.lse = em_recording(c) ? em_row(c->saved[0], offset[s]) : NULL;
    if (out) {
        const size_t half = a.G * a.K;
        a.past = out->length - a.T;
        a.k = out->tokens;
        a.v = out->tokens + half;
        a.k_stride = a.v_stride = 2 * half;
    } else {
        a.k = em_strip_row(&k, offset[s]);
        a.k_stride = k.stride;
        a.v = em_strip_row(&v, offset[s]);
        a.v_stride = v.stride;
    }
    return a;
}

struct work {
    const struct em_call *call;
    struct format format;
    char *scratch;
    size_t thread_bytes;
};

// Pieces are (sequence, block of queries, key heads), the long ones of a sequence first. Many
// queries take one key head at a time; a lone one takes several, so that a token's keys are read
// from end to end, but leaves work for other threads.
struct pieces {
    size_t block, blocks, heads, groups; // queries of a piece, key heads of a piece; how many
};

static struct pieces pieces_of(const struct em_call *c, const struct em_attention *a)
{
    struct pieces p = {.block = em_attention_queries(a), .heads = 1};
    p.blocks = (a->T + p.block - 1) / p.block;
    if (a->T == 1) {
        const size_t wanted = 2 * em_pool_threads(c->exec->pool), S = c->exec->batch->n_sequences;
        p.heads = a->G * S / wanted;
        p.heads = p.heads < 1 ? 1 : p.heads > a->G ? a->G : p.heads;
    }
    p.groups = (a->G + p.heads - 1) / p.heads;
    return p;
}

static void forward_pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    size_t first = 0;
    for (size_t s = 0; s < w->call->exec->batch->n_sequences && first < end; s++) {
        const struct em_attention a = sequence(w->call, s);
        const struct pieces p = pieces_of(w->call, &a);
        const size_t n = p.blocks * p.groups;
        for (size_t i = begin > first ? begin - first : 0; i < n && first + i < end; i++) {
            const size_t g = i % p.groups * p.heads, at = (p.blocks - 1 - i / p.groups) * p.block;
            w->format.forward(&a, g, g + p.heads < a.G ? g + p.heads : a.G, at,
                              at + p.block < a.T ? at + p.block : a.T,
                              w->scratch + thread * w->thread_bytes);
        }
        first += n;
    }
}

static void forward(const struct em_call *c)
{
    extend_states(c);
    size_t pieces = 0;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_attention a = sequence(c, s);
        const struct pieces p = pieces_of(c, &a);
        pieces += p.blocks * p.groups;
    }
    const struct em_attention a = geometry(c);
    struct work w = {.call = c, .format = format_of(c, c->exec->gradients)};
    w.thread_bytes = thread_scratch(w.format.scratch(&a));
    w.scratch = em_scratch_take(em_scratch_of(c), w.thread_bytes * em_pool_threads(c->exec->pool));
    em_parallel(c->exec->pool, pieces, 1, forward_pieces, &w);
}

// A gradient that holds garbage is filled with zeros piece by piece, by who adds to it next.
static void clear_heads(float *rows, size_t stride, size_t count, size_t width)
{
    for (size_t r = 0; r < count; r++)
        memset(rows + r * stride, 0, width * sizeof *rows);
}

static void backward_heads(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const struct em_strip d_o = em_strip_of(c->out[0]->grad);
    const size_t G = c->in[K]->dim[1];
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / G, at = c->exec->batch->offset[s];
        const struct em_attention a = sequence(c, s);
        struct em_attention_gradient d = {.d_o = em_strip_row(&d_o, at), .do_stride = d_o.stride};
        float **const gradient[] = {&d.dq, &d.dk, &d.dv};
        size_t *const stride[] = {&d.dq_stride, &d.dk_stride, &d.dv_stride};
        for (unsigned j = Q; j <= V; j++) {
            if (!em_wants(c, j)) continue;
            const struct em_strip strip = em_strip_of(c->in[j]->grad);
            *gradient[j] = em_strip_row(&strip, at);
            *stride[j] = strip.stride;
            const size_t width = j == Q ? a.H / a.G * a.K : a.K;
            if (em_fresh(c, j)) clear_heads(*gradient[j] + i % G * width, strip.stride, a.T, width);
        }
        w->format.backward(&a, &d, i % G, w->scratch + thread * w->thread_bytes);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_attention a = geometry(c);
    struct work w = {.call = c, .format = format_of(c, true)};
    w.thread_bytes = thread_scratch(w.format.backward_scratch(&a));
    w.scratch = em_scratch_take(em_scratch_of(c), w.thread_bytes * em_pool_threads(c->exec->pool));
    em_parallel(c->exec->pool, c->exec->batch->n_sequences * a.G, 1, backward_heads, &w);
}

// ---- reference: a row of scores at a time ----

static const float *key_row(const struct em_attention *a, size_t j, size_t g)
{
    return a->k + j * a->k_stride + g * a->K;
}

static const float *value_row(const struct em_attention *a, size_t j, size_t g)
{
    return a->v + j * a->v_stride + g * a->K;
}

// First key that query t sees; the last is past + t.
static size_t first_key(const struct em_attention *a, size_t t)
{
    const size_t position = a->past + t;
    return a->window && position + 1 > a->window ? position + 1 - a->window : 0;
}

static double score(const struct em_attention *a, size_t t, size_t h, size_t j)
{
    const float *q = a->q + t * a->q_stride + h * a->K, *k = key_row(a, j, h / (a->H / a->G));
    double sum = 0;
    for (size_t i = 0; i < a->K; i++)
        sum += (double)q[i] * (double)k[i];
    return sum * (double)a->scale;
}

static void reference_row(const struct em_attention *a, size_t t, size_t h)
{
    const size_t first = first_key(a, t), last = a->past + t;
    double max = -INFINITY, sum = 0;
    float *o = a->o + t * a->o_stride + h * a->K;
    for (size_t j = first; j <= last; j++)
        max = fmax(max, score(a, t, h, j));
    for (size_t j = first; j <= last; j++)
        sum += exp(score(a, t, h, j) - max);
    for (size_t i = 0; i < a->K; i++) {
        double v = 0;
        for (size_t j = first; j <= last; j++)
            v += exp(score(a, t, h, j) - max) / sum * (double)value_row(a, j, h / (a->H / a->G))[i];
        o[i] = (float)v;
    }
    if (a->lse) a->lse[t * a->H + h] = (float)(max + log(sum));
}

static void reference_forward(const struct em_call *c)
{
    extend_states(c);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_attention a = sequence(c, s);
        for (size_t t = 0; t < a.T; t++)
            for (size_t h = 0; h < a.H; h++)
                reference_row(&a, t, h);
    }
}

static void reference_row_backward(const struct em_call *c, const struct em_attention *a,
                                   size_t start, size_t t, size_t h)
{
    const size_t g = h / (a->H / a->G), first = first_key(a, t), last = a->past + t;
    const float *d_o =
        em_row(c->out[0]->grad, 0) + (start + t) * c->out[0]->grad->stride[0] + h * a->K;
    const float *o = a->o + t * a->o_stride + h * a->K, *q = a->q + t * a->q_stride + h * a->K;
    double lse = 0, delta = 0, max = -INFINITY;
    for (size_t j = first; j <= last; j++)
        max = fmax(max, score(a, t, h, j));
    for (size_t j = first; j <= last; j++)
        lse += exp(score(a, t, h, j) - max);
    lse = max + log(lse);
    for (size_t i = 0; i < a->K; i++)
        delta += (double)d_o[i] * (double)o[i];
    for (size_t j = first; j <= last; j++) {
        const double p = exp(score(a, t, h, j) - lse);
        double dp = 0;
        for (size_t i = 0; i < a->K; i++)
            dp += (double)d_o[i] * (double)value_row(a, j, g)[i];
        // With a single key p is 1 whatever the score.
        const double ds = first == last ? 0 : p * (dp - delta) * (double)a->scale;
        const bool own = j >= a->past; // keys of the past have no gradient
        const size_t row = start + j - a->past;
        for (size_t i = 0; i < a->K; i++) {
            if (em_wants(c, Q)) {
                float *dq =
                    em_f32(c->in[Q]->grad) + (start + t) * c->in[Q]->grad->stride[0] + h * a->K;
                dq[i] += (float)(ds * (double)key_row(a, j, g)[i]);
            }
            if (own && em_wants(c, K))
                em_f32(c->in[K]->grad)[row * c->in[K]->grad->stride[0] + g * a->K + i] +=
                    (float)(ds * (double)q[i]);
            if (own && em_wants(c, V))
                em_f32(c->in[V]->grad)[row * c->in[V]->grad->stride[0] + g * a->K + i] +=
                    (float)(p * (double)d_o[i]);
        }
    }
}

static void reference_backward(const struct em_call *c)
{
    for (unsigned j = Q; j <= V; j++)
        em_zero_fresh(c, j);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_attention a = sequence(c, s);
        for (size_t t = 0; t < a.T; t++)
            for (size_t h = 0; h < a.H; h++)
                reference_row_backward(c, &a, c->exec->batch->offset[s], t, h);
    }
}

const struct em_op em_op_attention = {
    .name = "attention",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(Q) | EM_READS_IN(K) | EM_READS_IN(V) | EM_READS_OUT(0),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_attention(ember_flow *flow, ember_tensor *q, ember_tensor *k, ember_tensor *v,
                             const ember_attention_options *options, ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "attention", q));
    if (!(options->scale >= 0 && options->scale <= (double)FLT_MAX))
        return em_fail(EMBER_E_RANGE, "attention: the scale of scores cannot be %g",
                       options->scale);
    struct em_call *c = em_call_new(flow, &em_op_attention, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[Q] = q;
    c->in[K] = k;
    c->in[V] = v;
    const double scale = options->scale > 0 ? options->scale : 1 / sqrt((double)em_last_dim(q));
    *em_attr(c, struct attr) = (struct attr){(float)scale, options->window};
    if (k && k->ndim == 3)
        EM_TRY(em_need_state(flow, c,
                             &(struct em_state_spec){.name = "attention",
                                                     .per_token = 2 * k->dim[1] * k->dim[2],
                                                     .window = options->window}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
