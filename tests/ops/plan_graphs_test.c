// What the dry run promises, over random graphs of operations with shared inputs, views, mixtures
// of experts and recomputed regions: values and gradients are those of a plain evaluation in double
// that shares no memory; buffers that are alive together do not overlap; the forecast is what is
// taken.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "ops/program_priv.h"
#include "support/check.h"
#include "support/op_check.h"
#include "support/op_fixture.h"

enum { ROWS = 5, WIDTH = 6, NODES = 24, EXPERTS = 3, CHOICES = 2, SOURCES = 2, MATRICES = 3 };

enum kind {
    SOURCE,
    ADD,
    SCALE,
    PRODUCT, // tanh(a) b: values stay in range
    LINEAR,  // a W^T, plus b where it has one
    HALVES,  // tanh(tanh(first half) second half), two columns each, times a
    VIEW,    // a itself, reshaped twice
    FORK,    // a scaled: one of an operation's two outputs, the other is not used
    FOLDED,  // scaled as [2, WIDTH / 2]
    MIXTURE, // experts' rows scaled, gathered and summed with tanh of columns of b as weights
    KINDS
};

struct node {
    enum kind kind;
    size_t a, b; // nodes before it; SIZE_MAX: none
    size_t matrix;
    float factor;
    bool kept, kept_gradient;
    bool reached; // the loss depends on it
    int region;   // nodes of one number stand together; -1: none
    // of one program
    ember_tensor *y;
    ember_routing routing;
    // of the evaluation
    double value[ROWS][WIDTH], gradient[ROWS][WIDTH];
};

struct graph {
    struct em_rng rng;
    size_t n;
    struct node node[NODES];
    ember_tensor source[SOURCES], dsource[SOURCES], matrix[MATRICES], dmatrix[MATRICES];
    float data[2][SOURCES + MATRICES][WIDTH * WIDTH];
    double matrix_gradient[MATRICES][WIDTH][WIDTH];
};

static size_t below(struct graph *g, size_t n)
{
    return (size_t)em_rng_below(&g->rng, n);
}

static void new_parameter(struct graph *g, size_t i, ember_tensor *t, ember_tensor *d, size_t rows)
{
    CHECK_OK(em_tensor_init(t, EMBER_F32, (size_t[]){rows, WIDTH}, 2, g->data[0][i]));
    *d = *t;
    d->data = g->data[1][i];
    t->grad = d;
    for (size_t j = 0; j < rows * WIDTH; j++)
        g->data[0][i][j] = (float)(em_rng_uniform(&g->rng) - 0.5);
}

static struct graph *new_graph(uint64_t seed)
{
    struct graph *g = calloc(1, sizeof *g);
    assert_non_null(g);
    em_rng_seed(&g->rng, seed, 0);
    for (size_t i = 0; i < SOURCES; i++)
        new_parameter(g, i, &g->source[i], &g->dsource[i], ROWS);
    for (size_t i = 0; i < MATRICES; i++)
        new_parameter(g, SOURCES + i, &g->matrix[i], &g->dmatrix[i], WIDTH);
    g->n = 3 + below(g, NODES - 2);
    int region = -1, regions = 0;
    for (size_t i = 0; i < g->n; i++) {
        struct node *x = &g->node[i];
        x->kind = i < SOURCES ? SOURCE : (enum kind)(ADD + below(g, KINDS - ADD));
        // Near ones, so that chains grow; now and then a far one, whose life is long.
        x->a = i < SOURCES ? i : below(g, 3) ? i - 1 - below(g, i < 3 ? i : 3) : below(g, i);
        x->b = i < SOURCES ? SIZE_MAX : below(g, 4) ? below(g, i) : x->a;
        if (x->kind == LINEAR && below(g, 2)) x->b = SIZE_MAX;
        x->matrix = below(g, MATRICES);
        x->factor = (float)(0.3 + 0.5 * em_rng_uniform(&g->rng));
        x->kept = below(g, 6) == 0;
        x->kept_gradient = x->kind != VIEW && below(g, 8) == 0;
        if (i >= SOURCES && below(g, 4) == 0) region = below(g, 3) ? regions++ : -1;
        x->region = i < SOURCES ? -1 : region;
    }
    return g;
}

// ---- as a program ----

static ember_status fork_shape(struct em_call *c)
{
    EM_TRY(em_out_like(c, 0, c->in[0]));
    return em_out_like(c, 1, c->in[0]);
}

static void fork_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    (void)c;
    *forward = *backward = (struct em_cost){0};
}

static void fork_forward(const struct em_call *c)
{
    for (size_t i = 0; i < ember_tensor_count(c->in[0]); i++)
        em_f32(c->out[0])[i] = em_f32(c->out[1])[i] = 0.5f * em_f32(c->in[0])[i];
}

static void fork_backward(const struct em_call *c)
{
    for (size_t i = 0; em_wants(c, 0) && i < ember_tensor_count(c->in[0]); i++)
        em_f32(c->in[0]->grad)[i] +=
            0.5f * (em_f32(c->out[0]->grad)[i] + em_f32(c->out[1]->grad)[i]);
}

static const struct em_op op_fork = {
    .name = "test fork",
    .shape = fork_shape,
    .cost = fork_cost,
    .backend =
        {[EM_CPU] = {fork_forward, fork_backward}, [EM_REFERENCE] = {fork_forward, fork_backward}},
};

static ember_status record_fork(ember_flow *f, ember_tensor *a, unsigned which, ember_tensor **y)
{
    struct em_call *c = em_call_new(f, &op_fork, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = a;
    EM_TRY(em_record(f, c));
    *y = c->out[which];
    return EMBER_OK;
}

static ember_status record_halves(ember_flow *f, struct node *x, ember_tensor *a)
{
    ember_tensor *first, *second, *gate, *folded, *y;
    EM_TRY(ember_columns(f, a, 0, WIDTH / 2, &first));
    EM_TRY(ember_columns(f, a, WIDTH / 2, WIDTH, &second));
    EM_TRY(ember_gated(f, first, second, EMBER_TANH, &gate));
    EM_TRY(ember_reshape(f, a, (size_t[]){WIDTH / 2, 2}, 2, &folded));
    EM_TRY(ember_gate_rows(f, gate, folded, EMBER_TANH, &y));
    return ember_reshape(f, y, (size_t[]){WIDTH}, 1, &x->y);
}

static ember_status record_mixture(ember_flow *f, struct node *x, ember_tensor *a, ember_tensor *b)
{
    ember_tensor *rows[EXPERTS], *weights, *gathered;
    EM_TRY(ember_columns(f, b, 1, 1 + CHOICES, &weights));
    EM_TRY(ember_activation(f, weights, EMBER_TANH, &weights));
    EM_TRY(fixture_routing(f, a, EXPERTS, EXPERTS, CHOICES, weights, &x->routing));
    for (size_t e = 0; e < EXPERTS; e++) {
        EM_TRY(ember_expert_rows(f, a, &x->routing, e, &rows[e]));
        EM_TRY(ember_scale(f, rows[e], x->factor * (float)(e + 1) / EXPERTS, &rows[e]));
    }
    EM_TRY(ember_gather_experts(f, rows, &x->routing, WIDTH, &gathered));
    return ember_weighted_sum(f, gathered, &x->routing, &x->y);
}

static ember_status record_node(struct graph *g, ember_flow *f, struct node *x)
{
    ember_tensor *a = x->kind == SOURCE ? NULL : g->node[x->a].y,
                 *b = x->b == SIZE_MAX ? NULL : g->node[x->b].y, *folded;
    switch (x->kind) {
    case SOURCE: return fixture_source(f, &g->source[x->a], NULL, &x->y);
    case ADD: return ember_add(f, a, b, &x->y);
    case SCALE: return ember_scale(f, a, x->factor, &x->y);
    case PRODUCT: return ember_gated(f, a, b, EMBER_TANH, &x->y);
    case LINEAR: return ember_linear(f, a, &g->matrix[x->matrix], NULL, b, &x->y);
    case HALVES: return record_halves(f, x, a);
    case VIEW:
        EM_TRY(ember_reshape(f, a, (size_t[]){WIDTH / 2, 2}, 2, &folded));
        return ember_reshape(f, folded, (size_t[]){WIDTH}, 1, &x->y);
    case FORK: return record_fork(f, a, x->matrix % 2, &x->y);
    case FOLDED:
        EM_TRY(ember_reshape(f, a, (size_t[]){2, WIDTH / 2}, 2, &folded));
        EM_TRY(ember_scale(f, folded, x->factor, &folded));
        return ember_reshape(f, folded, (size_t[]){WIDTH}, 1, &x->y);
    case MIXTURE: return record_mixture(f, x, a, b);
    case KINDS: break;
    }
    return EMBER_E_INTERNAL;
}

static struct em_program *record_graph(struct graph *g, const struct em_program_options *given)
{
    struct em_program_options options = *given;
    struct em_program *p;
    ember_tensor *loss;
    options.max_tokens = ROWS;
    options.max_sequences = 1;
    CHECK_OK(em_program_create(&options, &p));
    ember_flow *f = em_program_flow(p);
    for (size_t i = 0; i < g->n; i++) {
        struct node *x = &g->node[i];
        if (x->region >= 0 && (i == 0 || g->node[i - 1].region != x->region))
            CHECK_OK(em_flow_region_begin(f));
        CHECK_OK(record_node(g, f, x));
        if (x->region >= 0 && (i + 1 == g->n || g->node[i + 1].region != x->region))
            em_flow_region_end(f);
        if (x->kept) em_program_output(p, x->y);
        if (x->kept_gradient) em_program_output(p, x->y->grad);
        if (x->kind != MIXTURE) continue;
        em_program_output(p, x->routing.indices);        // for the evaluation
        x->routing.plan->info->root->info->keep = false; // nobody reads it afterwards
    }
    CHECK_OK(ember_mean_square(f, g->node[g->n - 1].y, &loss));
    em_program_loss(p, loss);
    return p;
}

// ---- by a walk over the nodes ----

// The factor of a mixture's n-th choice for row r.
static double expert_factor(const struct node *x, size_t r, size_t n)
{
    const float choice = (float)em_i32(x->routing.indices)[r * CHOICES + n];
    return (double)(x->factor * (choice + 1) / EXPERTS);
}

// Of HALVES: the gate of element j, and the derivatives of its first and second half.
struct gate {
    size_t first, second;
    double value, d_first, d_second;
};

static struct gate gate_of(const double *a, size_t j)
{
    struct gate g = {.first = j / 2, .second = WIDTH / 2 + j / 2};
    const double t = tanh(a[g.first]);
    g.value = tanh(t * a[g.second]);
    g.d_first = (1 - g.value * g.value) * (1 - t * t) * a[g.second];
    g.d_second = (1 - g.value * g.value) * t;
    return g;
}

static double evaluate_element(const struct graph *g, const struct node *x, size_t r, size_t j)
{
    const double *a = x->kind == SOURCE ? NULL : g->node[x->a].value[r],
                 *b = x->b == SIZE_MAX ? NULL : g->node[x->b].value[r];
    double y = 0;
    switch (x->kind) {
    case SOURCE: return (double)em_row(&g->source[x->a], r)[j];
    case ADD: return a[j] + b[j];
    case VIEW: return a[j];
    case FORK: return a[j] * 0.5;
    case SCALE:
    case FOLDED: return a[j] * (double)x->factor;
    case PRODUCT: return tanh(a[j]) * b[j];
    case LINEAR:
        for (size_t k = 0; k < WIDTH; k++)
            y += a[k] * (double)em_row(&g->matrix[x->matrix], j)[k];
        return b ? y + b[j] : y;
    case HALVES: return gate_of(a, j).value * a[j];
    case MIXTURE:
        for (size_t n = 0; n < CHOICES; n++)
            y += tanh(b[1 + n]) * a[j] * expert_factor(x, r, n);
        return y;
    case KINDS: break;
    }
    return y;
}

static void evaluate(struct graph *g, size_t rows)
{
    for (size_t i = 0; i < g->n; i++)
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < WIDTH; j++)
                g->node[i].value[r][j] = evaluate_element(g, &g->node[i], r, j);
}

static void differentiate_element(struct graph *g, const struct node *x, size_t r, size_t j)
{
    double unused[WIDTH] = {0};
    const double dy = x->gradient[r][j], *a = g->node[x->a].value[r],
                 *b = x->b == SIZE_MAX ? unused : g->node[x->b].value[r];
    double *da = g->node[x->a].gradient[r],
           *db = x->b == SIZE_MAX ? unused : g->node[x->b].gradient[r];
    struct gate gate;
    switch (x->kind) {
    case SOURCE:
    case KINDS: break;
    case ADD:
        da[j] += dy;
        db[j] += dy;
        break;
    case VIEW: da[j] += dy; break;
    case FORK: da[j] += dy * 0.5; break;
    case SCALE:
    case FOLDED: da[j] += dy * (double)x->factor; break;
    case PRODUCT:
        da[j] += dy * b[j] * (1 - tanh(a[j]) * tanh(a[j]));
        db[j] += dy * tanh(a[j]);
        break;
    case LINEAR:
        db[j] += dy;
        for (size_t k = 0; k < WIDTH; k++) {
            da[k] += dy * (double)em_row(&g->matrix[x->matrix], j)[k];
            g->matrix_gradient[x->matrix][j][k] += dy * a[k];
        }
        break;
    case HALVES:
        gate = gate_of(a, j);
        da[gate.first] += dy * a[j] * gate.d_first;
        da[gate.second] += dy * a[j] * gate.d_second;
        da[j] += dy * gate.value;
        break;
    case MIXTURE:
        for (size_t n = 0; n < CHOICES; n++) {
            const double t = tanh(b[1 + n]), factor = expert_factor(x, r, n);
            da[j] += dy * t * factor;
            db[1 + n] += dy * a[j] * (1 - t * t) * factor;
        }
        break;
    }
}

static bool uses_b(const struct node *x)
{
    return x->b != SIZE_MAX &&
           (x->kind == ADD || x->kind == PRODUCT || x->kind == LINEAR || x->kind == MIXTURE);
}

// Of the mean of the last node's squares.
static void differentiate(struct graph *g, size_t rows)
{
    memset(g->matrix_gradient, 0, sizeof g->matrix_gradient);
    for (size_t i = 0; i < g->n; i++)
        memset(g->node[i].gradient, 0, sizeof g->node[i].gradient);
    struct node *last = &g->node[g->n - 1];
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < WIDTH; j++)
            last->gradient[r][j] = 2 * last->value[r][j] / (double)(rows * WIDTH);
    for (size_t i = 0; i < g->n; i++)
        g->node[i].reached = i + 1 == g->n;
    for (size_t i = g->n; i-- > SOURCES;)
        if (g->node[i].reached) {
            g->node[g->node[i].a].reached = true;
            if (uses_b(&g->node[i])) g->node[g->node[i].b].reached = true;
        }
    for (size_t i = g->n; i-- > SOURCES;)
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < WIDTH; j++)
                differentiate_element(g, &g->node[i], r, j);
}

// ---- comparison ----

static void check_gradient(const ember_tensor *found, const double *expected, size_t rows,
                           const char *what, uint64_t seed)
{
    double largest = 1e-3;
    for (size_t i = 0; i < rows * WIDTH; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < rows * WIDTH; i++) {
        const double f = (double)em_f32(found)[i];
        if (fabs(f - expected[i]) <= 1e-4 * largest) continue;
        print_error("graph %zu: gradient of %s, element %zu: %.9g, not %.9g\n", (size_t)seed, what,
                    i, f, expected[i]);
        fail();
    }
}

static void check_run(struct graph *g, struct em_program *p, size_t rows, uint64_t seed)
{
    float inputs = 0;
    for (size_t i = 0; i < SOURCES + MATRICES; i++)
        memset(g->data[1][i], 0, sizeof g->data[1][i]);
    memset(p->block, 0xff, p->memory.activations); // NaN, and no index
    em_program_weights_changed(p);
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &(ember_batch){.n_tokens = rows,
                                                    .n_sequences = 1,
                                                    .offset = (size_t[]){0, rows},
                                                    .inputs = &inputs},
                            .gradients = true,
                            .loss_scale = 1 / (double)rows}));
    CHECK_OK(em_program_backward(p));
    evaluate(g, rows);
    differentiate(g, rows);
    for (size_t i = 0; i < g->n; i++)
        for (size_t j = 0; g->node[i].kept && j < rows * WIDTH; j++) { // after backward too
            const double f = (double)em_f32(g->node[i].y)[j],
                         e = g->node[i].value[j / WIDTH][j % WIDTH];
            if (fabs(f - e) <= 1e-4 * fmax(fabs(e), 1e-2)) continue;
            print_error("graph %zu: node %zu, element %zu: %.9g, not %.9g\n", (size_t)seed, i, j, f,
                        e);
            fail();
        }
    for (size_t i = 0; i < g->n; i++)
        if (g->node[i].kept_gradient && g->node[i].reached)
            check_gradient(g->node[i].y->grad, g->node[i].gradient[0], rows, "a node", seed);
    for (size_t i = 0; i < SOURCES; i++)
        check_gradient(&g->dsource[i], g->node[i].gradient[0], rows, "a source", seed);
    for (size_t i = 0; i < MATRICES; i++)
        check_gradient(&g->dmatrix[i], g->matrix_gradient[i][0], WIDTH, "a matrix", seed);
}

// Buffers in the order of their roots; what is alive at once never overlaps, and the block is no
// larger than that needs.
static void check_memory(const struct em_program *p)
{
    size_t end = 0, sum = 0, most = 0;
    for (size_t s = 0; s < p->n_steps; s++) {
        size_t alive = 0;
        for (size_t i = 0; i < p->n_tensors; i++) {
            const struct em_tensor_info *a = p->tensor[i]->info;
            if (a->root != p->tensor[i] || a->alias || a->first == EM_NEVER) continue;
            if (a->first <= s && s <= a->last) alive += a->bytes;
        }
        if (alive > most) most = alive;
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct em_tensor_info *a = p->tensor[i]->info;
        if (a->root != p->tensor[i] || a->alias || a->first == EM_NEVER) continue;
        sum += a->bytes;
        if (a->offset + a->bytes > end) end = a->offset + a->bytes;
        assert_true(a->bytes >= em_tensor_bytes(p->tensor[i]));
        for (size_t j = 0; j < i; j++) {
            const struct em_tensor_info *b = p->tensor[j]->info;
            if (b->root != p->tensor[j] || b->alias || b->first == EM_NEVER) continue;
            if (a->first > b->last || b->first > a->last) continue;
            assert_true(a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset);
        }
    }
    assert_int_equal(p->memory.sum_of_buffers, sum);
    assert_int_equal(p->memory.activations, end);
    assert_true(end >= most && end <= sum);
}

// The forecast is the allocation, but for what the heap rounds up: to pages, for each of a few
// blocks.
static void allocate(struct em_program *p)
{
    struct em_memory_plan plan;
    CHECK_OK(em_program_plan(p, &plan));
    const size_t before = em_alloc_live();
    CHECK_OK(em_program_allocate(p));
    const size_t taken = em_alloc_live() - before,
                 foreseen = plan.activations + plan.packed + plan.scratch;
    if (taken < foreseen || taken > foreseen + 8 * 4096)
        fail_msg("%zu bytes were foreseen, %zu are taken", foreseen, taken);
}

static void random_graphs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < op_rounds(400); seed++) {
        struct graph *g = new_graph(seed);
        for (unsigned way = 0; way < 6; way++) {
            struct em_program *p = record_graph(
                g, &(struct em_program_options){.backend = way & 1 ? EM_CPU : EM_REFERENCE,
                                                .gradients = true,
                                                .recompute = (enum em_recompute)(way / 2)});
            allocate(p);
            check_memory(p);
            check_run(g, p, ROWS, seed);
            check_run(g, p, 1 + below(g, ROWS), seed);
            em_program_destroy(p);
        }
        free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
