// Residual paths: a sum that its second operand's operation can make is planned away, and nothing
// else changes.
#include <string.h>

#include <ember/ops.h>

#include "base/alloc.h"
#include "support/check.h"
#include "support/op_fixture.h"

enum { T = 37, D = 24, E = 5, K = 2, VALUES = T * D + 2 * D * D + D };

enum shape {
    PLAIN,   // x + linear(x)
    TURNED,  // linear(x) + x
    BIASED,  // x + (linear(x) + bias)
    EXPERTS, // x + weighted_sum(..)
    CHAIN,   // h + linear(h) of h = x + linear(x)
    READ_TWICE,
    READ_BY_VIEW,
    DOUBLED,      // h + h
    LATER,        // the other operand is made after h
    OTHER_REGION, // the sum does not belong to the region of h
    HAS_ONE,      // h has a residual already
    SHAPES
};
// Sums that are left, of those there are.
static const unsigned sums[SHAPES] = {1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1};
static const unsigned left[SHAPES] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1};

struct net {
    struct em_program *program;
    ember_tensor parameter[4], grad[4];
    ember_tensor *y;
    float values[VALUES], gradients[VALUES];
    double sum;
    bool keep; // every sum's operands are readable outputs
};

enum { X, W, V, BIAS };

static void declare(struct net *n)
{
    const size_t rows[] = {T, D, D, 1}, dims[] = {2, 2, 2, 1};
    size_t at = 0;
    for (unsigned i = 0; i < 4; i++) {
        const size_t full[] = {rows[i], D}, *dim = i == BIAS ? full + 1 : full;
        CHECK_OK(
            em_tensor_init(&n->parameter[i], EMBER_F32, dim, (unsigned)dims[i], n->values + at));
        CHECK_OK(em_tensor_init(&n->grad[i], EMBER_F32, dim, (unsigned)dims[i], n->gradients + at));
        n->parameter[i].grad = &n->grad[i];
        at += rows[i] * D;
    }
    fill_random(n->values, VALUES, 7);
}

static ember_tensor *linear(struct net *n, ember_tensor *x, unsigned w, bool bias,
                            ember_tensor *residual)
{
    ember_tensor *y;
    CHECK_OK(ember_linear(em_program_flow(n->program), x, &n->parameter[w],
                          bias ? &n->parameter[BIAS] : NULL, residual, &y));
    return y;
}

static ember_tensor *add(struct net *n, ember_tensor *a, ember_tensor *b)
{
    ember_tensor *y;
    if (n->keep) {
        em_program_output(n->program, a);
        em_program_output(n->program, b);
    }
    CHECK_OK(ember_add(em_program_flow(n->program), a, b, &y));
    return y;
}

// x's first columns and what experts make of all of x.
static ember_tensor *experts(struct net *n, ember_tensor *x)
{
    ember_flow *f = em_program_flow(n->program);
    ember_routing routing;
    ember_tensor *weights, *first, *rows, *y;
    CHECK_OK(ember_columns(f, linear(n, x, V, false, NULL), 0, K, &weights));
    CHECK_OK(fixture_routing(f, x, E, E, K, weights, &routing));
    CHECK_OK(ember_columns(f, x, 0, D / K, &first));
    CHECK_OK(fixture_spread(f, x, K, &rows));
    CHECK_OK(ember_weighted_sum(f, rows, &routing, &y));
    return add(n, first, y);
}

static ember_tensor *record(struct net *n, enum shape shape, ember_tensor *x)
{
    ember_flow *f = em_program_flow(n->program);
    ember_tensor *y, *view, *h;
    if (shape == EXPERTS) return experts(n, x);
    h = linear(n, x, W, shape == BIASED, shape == HAS_ONE ? x : NULL);
    switch (shape) {
    case TURNED: return add(n, h, x);
    case DOUBLED: return add(n, h, h);
    case CHAIN: h = add(n, x, h); return add(n, h, linear(n, h, V, true, NULL));
    case READ_TWICE: y = add(n, x, h); return linear(n, h, V, false, y);
    case READ_BY_VIEW:
        CHECK_OK(ember_columns(f, h, 0, D, &view));
        y = add(n, x, h);
        CHECK_OK(ember_gated(f, view, y, EMBER_SIGMOID, &y));
        return y;
    case LATER: CHECK_OK(ember_activation(f, x, EMBER_SILU, &y)); return add(n, y, h);
    case OTHER_REGION: em_flow_region_end(f); return add(n, x, h);
    default: return add(n, x, h);
    }
}

static struct net *new_net(enum shape shape, enum em_backend backend, enum em_recompute recompute,
                           bool keep)
{
    struct net *n = em_calloc(1, sizeof *n);
    ember_tensor *x, *loss;
    assert_non_null(n);
    n->keep = keep;
    declare(n);
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = backend,
                                                            .max_tokens = T,
                                                            .max_sequences = 1,
                                                            .gradients = true,
                                                            .recompute = recompute},
                               &n->program));
    ember_flow *f = em_program_flow(n->program);
    CHECK_OK(fixture_source(f, &n->parameter[X], NULL, &x));
    CHECK_OK(em_flow_region_begin(f));
    n->y = record(n, shape, x);
    em_flow_region_end(f);
    em_program_output(n->program, n->y);
    CHECK_OK(fixture_weigh(f, &n->y, 1, &n->sum, &loss));
    em_program_loss(n->program, loss);
    CHECK_OK(em_program_allocate(n->program));
    return n;
}

static void close_net(struct net *n)
{
    em_program_destroy(n->program);
    em_free(n);
}

static void count_sum(void *context, const struct em_call *call)
{
    if (!strcmp(call->op->name, "add")) ++*(unsigned *)context;
}

static unsigned sums_of(const struct net *n)
{
    unsigned count = 0;
    em_program_visit(n->program, count_sum, &count);
    return count;
}

static void run(struct net *n, size_t tokens)
{
    const size_t offset[] = {0, tokens};
    const ember_batch batch = {.n_tokens = tokens, .n_sequences = 1, .offset = offset};
    memset(n->gradients, 0, sizeof n->gradients);
    CHECK_OK(em_program_forward(
        n->program, &(struct em_run){.batch = &batch, .gradients = true, .loss_scale = 1}));
    CHECK_OK(em_program_backward(n->program));
}

static void fused_sums_have_the_same_bits(void **state)
{
    (void)state;
    for (int shape = 0; shape < SHAPES; shape++)
        for (enum em_recompute recompute = 0; recompute <= EM_RECOMPUTE_REGIONS; recompute++) {
            struct net *fused = new_net((enum shape)shape, EM_CPU, recompute, false);
            struct net *apart = new_net((enum shape)shape, EM_CPU, recompute, true);
            if (recompute == EM_RECOMPUTE_NONE) {
                if (sums_of(fused) != left[shape] || sums_of(apart) != sums[shape])
                    fail_msg("shape %d: %u sums, %u apart", shape, sums_of(fused), sums_of(apart));
            }
            for (size_t tokens = T; tokens > 0; tokens /= 6) {
                run(fused, tokens);
                run(apart, tokens);
                if (memcmp(em_f32(fused->y), em_f32(apart->y), tokens * D / K * sizeof(float)))
                    fail_msg("shape %d: outputs differ", shape);
                for (size_t i = 0; i < VALUES;
                     i++) // sums of gradients may be taken in another order
                    CHECK_NEAR(fused->gradients[i], apart->gradients[i], 1e-6, "shape %d, %zu",
                               shape, i);
            }
            close_net(fused);
            close_net(apart);
        }
}

static void backends_agree(void **state)
{
    (void)state;
    for (int shape = 0; shape < SHAPES; shape++) {
        struct net *cpu = new_net((enum shape)shape, EM_CPU, false, false);
        struct net *reference = new_net((enum shape)shape, EM_REFERENCE, false, false);
        run(cpu, T);
        run(reference, T);
        for (size_t i = 0; i < VALUES; i++)
            CHECK_NEAR(cpu->gradients[i], reference->gradients[i], 1e-4, "shape %d, %zu", shape, i);
        close_net(cpu);
        close_net(reference);
    }
}

static void what_was_planned_away_cannot_be_read(void **state)
{
    (void)state;
    struct net *n = em_calloc(1, sizeof *n);
    ember_tensor *x, *h, *y;
    assert_non_null(n);
    declare(n);
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 1},
        &n->program));
    ember_flow *f = em_program_flow(n->program);
    CHECK_OK(fixture_source(f, &n->parameter[X], NULL, &x));
    h = linear(n, x, W, false, NULL);
    y = add(n, x, h);
    CHECK_OK(em_program_plan(n->program, NULL));
    CHECK_FAILS(ember_activation(f, h, EMBER_SILU, &h), EMBER_E_STATE, "planned away");
    CHECK_OK(ember_activation(f, y, EMBER_SILU, &y)); // the sum itself is there
    CHECK_OK(em_program_allocate(n->program));
    close_net(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_sums_have_the_same_bits),
        cmocka_unit_test(backends_agree),
        cmocka_unit_test(what_was_planned_away_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
