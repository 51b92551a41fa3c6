// Routers that do not choose a fixed number of experts, or do not choose at all: activity, expert
// choice, tables, positions, labels; and capacity. Choices that go nowhere stay out of everything.
#include <math.h>
#include <string.h>

#include "ops/moe_plan.h"
#include "support/op_check.h"
#include "support/op_fixture.h"

// ---- gradients ----

static ember_status active(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    ember_routing routing = {.n_experts = in[0]->dim[1]};
    EM_TRY(ember_route_active(flow, in[0], in[1], NULL, c->context, &routing));
    out[0] = routing.weights;
    out[1] = routing.indices;
    return EMBER_OK;
}

static void activity_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t E = op_size(&sizes, 9);
        const ember_activity_options o = {.k = op_size(&sizes, E),
                                          .kind = (ember_activity)(round % 3),
                                          .renormalise = round & 1,
                                          .scale = round % 5 ? 0 : 2.5f};
        // Scores keep off their thresholds: relu's logits off 0, and the others' are below all.
        struct op_case c = {
            .name = "route_active",
            .record = active,
            .context = &o,
            .rows = op_size(&sizes, 25),
            .in = {{OP_ROWS, {E}, 1, .keep_off = 0.1f},
                   {OP_PARAMETER, {E}, 1, .constant = true, .low = -0.02f, .high = -0.01f}}};
        if (o.kind == EMBER_ACTIVITY_RELU) c.in[1].low = 0, c.in[1].high = 1e-6f;
        check_op(&c, round);
    }
}

static ember_status choice(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    ember_routing routing = {.n_experts = in[0]->dim[1]};
    EM_TRY(ember_route_expert_choice(flow, in[0], *(const float *)c->context, &routing));
    out[0] = routing.weights;
    out[1] = routing.indices;
    return EMBER_OK;
}

static void expert_choice_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 15;
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t E = op_size(&sizes, 7);
        const float factor = 0.4f * (float)op_size(&sizes, 6);
        check_op(&(struct op_case){.name = "route_expert_choice",
                                   .record = choice,
                                   .context = &factor,
                                   .by_token = true,
                                   .sequences = 3,
                                   .rows = 2 + op_size(&sizes, 14),
                                   .large = true, // a step would change who is chosen
                                   .in = {{OP_ROWS, {E}, 1}}},
                 round);
    }
}

// ---- a mixture whose choices go nowhere, now and then ----

struct with {
    size_t E, k;
    bool ranks;
    float capacity;
};

// Grouped and gathered experts with the same matrices, joined by a sum or side by side.
static ember_status mixture(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                            ember_tensor **out)
{
    const struct with *with = c->context;
    const size_t D = in[0]->dim[1];
    ember_routing routing;
    ember_tensor *grouped, **rows, *gathered;
    CHECK_OK(fixture_dropping_routing(flow, in[0], with->E, with->E, with->k, in[1], &routing));
    EM_TRY(ember_grouped_linear(flow, in[0], in[2], NULL, &routing, true, &grouped));
    EM_TRY(ember_grouped_linear(flow, grouped, in[2], NULL, &routing, false, &grouped));
    CHECK_OK(em_flow_array(flow, with->E, &rows));
    for (size_t e = 0; e < with->E; e++) {
        EM_TRY(ember_expert_rows(flow, in[0], &routing, e, &rows[e]));
        EM_TRY(ember_scale(flow, rows[e], (float)e - 1.5f, &rows[e]));
    }
    EM_TRY(ember_gather_experts(flow, rows, &routing, D, &gathered));
    EM_TRY(ember_add(flow, grouped, gathered, &grouped));
    if (with->ranks) return ember_rank_concat(flow, grouped, &routing, &out[0]);
    EM_TRY(ember_weighted_sum(flow, grouped, &routing, &out[0]));
    return ember_expert_sum(flow, gathered, &routing, &out[1]);
}

static void choices_that_go_nowhere(void **state)
{
    (void)state;
    uint64_t sizes = 33;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const struct with with = {
            .E = 1 + op_size(&sizes, 6), .k = 1 + round % 2, .ranks = round & 2};
        const size_t D = op_size(&sizes, 20);
        check_op(&(struct op_case){.name = "mixture",
                                   .record = mixture,
                                   .context = &with,
                                   .products = true,
                                   .rows = op_size(&sizes, 40),
                                   .in = {{OP_ROWS, {D}, 1},
                                          {OP_ROWS, {with.k}, 1},
                                          {OP_PARAMETER, {with.E, D, D}, 3}}},
                 round);
    }
}

// ---- by hand ----

enum { MOST = 64, E4 = 4 };

struct lab {
    struct em_program *program;
    ember_routing routing;
    const struct em_router_record *record;
    size_t T;
};

typedef ember_status route_inputs(ember_flow *flow, ember_tensor *x, void *context,
                                  ember_routing *routing);

static struct lab open_lab(size_t T, size_t vocabulary, route_inputs *route, void *context)
{
    struct lab l = {.T = T, .routing = {.n_experts = E4}};
    ember_tensor *x;
    (void)vocabulary;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 3},
        &l.program));
    CHECK_OK(ember_inputs(em_program_flow(l.program), E4, &x));
    CHECK_OK(route(em_program_flow(l.program), x, context, &l.routing));
    em_program_output(l.program, l.routing.indices);
    em_program_output(l.program, l.routing.weights);
    CHECK_OK(em_program_allocate(l.program));
    em_program_routers(l.program, &l.record);
    return l;
}

static void run_lab(struct lab *l, const ember_batch *batch, bool training)
{
    CHECK_OK(
        em_program_forward(l->program, &(struct em_run){.batch = batch, .training = training}));
}

static void check_row(const struct lab *l, size_t t, const int32_t *index, const float *weight)
{
    const size_t K = l->routing.k;
    for (size_t n = 0; n < K; n++) {
        if (em_i32(l->routing.indices)[t * K + n] != index[n])
            fail_msg("token %zu, choice %zu: %d, not %d", t, n,
                     em_i32(l->routing.indices)[t * K + n], index[n]);
        if (weight) CHECK_NEAR(em_f32(l->routing.weights)[t * K + n], weight[n], 1e-6, "%zu", t);
    }
}

static ember_status route_relu(ember_flow *flow, ember_tensor *x, void *context,
                               ember_routing *routing)
{
    (void)context;
    return ember_route_active(flow, x, NULL, NULL,
                              &(ember_activity_options){.k = 2, .kind = EMBER_ACTIVITY_RELU},
                              routing);
}

static void relu_uses_what_is_positive(void **state)
{
    (void)state;
    const float x[3 * E4] = {1, -1, 0.5f, 0, /**/ -1, -2, -3, -4, /**/ 1, 2, 3, 4};
    struct lab l = open_lab(3, 0, route_relu, NULL);
    run_lab(
        &l,
        &(ember_batch){.n_tokens = 3, .n_sequences = 1, .offset = (size_t[]){0, 3}, .inputs = x},
        false);
    check_row(&l, 0, (int32_t[]){0, 2, -1, -1}, (float[]){1, 0.5f, 0, 0});
    check_row(&l, 1, (int32_t[]){-1, -1, -1, -1}, (float[]){0, 0, 0, 0});
    check_row(&l, 2, (int32_t[]){0, 1, 2, 3}, (float[]){1, 2, 3, 4});
    assert_int_equal(em_plan_offset(l.routing.plan)[E4], 6);
    // 2 of 4 experts for 3 tokens: the second largest of each column, ceil(2 * 3 / 4).
    const float *observed = em_f32(l.record->observed);
    CHECK_NEAR(observed[0], 1, 0, "column 0: 1, 0, 1");
    CHECK_NEAR(observed[1], 0, 0, "column 1: 0, 0, 2");
    CHECK_NEAR(observed[2], 0.5, 0, "column 2: .5, 0, 3");
    em_program_destroy(l.program);
}

static ember_status route_choice(ember_flow *flow, ember_tensor *x, void *context,
                                 ember_routing *routing)
{
    return ember_route_expert_choice(flow, x, *(float *)context, routing);
}

// Every expert has the same share of every sequence, whatever the logits.
static void experts_choose_equally(void **state)
{
    (void)state;
    float x[20 * E4];
    fill_random(x, 20 * E4, 8);
    for (size_t t = 0; t < 20; t++)
        x[t * E4] += 5;
    struct lab l = open_lab(20, 0, route_choice, &(float){2});
    const size_t offset[] = {0, 7, 8, 20}, share[] = {4, 1, 6}; // ceil(2 L / 4)
    run_lab(&l, &(ember_batch){.n_tokens = 20, .n_sequences = 3, .offset = offset, .inputs = x},
            false);
    for (size_t s = 0; s < 3; s++) {
        size_t count[E4] = {0};
        for (size_t t = offset[s]; t < offset[s + 1]; t++)
            for (size_t n = 0; n < E4; n++)
                if (em_i32(l.routing.indices)[t * E4 + n] >= 0)
                    count[em_i32(l.routing.indices)[t * E4 + n]]++;
        for (size_t e = 0; e < E4; e++)
            assert_int_equal(count[e], share[s]);
    }
    assert_int_equal(em_plan_offset(l.routing.plan)[E4], 4 * (4 + 1 + 6));
    em_program_destroy(l.program);
}

static ember_status route_table(ember_flow *flow, ember_tensor *x, void *context,
                                ember_routing *routing)
{
    return ember_route_table(flow, x, context, routing);
}

// A table from a file may hold anything.
static void tables_are_read_with_care(void **state)
{
    (void)state;
    float data[] = {0,       1,     /**/ 3, 3,         /**/ NAN,  2,
                    /**/ -1, 1e30f, /**/ 4, -INFINITY, /**/ 2.2f, 0.9f};
    ember_tensor table;
    CHECK_OK(em_tensor_init(&table, EMBER_F32, (size_t[]){6, 2}, 2, data));
    struct lab l = open_lab(6, 6, route_table, &table);
    const float x[6 * E4] = {0};
    run_lab(&l,
            &(ember_batch){.n_tokens = 6,
                           .n_sequences = 1,
                           .offset = (size_t[]){0, 6},
                           .inputs = x,
                           .tokens = (int32_t[]){0, 1, 2, 3, 4, 5}},
            false);
    check_row(&l, 0, (int32_t[]){0, 1}, (float[]){0.5f, 0.5f});
    check_row(&l, 1, (int32_t[]){3, -1}, (float[]){1, 0});
    check_row(&l, 2, (int32_t[]){2, -1}, (float[]){1, 0});
    check_row(&l, 3, (int32_t[]){-1, -1}, (float[]){0, 0});
    check_row(&l, 4, (int32_t[]){-1, -1}, (float[]){0, 0});
    check_row(&l, 5, (int32_t[]){2, 1}, (float[]){0.5f, 0.5f});
    em_program_destroy(l.program);
}

static ember_status route_position(ember_flow *flow, ember_tensor *x, void *context,
                                   ember_routing *routing)
{
    return ember_route_position(flow, x, *(size_t *)context, routing);
}

static void positions_take_turns(void **state)
{
    (void)state;
    struct lab l = open_lab(12, 0, route_position, &(size_t){2});
    const float x[12 * E4] = {0};
    const size_t offset[] = {0, 3, 12};
    run_lab(&l, &(ember_batch){.n_tokens = 12, .n_sequences = 2, .offset = offset, .inputs = x},
            false);
    for (size_t t = 0; t < 12; t++) {
        const size_t position = t < 3 ? t : t - 3;
        check_row(&l, t, (int32_t[]){(int32_t)(position / 2 % E4)}, (float[]){1});
    }
    em_program_destroy(l.program);
}

static ember_status route_label(ember_flow *flow, ember_tensor *x, void *context,
                                ember_routing *routing)
{
    return ember_route_label(flow, x, *(bool *)context, routing);
}

static void labels_have_experts(void **state)
{
    (void)state;
    for (int all = 0; all < 2; all++) {
        struct lab l = open_lab(6, 0, route_label, &(bool){all});
        const float x[6 * E4] = {0};
        const size_t offset[] = {0, 2, 4, 6};
        run_lab(&l,
                &(ember_batch){.n_tokens = 6,
                               .n_sequences = 3,
                               .offset = offset,
                               .inputs = x,
                               .labels = (int32_t[]){3, -1, 1}},
                false);
        check_row(&l, 1, (int32_t[]){3, -1, -1, -1}, (float[]){1, 0, 0, 0});
        if (all)
            check_row(&l, 2, (int32_t[]){0, 1, 2, 3}, (float[]){0.25f, 0.25f, 0.25f, 0.25f});
        else
            check_row(&l, 2, (int32_t[]){0}, (float[]){1});
        check_row(&l, 5, (int32_t[]){1, -1, -1, -1}, (float[]){1, 0, 0, 0});
        em_program_destroy(l.program);
    }
}

struct capacity {
    float factor;
    bool by_weight;
    ember_tensor *dropped;
};

static ember_status route_capacity(ember_flow *flow, ember_tensor *x, void *context,
                                   ember_routing *routing)
{
    struct capacity *c = context;
    EM_TRY(ember_route_topk(flow, x, NULL,
                            &(ember_topk_options){.k = 1, .score = EMBER_SCORE_SIGMOID}, routing));
    EM_TRY(ember_capacity(flow, c->factor, c->by_weight, routing));
    return ember_dispatch(flow, routing);
}

// All eight tokens want expert 0, whose room is ceil(f * 8 / 4).
static void capacity_drops_the_late_or_the_light(void **state)
{
    (void)state;
    float x[8 * E4];
    for (size_t i = 0; i < 8 * E4; i++)
        x[i] = i % E4 ? -5 : (float)(i / E4 * 3 % 8); // weights in another order than tokens
    for (int by_weight = 0; by_weight < 2; by_weight++)
        for (int training = 0; training < 2; training++) {
            struct lab l =
                open_lab(8, 0, route_capacity, &(struct capacity){1.5f, by_weight, NULL});
            run_lab(&l,
                    &(ember_batch){
                        .n_tokens = 8, .n_sequences = 1, .offset = (size_t[]){0, 8}, .inputs = x},
                    training);
            for (size_t t = 0; t < 8; t++) {
                const size_t rank = by_weight ? 7 - t * 3 % 8 : t;
                const bool kept = !training || rank < 3;
                check_row(&l, t, (int32_t[]){kept ? 0 : -1}, NULL);
                if (!kept) assert_true(em_f32(l.routing.weights)[t] == 0);
            }
            assert_int_equal(em_plan_offset(l.routing.plan)[E4], training ? 3 : 8);
            em_program_destroy(l.program);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activity_with_gradients),
        cmocka_unit_test(expert_choice_with_gradients),
        cmocka_unit_test(choices_that_go_nowhere),
        cmocka_unit_test(relu_uses_what_is_positive),
        cmocka_unit_test(experts_choose_equally),
        cmocka_unit_test(tables_are_read_with_care),
        cmocka_unit_test(positions_take_turns),
        cmocka_unit_test(labels_have_experts),
        cmocka_unit_test(capacity_drops_the_late_or_the_light),
    };
    return OP_RUN_TESTS("routes", tests);
}
