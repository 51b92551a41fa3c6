// What check_op() asks of operations that keep a state of each sequence.
#include <stdlib.h>
#include <string.h>

#include "support/op_check_priv.h"

// Tokens [begin, end) of sequence q of the whole batch, and the states it goes from and to.
struct piece {
    size_t q, begin, end;
    ember_state *in, *out;
};

// The whole batch and its data, while the bench holds those of some pieces.
struct whole {
    struct op_bench *b;
    ember_batch batch;
    float *row[OP_INPUTS], *inputs, *timespans; // row: NULL where an input has no rows
    int32_t *tokens, *targets;
    size_t *offset;
    ember_state **in, **out;
};

static void *copy_of(const void *from, size_t bytes)
{
    void *p = op_alloc(bytes, 1);
    if (bytes) memcpy(p, from, bytes);
    return p;
}

static struct whole keep_whole(struct op_bench *b)
{
    const size_t T = b->rows, S = b->c->sequences ? b->c->sequences : 1;
    struct whole w = {.b = b, .batch = b->batch};
    for (size_t i = 0; i < b->n_in; i++)
        if (b->c->in[i].kind != OP_PARAMETER)
            w.row[i] = copy_of(b->param[i].data, em_tensor_bytes(&b->param[i]));
    w.inputs = copy_of(b->inputs, T * b->c->width * sizeof *w.inputs);
    w.timespans = copy_of(b->timespans, T * sizeof *w.timespans);
    w.tokens = copy_of(b->tokens, T * sizeof *w.tokens);
    w.targets = copy_of(b->targets, T * sizeof *w.targets);
    w.offset = op_alloc(S + 1, sizeof *w.offset);
    w.in = op_alloc(S, sizeof(ember_state *));
    w.out = op_alloc(S, sizeof(ember_state *));
    return w;
}

static void give_back(struct whole *w)
{
    struct op_bench *b = w->b;
    b->batch = w->batch;
    b->present = b->batch.n_tokens;
    for (size_t i = 0; i < b->n_in; i++) {
        if (w->row[i]) memcpy(b->param[i].data, w->row[i], em_tensor_bytes(&b->param[i]));
        free(w->row[i]);
    }
    memcpy(b->inputs, w->inputs, b->rows * b->c->width * sizeof *w->inputs);
    memcpy(b->timespans, w->timespans, b->rows * sizeof *w->timespans);
    memcpy(b->tokens, w->tokens, b->rows * sizeof *w->tokens);
    memcpy(b->targets, w->targets, b->rows * sizeof *w->targets);
    free(w->inputs);
    free(w->timespans);
    free(w->tokens);
    free(w->targets);
    free(w->offset);
    free(w->in);
    free(w->out);
}

// The bench's batch becomes these pieces, one sequence each.
static void put_pieces(struct whole *w, const struct piece *p, size_t n)
{
    struct op_bench *b = w->b;
    const size_t width = b->c->width;
    size_t at = 0;
    for (size_t k = 0; k < n; k++) {
        const size_t from = w->batch.offset[p[k].q] + p[k].begin, rows = p[k].end - p[k].begin;
        for (size_t i = 0; i < b->n_in; i++) { // rows come from the front of the parameter
            if (!w->row[i]) continue;
            const size_t each = ember_tensor_count(&b->param[i]) / b->rows;
            memcpy(em_f32(&b->param[i]) + at * each, w->row[i] + from * each,
                   rows * each * sizeof(float));
        }
        memcpy(b->inputs + at * width, w->inputs + from * width, rows * width * sizeof(float));
        memcpy(b->timespans + at, w->timespans + from, rows * sizeof(float));
        memcpy(b->tokens + at, w->tokens + from, rows * sizeof *w->tokens);
        memcpy(b->targets + at, w->targets + from, rows * sizeof *w->targets);
        w->offset[k] = at;
        w->in[k] = p[k].in;
        w->out[k] = p[k].out;
        at += rows;
    }
    w->offset[n] = at;
    b->batch = w->batch;
    b->batch.n_tokens = at, b->batch.n_sequences = n, b->batch.offset = w->offset;
    b->batch.state_in = w->in, b->batch.state_out = w->out;
}

static void compare_pieces(const struct whole *w, const struct op_subject *s,
                           const struct op_result *expected, const struct piece *p, size_t n,
                           double tolerance, const char *who)
{
    for (unsigned k = 0; k < OP_OUTPUTS; k++) {
        if (!s->out[k]) continue;
        struct op_values found = op_values_of(s->out[k]);
        const size_t each = found.n / w->offset[n];
        for (size_t i = 0; i < n; i++) {
            const size_t rows = (p[i].end - p[i].begin) * each;
            const struct op_values part = {rows, found.x + w->offset[i] * each},
                                   whole = {rows,
                                            expected->out[k].x +
                                                (w->batch.offset[p[i].q] + p[i].begin) * each};
            op_compare(&part, &whole, 1, tolerance, 0.1, w->b->c, "output", k,
                       p[i].end - p[i].begin, who);
        }
        free(found.x);
    }
}

static ember_state *new_state(const struct op_subject *s)
{
    ember_state *state;
    CHECK_OK(em_state_create(em_program_layout(s->program), &state));
    return state;
}

static size_t length_of(const struct whole *w, size_t q)
{
    return w->batch.offset[q + 1] - w->batch.offset[q];
}

enum way { IN_PLACE, INTO_ANOTHER, ANY_WAY, WAYS };

void op_check_pieces(struct op_bench *b, struct op_subject *s, const struct op_result *expected,
                     double tolerance)
{
    static const char *const name[] = {"in place", "into another state", "in pieces, any way"};
    struct whole w = keep_whole(b);
    // Never emptied: what they hold of other sequences may not be seen.
    ember_state *const state[] = {new_state(s), new_state(s)};
    for (unsigned way = IN_PLACE; way < WAYS; way++) {
        for (size_t q = 0; q < w.batch.n_sequences; q++) {
            const size_t length = length_of(&w, q), most = em_rng_below(&b->rng, 2) ? length : 3;
            struct piece p = {.q = q};
            for (size_t now = 0; p.begin < length; p.begin = p.end) {
                const size_t left = length - p.begin, n = 1 + em_rng_below(&b->rng, most);
                const bool move = way == ANY_WAY ? em_rng_below(&b->rng, 2) : way == INTO_ANOTHER;
                p.end = p.begin + (n < left ? n : left);
                p.in = p.begin ? state[now] : NULL;
                if (move) now = !now;
                p.out = p.end == length && way == ANY_WAY ? NULL : state[now];
                put_pieces(&w, &p, 1);
                op_forward(b, s, false, false);
                compare_pieces(&w, s, expected, &p, 1, tolerance, name[way]);
                if (p.out) assert_int_equal(p.out->position, p.end);
            }
        }
    }
    em_state_destroy(state[0]);
    em_state_destroy(state[1]);
    give_back(&w);
}

// Where each sequence is cut: its first `cut` tokens make its head, which may be all or nothing.
static size_t *random_cuts(struct whole *w, ember_state **state, struct op_subject *s)
{
    size_t *cut = op_alloc(w->batch.n_sequences, sizeof *cut);
    for (size_t q = 0; q < w->batch.n_sequences; q++) {
        cut[q] = em_rng_below(&w->b->rng, length_of(w, q) + 1);
        state[q] = new_state(s);
    }
    return cut;
}

// The heads that there are, into their states.
static size_t head_pieces(const struct whole *w, const size_t *cut, ember_state **state,
                          struct piece *p)
{
    size_t n = 0;
    for (size_t q = 0; q < w->batch.n_sequences; q++)
        if (cut[q])
            p[n++] = (struct piece){.q = q, .begin = 0, .end = cut[q], .in = NULL, .out = state[q]};
    return n;
}

void op_check_forks(struct op_bench *b, struct op_subject *s, const struct op_result *expected,
                    double tolerance)
{
    struct whole w = keep_whole(b);
    const size_t S = w.batch.n_sequences, most = b->c->sequences ? b->c->sequences : 1;
    ember_state **state = op_alloc(S, sizeof(ember_state *)), *other = new_state(s);
    struct piece *p = op_alloc(most, sizeof *p);
    size_t *cut = random_cuts(&w, state, s), n = head_pieces(&w, cut, state, p), tokens = 0;
    if (n) {
        put_pieces(&w, p, n);
        op_forward(b, s, false, false);
        compare_pieces(&w, s, expected, p, n, tolerance, "packed heads");
    }
    n = 0;
    for (size_t q = 0; q < S; q++) {
        if (cut[q] == length_of(&w, q)) continue;
        p[n++] = (struct piece){q, cut[q], length_of(&w, q), cut[q] ? state[q] : NULL,
                                em_rng_below(&b->rng, 2) ? state[q] : NULL};
        tokens += length_of(&w, q) - cut[q];
    }
    // One more that goes on from the state of the last, which therefore stays as it is.
    if (n && n < most && p[n - 1].in && tokens + (p[n - 1].end - p[n - 1].begin) <= b->rows) {
        p[n - 1].out = NULL;
        p[n] = p[n - 1];
        p[n++].out = other;
    }
    if (n) {
        put_pieces(&w, p, n);
        op_forward(b, s, false, false);
        compare_pieces(&w, s, expected, p, n, tolerance, "packed tails");
    }
    for (size_t q = 0; q < S; q++)
        em_state_destroy(state[q]);
    em_state_destroy(other);
    free(state);
    free(cut);
    free(p);
    give_back(&w);
}

void op_check_carried(struct op_bench *b, struct op_subject *inference,
                      struct op_subject *reference, struct op_subject *cpu,
                      struct op_subject *recomputed)
{
    const double tolerance = b->c->tolerance > 0 ? b->c->tolerance : 2e-5;
    struct whole w = keep_whole(b);
    const size_t S = w.batch.n_sequences;
    ember_state **state = op_alloc(S, sizeof(ember_state *)), *other = new_state(inference);
    struct piece *p = op_alloc(S, sizeof *p);
    size_t *cut = random_cuts(&w, state, inference), n = head_pieces(&w, cut, state, p);
    if (n) {
        put_pieces(&w, p, n);
        op_forward(b, inference, false, false);
    }
    n = 0;
    for (size_t q = 0; q < S; q++)
        if (cut[q] < length_of(&w, q))
            p[n++] = (struct piece){q, cut[q], length_of(&w, q), cut[q] ? state[q] : NULL, NULL};
    if (n) {
        p[em_rng_below(&b->rng, n)].out = other;
        put_pieces(&w, p, n);
        b->present = w.offset[n];
        struct op_result expected = op_run(b, reference, 1), found = op_run(b, cpu, 1),
                         again = op_run(b, recomputed, 1);
        op_compare_results(b, &found, &expected, tolerance, 0.1, "cpu, from a state");
        op_compare_results(b, &again, &found, b->c->vocabulary ? tolerance : 0, 0.1,
                           "recomputed, from a state");
        if (!b->c->large) op_check_differences(b, reference, &expected);
        op_result_free(&expected);
        op_result_free(&found);
        op_result_free(&again);
    }
    for (size_t q = 0; q < S; q++)
        em_state_destroy(state[q]);
    em_state_destroy(other);
    free(state);
    free(cut);
    free(p);
    give_back(&w);
}
