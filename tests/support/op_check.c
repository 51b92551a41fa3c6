#include "support/op_check_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "ops/program_priv.h"
#include "support/op_fixture.h"

void *op_alloc(size_t count, size_t bytes)
{
    void *p = calloc(count ? count : 1, bytes);
    assert_non_null(p);
    return p;
}

struct op_values op_values_of(const ember_tensor *t)
{
    struct op_values v = {t->data ? ember_tensor_count(t) : 0, NULL};
    v.x = op_alloc(v.n, sizeof *v.x);
    if (t->dtype == EMBER_I32) { // small ones: exact
        assert_true(em_is_contiguous(t));
        for (size_t i = 0; i < v.n; i++)
            v.x[i] = (float)em_i32(t)[i];
        return v;
    }
    ember_tensor copy;
    CHECK_OK(em_tensor_init(&copy, EMBER_F32, t->dim, t->ndim, v.x));
    CHECK_OK(em_tensor_copy(t, &copy));
    return v;
}

static double largest(const struct op_values *v)
{
    double m = 0;
    for (size_t i = 0; i < v->n; i++)
        m = fmax(m, fabs((double)v->x[i]));
    return m;
}

// ---- data ----

// Numbers that lie `apart`, in random order.
static void fill_apart(struct op_bench *b, float *x, size_t n, float apart)
{
    for (size_t i = 0; i < n; i++) { // the i-th value changes places with one before it
        const size_t j = em_rng_below(&b->rng, i + 1);
        x[i] = x[j];
        x[j] = ((float)i - (float)n / 2) * apart;
    }
}

static void fill(struct op_bench *b, float *x, size_t n, size_t width, const struct op_input *in)
{
    const bool usual = in->low == 0 && in->high == 0;
    const double low = usual ? -1 : (double)in->low, high = usual ? 1 : (double)in->high;
    for (size_t i = 0; in->apart > 0 && i < n; i += width)
        fill_apart(b, x + i, width, in->apart);
    for (size_t i = 0; in->apart <= 0 && i < n; i++) {
        x[i] = (float)(low + (high - low) * em_rng_uniform(&b->rng));
        if (fabsf(x[i]) < in->keep_off) x[i] += x[i] < 0 ? -in->keep_off : in->keep_off;
    }
}

static void bench_init(struct op_bench *b, const struct op_case *c, uint64_t seed)
{
    *b = (struct op_bench){.c = c, .rows = c->rows ? c->rows : 5};
    em_rng_seed(&b->rng, seed, 0);
    for (size_t i = 0; i < OP_INPUTS && c->in[i].ndim; i++, b->n_in++) {
        const struct op_input *in = &c->in[i];
        size_t dim[EMBER_MAX_DIMS] = {b->rows};
        unsigned ndim = in->ndim;
        if (in->kind == OP_PARAMETER) {
            memcpy(dim, in->dim, ndim * sizeof *dim);
        } else if (in->kind == OP_ROWS) {
            memcpy(dim + 1, in->dim, ndim * sizeof *dim);
            ndim++;
        } else { // some columns before and after
            dim[1] = 1;
            for (unsigned j = 0; j < in->ndim; j++)
                dim[1] *= in->dim[j];
            b->first[i] = em_rng_below(&b->rng, 4);
            dim[1] += b->first[i] + em_rng_below(&b->rng, 4);
            ndim = 2;
        }
        CHECK_OK(em_tensor_init(&b->param[i], EMBER_F32, dim, ndim, NULL));
        const size_t n = ember_tensor_count(&b->param[i]);
        b->param[i].data = op_alloc(n, sizeof(float));
        b->param[i].name = "test parameter";
        fill(b, b->param[i].data, n, em_last_dim(&b->param[i]), in);
        if (in->constant) continue;
        b->grad[i] = b->param[i];
        b->grad[i].data = op_alloc(n, sizeof(float));
        b->param[i].grad = &b->grad[i];
    }
    b->offset = op_alloc(b->rows + 1, sizeof *b->offset);
    b->tokens = op_alloc(b->rows, sizeof *b->tokens);
    b->targets = op_alloc(b->rows, sizeof *b->targets);
    b->inputs = op_alloc(b->rows * c->width, sizeof *b->inputs);
    fill(b, b->inputs, b->rows * c->width, c->width, &(struct op_input){0});
    b->timespans = op_alloc(b->rows, sizeof *b->timespans);
    fill(b, b->timespans, b->rows, b->rows, &(struct op_input){.low = 0.2f, .high = 2});
    for (size_t t = 0; c->vocabulary && t < b->rows; t++) {
        b->tokens[t] = (int32_t)em_rng_below(&b->rng, c->vocabulary);
        b->targets[t] =
            em_rng_below(&b->rng, 4) ? (int32_t)em_rng_below(&b->rng, c->vocabulary) : -100;
    }
}

static void bench_deinit(struct op_bench *b)
{
    for (size_t i = 0; i < b->n_in; i++) {
        free(b->param[i].data);
        if (b->param[i].grad) free(b->grad[i].data);
    }
    free(b->offset);
    free(b->tokens);
    free(b->targets);
    free(b->inputs);
    free(b->timespans);
}

// A batch of `rows` tokens (at least one) in a random number of sequences.
static void set_rows(struct op_bench *b, size_t rows)
{
    const size_t T = rows ? rows : 1, most = b->c->sequences ? b->c->sequences : 1;
    size_t S = 1;
    b->present = rows;
    for (size_t t = 1; t < T; t++) // each token starts a sequence with some probability
        if (S < most && em_rng_below(&b->rng, T) < most) b->offset[S++] = t;
    b->offset[S] = T;
    b->batch = (ember_batch){.n_tokens = T, .n_sequences = S, .offset = b->offset};
    if (b->c->vocabulary) b->batch.tokens = b->tokens, b->batch.targets = b->targets;
    if (b->c->width) b->batch.inputs = b->inputs;
    if (b->c->timespans) b->batch.timespans = b->timespans;
}

// ---- programs ----

static ember_status record_source(ember_flow *flow, struct op_bench *b, size_t i,
                                  ember_tensor *plan, ember_tensor **x)
{
    const struct op_input *in = &b->c->in[i];
    EM_TRY(fixture_source(flow, &b->param[i], plan, x));
    if (in->kind != OP_COLUMNS) return EMBER_OK;
    size_t width = 1;
    for (unsigned j = 0; j < in->ndim; j++)
        width *= in->dim[j];
    EM_TRY(ember_columns(flow, *x, b->first[i], b->first[i] + width, x));
    return in->ndim > 1 ? ember_reshape(flow, *x, in->dim, in->ndim, x) : EMBER_OK;
}

static ember_status record(struct op_bench *b, struct op_subject *s, ember_flow *flow)
{
    ember_tensor *in[OP_INPUTS] = {0}, *plan = NULL;
    if (!b->c->by_token) CHECK_OK(fixture_plan(flow, &b->present, &plan));
    for (size_t i = 0; i < b->n_in; i++) {
        if (b->c->in[i].kind == OP_PARAMETER)
            in[i] = &b->param[i];
        else
            CHECK_OK(record_source(flow, b, i, plan, &in[i]));
    }
    if (s->in_region) CHECK_OK(em_flow_region_begin(flow));
    EM_TRY(b->c->record(flow, in, b->c, s->out));
    if (s->in_region) em_flow_region_end(flow);
    ember_tensor *floats[OP_OUTPUTS] = {0}, *weighed;
    for (unsigned k = 0; k < OP_OUTPUTS; k++) {
        if (!s->out[k]) continue;
        em_program_output(s->program, s->out[k]);
        if (s->out[k]->dtype == EMBER_F32) floats[k] = s->out[k];
    }
    CHECK_OK(fixture_weigh(flow, floats, OP_OUTPUTS, &s->weighed, &weighed));
    em_program_loss(s->program, b->c->loss ? s->out[0] : weighed);
    return EMBER_OK;
}

static void subject_create(struct op_bench *b, struct op_subject *s,
                           const struct em_program_options *given)
{
    struct em_program_options options = *given;
    *s = (struct op_subject){.in_region = given->recompute == EM_RECOMPUTE_REGIONS};
    options.max_tokens = b->rows;
    options.max_sequences = b->c->sequences ? b->c->sequences : 1;
    CHECK_OK(em_program_create(&options, &s->program));
    CHECK_OK(record(b, s, em_program_flow(s->program)));
    CHECK_OK(em_program_allocate(s->program));
    const struct em_cost cost = em_program_cost(s->program, false);
    assert_true(isfinite(cost.flops) && cost.flops >= 0 && isfinite(cost.bytes) && cost.bytes >= 0);
}

static void subject_destroy(struct op_subject *s)
{
    em_program_destroy(s->program);
}

void op_forward(struct op_bench *b, struct op_subject *s, bool training, bool gradients)
{
    // Nothing outlives a pass: what is read before it is written is NaN, or no index.
    memset(s->program->block, 0xff, s->program->memory.activations);
    memset(s->program->exec.scratch.base, 0xff, s->program->exec.scratch.size);
    em_program_weights_changed(s->program);
    CHECK_OK(em_program_forward(
        s->program, &(struct em_run){.batch = &b->batch,
                                     .training = training,
                                     .gradients = gradients,
                                     .loss_scale = b->c->loss_scale != 0 ? b->c->loss_scale : 0.75,
                                     .seed = 5,
                                     .step = 3}));
}

static void zero_gradients(struct op_bench *b)
{
    for (size_t i = 0; i < b->n_in; i++)
        if (b->param[i].grad) memset(b->grad[i].data, 0, em_tensor_bytes(&b->grad[i]));
}

struct op_result op_run(struct op_bench *b, struct op_subject *s, unsigned passes)
{
    struct op_result r = {0};
    zero_gradients(b);
    for (unsigned pass = 0; pass < passes; pass++) {
        op_forward(b, s, !b->c->evaluation, true);
        for (unsigned k = 0; k < OP_OUTPUTS && pass == 0; k++)
            if (s->out[k]) r.out[k] = op_values_of(s->out[k]);
        CHECK_OK(em_program_backward(s->program));
    }
    for (size_t i = 0; i < b->n_in; i++)
        if (b->param[i].grad) r.grad[i] = op_values_of(&b->grad[i]);
    return r;
}

void op_result_free(struct op_result *r)
{
    for (unsigned k = 0; k < OP_OUTPUTS; k++)
        free(r->out[k].x);
    for (unsigned i = 0; i < OP_INPUTS; i++)
        free(r->grad[i].x);
}

// ---- comparisons ----

void op_compare(const struct op_values *found, const struct op_values *expected, double factor,
                double tolerance, double least, const struct op_case *c, const char *what,
                unsigned which, size_t rows, const char *who)
{
    assert_int_equal(found->n, expected->n);
    // Inputs and weights of outputs are around 1, and so are the terms of sums: what is much
    // smaller is so by cancellation, and errors are not.
    const double limit = tolerance * factor * fmax(largest(expected), least);
    for (size_t i = 0; i < found->n; i++) {
        const double f = (double)found->x[i], e = (double)expected->x[i] * factor;
        if (tolerance == 0 ? memcmp(&found->x[i], &expected->x[i], sizeof(float)) == 0
                           : fabs(f - e) <= limit)
            continue;
        print_error("%s: %s %u of %zu rows, %s: element %zu is %.9g, not %.9g (within %.3g)\n",
                    c->name, what, which, rows, who, i, f, e, limit);
        fail();
    }
}

void op_compare_results(const struct op_bench *b, const struct op_result *found,
                        const struct op_result *expected, double tolerance, double least,
                        const char *who)
{
    for (unsigned k = 0; k < OP_OUTPUTS; k++)
        op_compare(&found->out[k], &expected->out[k], 1, tolerance, least, b->c, "output", k,
                   b->present, who);
    for (unsigned i = 0; i < OP_INPUTS; i++)
        op_compare(&found->grad[i], &expected->grad[i], 1, tolerance, least, b->c, "gradient", i,
                   b->present, who);
}

// The derivative by parameter element *x from four values of the reference around it: the error is
// h^4 / 30 times the fifth derivative. Outputs are rounded to f32, which gives some 1e-7 / h in the
// derivative; h = 1/64 keeps both far below the tolerance for functions that change over lengths of
// about 1.
static double difference(struct op_bench *b, struct op_subject *s, float *x)
{
    const float h = 0x1p-6f, at = *x;
    static const double coefficient[] = {1, -8, 8, -1};
    static const float step[] = {-2, -1, 1, 2};
    double sum = 0, moved = 0;
    for (unsigned i = 0; i < 4; i++) {
        *x = at + step[i] * h;
        moved += coefficient[i] * ((double)*x - (double)at); // as rounded: 12 h, nearly
        op_forward(b, s, !b->c->evaluation, false);
        sum += coefficient[i] * (b->c->loss ? (double)em_f32(s->out[0])[0] : s->weighed);
    }
    *x = at;
    return sum / moved;
}

void op_check_differences(struct op_bench *b, struct op_subject *reference,
                          const struct op_result *r)
{
    enum { PLACES = 12 };
    const double relative = b->c->difference_tolerance > 0 ? b->c->difference_tolerance : 1e-3;
    for (size_t i = 0; i < b->n_in; i++) {
        if (!b->param[i].grad) continue;
        const double limit = relative * fmax(largest(&r->grad[i]), 0.05);
        for (size_t k = 0; k < PLACES; k++) {
            const size_t n = r->grad[i].n, at = n <= PLACES ? k : em_rng_below(&b->rng, n);
            if (at >= n) break;
            const double d = difference(b, reference, em_f32(&b->param[i]) + at),
                         g = (double)r->grad[i].x[at];
            if (fabs(d - g) <= limit) continue;
            print_error(
                "%s: gradient of input %zu, element %zu: %.9g, by differences %.9g (within %.3g)\n",
                b->c->name, i, at, g, d, limit);
            fail();
        }
    }
}

// ---- the check ----

enum { THREADS = 3 };

struct subjects {
    struct op_subject reference, cpu[THREADS], bf16, recomputed, inference, inference_reference;
    struct em_pool *pool[THREADS];
};

static void check_rows(struct op_bench *b, struct subjects *s, size_t rows)
{
    const struct op_case *c = b->c;
    const double tolerance = c->tolerance > 0 ? c->tolerance : 2e-5;
    set_rows(b, rows);
    struct op_result expected = op_run(b, &s->reference, 1), first = op_run(b, &s->cpu[0], 1);
    op_compare_results(b, &first, &expected, tolerance, 0.1, "cpu");
    for (unsigned t = 1; t < THREADS; t++) {
        struct op_result r = op_run(b, &s->cpu[t], 1);
        op_compare_results(b, &r, &first, 0, 0, t == 1 ? "2 threads" : "3 threads");
        op_result_free(&r);
    }
    struct op_result twice = op_run(b, &s->cpu[THREADS - 1], 2),
                     twice_expected = op_run(b, &s->reference, 2);
    for (unsigned i = 0; i < OP_INPUTS; i++) {
        op_compare(&twice.grad[i], &expected.grad[i], 2, tolerance, 0.1, c, "gradient", i, rows,
                   "cpu twice");
        op_compare(&twice_expected.grad[i], &expected.grad[i], 2, tolerance, 0.1, c, "gradient", i,
                   rows, "reference twice");
    }
    op_result_free(&twice);
    op_result_free(&twice_expected);
    zero_gradients(b);
    op_forward(b, &s->cpu[0], !c->evaluation, false);
    for (size_t i = 0; i < b->n_in; i++)
        for (size_t j = 0; b->param[i].grad && j < ember_tensor_count(&b->grad[i]); j++)
            assert_true(em_f32(&b->grad[i])[j] ==
                        0); // a forward alone leaves gradients as they are
    // A loss that made its gradient in forward makes it in backward here, perhaps with other
    // roundings.
    struct op_result again = op_run(b, &s->recomputed, 1);
    op_compare_results(b, &again, &first, c->vocabulary ? tolerance : 0, 0.1, "recomputed");
    op_result_free(&again);
    if (c->products) {
        // bf16 has 8 bits: each factor is off by at most 2^-9, sums of random signs by less.
        struct op_result r = op_run(b, &s->bf16, 1);
        op_compare_results(b, &r, &expected, 2e-2, 1, "bf16");
        op_result_free(&r);
    }
    op_forward(b, &s->inference, false, false);
    op_forward(b, &s->inference_reference, false, false);
    for (unsigned k = 0; k < OP_OUTPUTS; k++) {
        if (!s->inference.out[k]) continue;
        struct op_values v = op_values_of(s->inference.out[k]),
                         r = op_values_of(s->inference_reference.out[k]);
        op_compare(&v, &r, 1, tolerance, 0.1, c, "output", k, rows, "inference");
        if (!c->random) op_compare(&v, &first.out[k], 1, 0, 0.1, c, "output", k, rows, "inference");
        free(v.x);
        free(r.x);
    }
    if (rows == b->rows && !c->large) op_check_differences(b, &s->reference, &expected);
    if (c->stateful && rows == b->rows) {
        op_check_pieces(b, &s->inference, &first, tolerance);
        op_check_pieces(b, &s->inference_reference, &expected, 1e-6);
        op_check_forks(b, &s->inference, &first, tolerance);
        op_check_forks(b, &s->inference_reference, &expected, 1e-6);
        op_check_carried(b, &s->inference, &s->reference, &s->cpu[THREADS - 1], &s->recomputed);
    }
    op_result_free(&expected);
    op_result_free(&first);
}

void check_op(const struct op_case *c, uint64_t seed)
{
    struct op_bench b;
    struct subjects s = {0};
    bench_init(&b, c, seed);
    set_rows(&b, b.rows);
    subject_create(&b, &s.reference,
                   &(struct em_program_options){.backend = EM_REFERENCE, .gradients = true});
    subject_create(&b, &s.inference, &(struct em_program_options){.backend = EM_CPU});
    subject_create(&b, &s.inference_reference,
                   &(struct em_program_options){.backend = EM_REFERENCE});
    for (unsigned t = 0; t < THREADS; t++) {
        CHECK_OK(em_pool_create(t + 1, &s.pool[t]));
        subject_create(
            &b, &s.cpu[t],
            &(struct em_program_options){.backend = EM_CPU, .gradients = true, .pool = s.pool[t]});
    }
    subject_create(&b, &s.bf16,
                   &(struct em_program_options){
                       .backend = EM_CPU, .gradients = true, .bf16 = true, .pool = s.pool[1]});
    subject_create(&b, &s.recomputed,
                   &(struct em_program_options){.backend = EM_CPU,
                                                .gradients = true,
                                                .recompute = EM_RECOMPUTE_REGIONS,
                                                .pool = s.pool[1]});
    check_rows(&b, &s, b.rows);
    if (b.rows > 2) check_rows(&b, &s, 1 + em_rng_below(&b.rng, b.rows - 1));
    if (b.rows > 1) check_rows(&b, &s, 1);
    if (!c->by_token) check_rows(&b, &s, 0);
    subject_destroy(&s.reference);
    subject_destroy(&s.inference);
    subject_destroy(&s.inference_reference);
    subject_destroy(&s.bf16);
    subject_destroy(&s.recomputed);
    for (unsigned t = 0; t < THREADS; t++) {
        subject_destroy(&s.cpu[t]);
        em_pool_destroy(s.pool[t]);
    }
    bench_deinit(&b);
}

void check_op_refused(const struct op_case *c, ember_status status, const char *text)
{
    struct op_bench b;
    struct op_subject s = {0};
    bench_init(&b, c, 1);
    set_rows(&b, b.rows);
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU,
                                     .gradients = true,
                                     .max_tokens = b.rows,
                                     .max_sequences = c->sequences ? c->sequences : 1},
        &s.program));
    CHECK_FAILS(record(&b, &s, em_program_flow(s.program)), status, text);
    subject_destroy(&s);
    bench_deinit(&b);
}

size_t op_rounds(size_t usual)
{
    const char *asked = getenv("EMBER_TEST_ROUNDS");
    const unsigned long long n = asked ? strtoull(asked, NULL, 10) : 0;
    return n ? (size_t)n : usual;
}

size_t op_size(uint64_t *state, size_t most)
{
    const uint64_t h = em_hash64(*state, 3, 1);
    *state = h;
    const size_t limit = h & 1 && most > 4 ? 4 : most; // half of them tiny
    return 1 + (size_t)(h >> 8) % limit;
}

int op_run_tests(const char *name, const struct CMUnitTest *tests, size_t count)
{
    if (getenv("EMBER_ISA")) return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    int failed = 0;
    for (int isa = 0; isa < EM_ISA_COUNT; isa++) {
        if (!em_isa_runs((enum em_isa)isa)) continue;
        fflush(NULL);
        const pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            char group[128];
            snprintf(group, sizeof group, "%s, %s", name, em_isa_name((enum em_isa)isa));
            if (setenv("EMBER_ISA", em_isa_name((enum em_isa)isa), 1) != 0) exit(1);
            exit(_cmocka_run_group_tests(group, tests, count, NULL, NULL) ? 1 : 0);
        }
        int status = 0;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status))
            failed = 1;
    }
    return failed;
}
