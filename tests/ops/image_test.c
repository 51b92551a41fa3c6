// Operations on images: cpu against reference and differences; scan and merge as they are defined.
#include <string.h>

#include "support/op_check.h"

struct grid {
    size_t rows, columns, k, stride, padding, begin, end, groups;
    float p;
};

static ember_status scan(ember_flow *f, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    return ember_cross_scan(f, in[0], ((const struct grid *)c->context)->columns, &out[0]);
}

static ember_status merge(ember_flow *f, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    return ember_cross_merge(f, in[0], ((const struct grid *)c->context)->columns, &out[0]);
}

static ember_status depthwise(ember_flow *f, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_depthwise_conv2d(f, in[0], in[1], c->in[2].ndim ? in[2] : NULL,
                                  ((const struct grid *)c->context)->columns, &out[0]);
}

static ember_status mean(ember_flow *f, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    (void)c;
    return ember_sequence_mean(f, in[0], &out[0]);
}

// The matrices are a product of the sequences' means.
static ember_status sequence_linear(ember_flow *f, ember_tensor **in, const struct op_case *c,
                                    ember_tensor **out)
{
    ember_tensor *mean, *matrices;
    (void)c;
    EM_TRY(ember_sequence_mean(f, in[0], &mean));
    EM_TRY(ember_linear_f32(f, mean, in[1], NULL, &matrices));
    return ember_sequence_linear(f, in[0], matrices, &out[0]);
}

static ember_status drop_path(ember_flow *f, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_drop_path(f, in[0], ((const struct grid *)c->context)->p, &out[0]);
}

static ember_status group_linear(ember_flow *f, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    const struct grid *g = c->context;
    return ember_group_linear(f, in[0], in[1], g->groups, g->begin, g->end, &out[0]);
}

static void on_tokens_of_any_number(void **state)
{
    (void)state;
    uint64_t sizes = 11;
    for (size_t round = 0; round < op_rounds(5); round++) {
        const size_t E = op_size(&sizes, 40), k = 1 + 2 * (round % 3);
        const struct grid g = {.columns = op_size(&sizes, 7), .p = 0.4f};
        struct op_case c = {.context = &g,
                            .rows = op_size(&sizes, 40),
                            .by_token = true,
                            .sequences = op_size(&sizes, 3),
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {E}, 1}}};
        c.name = "cross_scan";
        c.record = scan;
        check_op(&c, round);
        c.name = "sequence_mean";
        c.record = mean;
        check_op(&c, round);
        c.name = "sequence_linear";
        c.record = sequence_linear;
        c.in[1] = (struct op_input){.kind = OP_PARAMETER, .dim = {(1 + round) * E, E}, .ndim = 2};
        check_op(&c, round);
        c.in[1].ndim = 0;
        c.name = "drop_path";
        c.record = drop_path;
        c.random = true;
        check_op(&c, round);
        c.random = false;
        c.name = "cross_merge";
        c.record = merge;
        c.in[0].dim[0] = 4 * E;
        check_op(&c, round);
        c.name = "depthwise_conv2d";
        c.record = depthwise;
        c.in[0].dim[0] = E;
        c.in[1] = (struct op_input){.kind = OP_PARAMETER, .dim = {E, 1, k, k}, .ndim = 4};
        if (round & 2) c.in[2] = (struct op_input){.kind = OP_PARAMETER, .dim = {E}, .ndim = 1};
        check_op(&c, round);
    }
}

static void groups_of_columns(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (size_t round = 0; round < op_rounds(5); round++) {
        const size_t G = op_size(&sizes, 4), P = op_size(&sizes, 9), K = op_size(&sizes, 20);
        const size_t begin = op_size(&sizes, P) - 1, end = begin + op_size(&sizes, P - begin);
        const struct grid g = {.groups = G, .begin = begin, .end = end};
        check_op(&(struct op_case){.name = "group_linear",
                                   .record = group_linear,
                                   .context = &g,
                                   .rows = op_size(&sizes, 30),
                                   .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {G * K}, 1},
                                          {OP_PARAMETER, {G, P, K}, 3}}},
                 round);
    }
}

// Images of a given size are recorded by themselves: check_op() has sequences of any length.
enum { MOST = 9000 }; // values of a tensor, at most

struct run {
    float y[MOST], dx[MOST], dw[MOST], db[MOST];
    size_t rows, width;
};

static ember_status record(ember_flow *f, const struct grid *g, ember_tensor *x, ember_tensor *w,
                           ember_tensor *b, ember_tensor **y)
{
    if (!w) return ember_space_to_depth(f, x, g->rows, g->columns, y);
    const ember_conv2d_options o = {g->rows, g->columns, g->stride, g->padding};
    return ember_conv2d(f, x, w, b, &o, y);
}

// The loss is half the sum of the mean squares; gradients of the input come through a matrix.
static void run_images(enum em_backend backend, const struct grid *g, size_t C, size_t O,
                       struct run *r)
{
    static float weights[MOST], bias[64], x[MOST], first[64 * 64];
    struct em_program *p;
    ember_tensor in, w, b, gin, gw, gb, *t, *y, *loss;
    const size_t offset[] = {0, g->rows * g->columns, 2 * g->rows * g->columns};
    fill_random(weights, MOST, 3);
    fill_random(bias, 64, 4);
    fill_random(x, MOST, 5);
    fill_random(first, 64 * 64, 6);
    memset(r, 0, sizeof *r);
    CHECK_OK(em_tensor_init(&in, EMBER_F32, (size_t[]){C, 3}, 2, first));
    CHECK_OK(em_tensor_init(&gin, EMBER_F32, (size_t[]){C, 3}, 2, r->dx));
    CHECK_OK(em_tensor_init(&w, EMBER_F32, (size_t[]){O, C, g->k, g->k}, 4, weights));
    CHECK_OK(em_tensor_init(&gw, EMBER_F32, (size_t[]){O, C, g->k, g->k}, 4, r->dw));
    CHECK_OK(em_tensor_init(&b, EMBER_F32, &O, 1, bias));
    CHECK_OK(em_tensor_init(&gb, EMBER_F32, &O, 1, r->db));
    in.grad = &gin;
    w.grad = &gw;
    b.grad = &gb;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = offset[2], .max_sequences = 2, .gradients = true},
        &p));
    ember_flow *f = em_program_flow(p);
    CHECK_OK(ember_inputs(f, 3, &t));
    CHECK_OK(ember_linear(f, t, &in, NULL, NULL, &t));
    CHECK_OK(record(f, g, t, O ? &w : NULL, O ? &b : NULL, &y));
    CHECK_OK(ember_mean_square(f, y, &loss));
    em_program_output(p, y);
    em_program_loss(p, loss);
    CHECK_OK(em_program_allocate(p));
    ember_batch batch = {.n_tokens = offset[2], .n_sequences = 2, .offset = offset, .inputs = x};
    const struct em_run run = {.batch = &batch, .gradients = true, .loss_scale = 0.5};
    CHECK_OK(em_program_forward(p, &run));
    CHECK_OK(em_program_backward(p));
    r->rows = y->dim[0];
    r->width = y->dim[1];
    assert_true(r->rows * r->width <= MOST);
    memcpy(r->y, em_f32(y), r->rows * r->width * sizeof *r->y);
    batch.n_sequences = 1;
    batch.n_tokens = offset[1] + 1;
    batch.offset = (size_t[]){0, offset[1] + 1};
    CHECK_FAILS(em_program_forward(p, &run), EMBER_E_SHAPE, "the model reads images of");
    em_program_destroy(p);
}

static void images_of_a_size(void **state)
{
    (void)state;
    static struct run a, b;
    static const struct grid grids[] = {
        {.rows = 9, .columns = 6, .k = 3, .stride = 2, .padding = 1},
        {.rows = 8, .columns = 8, .k = 4, .stride = 4},
        {.rows = 5, .columns = 7, .k = 2, .stride = 2},
        {.rows = 3, .columns = 3, .k = 3, .stride = 1, .padding = 2},
        {.rows = 1, .columns = 1, .k = 1, .stride = 1},
        {.rows = 33, .columns = 32, .k = 2, .stride = 1, .padding = 1}, // one after the other
        {.rows = 5, .columns = 7}, // space to depth
        {.rows = 4, .columns = 1},
    };
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        const size_t O = grids[i].k ? 3 : 0;
        run_images(EM_CPU, &grids[i], 4, O, &a);
        run_images(EM_REFERENCE, &grids[i], 4, O, &b);
        assert_int_equal(a.rows, b.rows);
        for (size_t j = 0; j < a.rows * a.width; j++)
            CHECK_NEAR(a.y[j], b.y[j], 2e-5, "grid %zu, y %zu", i, j);
        for (size_t j = 0; j < 12; j++)
            CHECK_NEAR(a.dx[j], b.dx[j], 2e-4, "grid %zu, dx %zu", i, j);
        for (size_t j = 0; j < O * 4 * grids[i].k * grids[i].k; j++)
            CHECK_NEAR(a.dw[j], b.dw[j], 2e-4, "grid %zu, dw %zu", i, j);
        for (size_t j = 0; j < O; j++)
            CHECK_NEAR(a.db[j], b.db[j], 2e-4, "grid %zu, db %zu", i, j);
    }
}

// What a walk gives for images of one channel: the program's output of both operations.
static void walk(enum em_backend backend, const float *x, size_t n, size_t columns, float *scanned,
                 float *merged, size_t width)
{
    struct em_program *p;
    ember_tensor *t, *wide, *narrow;
    const size_t offset[] = {0, n};
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = backend, .max_tokens = n, .max_sequences = 1}, &p));
    CHECK_OK(ember_inputs(em_program_flow(p), width, &t));
    CHECK_OK(ember_cross_scan(em_program_flow(p), t, columns, &wide));
    CHECK_OK(ember_cross_merge(em_program_flow(p), wide, columns, &narrow));
    em_program_output(p, wide);
    em_program_output(p, narrow);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = n, .n_sequences = 1, .offset = offset, .inputs = x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    memcpy(scanned, em_f32(wide), n * width * 4 * sizeof *x);
    memcpy(merged, em_f32(narrow), n * width * sizeof *x);
    em_program_destroy(p);
}

static void a_scan_of_two_rows_of_three(void **state)
{
    (void)state;
    static const float x[] = {0, 1, 2, 3, 4, 5};
    static const float expected[4][6] = {
        {0, 1, 2, 3, 4, 5}, {0, 3, 1, 4, 2, 5}, {5, 4, 3, 2, 1, 0}, {5, 2, 4, 1, 3, 0}};
    float wide[24], narrow[6];
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        walk((enum em_backend)backend, x, 6, 3, wide, narrow, 1);
        for (size_t k = 0; k < 4; k++)
            for (size_t i = 0; i < 6; i++)
                CHECK_NEAR(wide[i * 4 + k], expected[k][i], 0, "direction %zu, place %zu", k, i);
        for (size_t i = 0; i < 6; i++) // four visits: exactly four times the pixel
            CHECK_NEAR(narrow[i], 4 * x[i], 0, "pixel %zu", i);
    }
}

// <scan x, y> = <x, merge y>: with what check_op() says of gradients (each one's is the other), and
// here with numbers.
static void merge_is_the_adjoint_of_scan(void **state)
{
    (void)state;
    enum { N = 5 * 7, E = 3 };
    float x[N * E], y[N * 4 * E], scanned[N * 4 * E], unused[N * 4 * E];
    fill_random(x, N * E, 1);
    fill_random(y, N * 4 * E, 2);
    walk(EM_CPU, x, N, 7, scanned, unused, E);
    struct em_program *p;
    ember_tensor *t, *merged;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = N, .max_sequences = 1}, &p));
    CHECK_OK(ember_inputs(em_program_flow(p), 4 * E, &t));
    CHECK_OK(ember_cross_merge(em_program_flow(p), t, 7, &merged));
    em_program_output(p, merged);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = N, .n_sequences = 1, .offset = (size_t[]){0, N}, .inputs = y};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    double a = 0, b = 0;
    for (size_t i = 0; i < N * 4 * E; i++)
        a += (double)scanned[i] * (double)y[i];
    for (size_t i = 0; i < N * E; i++)
        b += (double)x[i] * (double)em_f32(merged)[i];
    CHECK_NEAR(a, b, 1e-5, "inner products");
    em_program_destroy(p);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct grid g = {.columns = 0};
    struct op_case c = {.record = scan, .context = &g, .by_token = true, .in = {{OP_ROWS, {6}, 1}}};
    check_op_refused(&c, EMBER_E_RANGE, "cross_scan: a grid of 0 x 0");
    g.columns = 3;
    c.record = merge;
    check_op_refused(&c, EMBER_E_SHAPE, "cross_merge: y has to be [T, 4 E], not [5, 6]");
    c.record = depthwise;
    c.in[1] = (struct op_input){.kind = OP_PARAMETER, .dim = {6, 1, 2, 2}, .ndim = 4};
    check_op_refused(&c, EMBER_E_SHAPE, "a parameter [E, 1, k, k] with k odd");
    c.record = drop_path;
    c.in[1].ndim = 0;
    g.p = 1;
    check_op_refused(&c, EMBER_E_RANGE, "p has to be in [0, 1), not 1");
    c.in[0] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 6}, .ndim = 2};
    c.record = scan;
    check_op_refused(&c, EMBER_E_SHAPE, "with a row per pixel, not [5, 6]");
    c.record = mean;
    check_op_refused(&c, EMBER_E_SHAPE, "with rows of sequences, not [5, 6]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_tokens_of_any_number),
        cmocka_unit_test(groups_of_columns),
        cmocka_unit_test(images_of_a_size),
        cmocka_unit_test(a_scan_of_two_rows_of_three),
        cmocka_unit_test(merge_is_the_adjoint_of_scan),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("image", tests);
}
