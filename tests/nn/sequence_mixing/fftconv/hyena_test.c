// Hyena by itself: published vectors, impulse responses, prefixes of filters, every order
// against sums in double, and decoding with a filter that is kept while the weights are.
#include <ember/runtime.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "nn/build.h"
#include "ops/program.h"
#include "support/check.h"

struct subject {
    struct em_arena arena;
    struct em_params params;
    struct em_packs *packs;
    ember_layer *layer;
    size_t width;
};

static void subject_open(struct subject *s, size_t width, const char *config)
{
    *s = (struct subject){.width = width};
    json_t *json;
    CHECK_OK(em_json_parse("layer", config, strlen(config), 0, &json));
    struct ember_build b = {.arena = &s->arena,
                            .params = &s->params,
                            .file = "layer",
                            .path = "",
                            .where = "layer",
                            .width = width,
                            .allow_not_causal = true};
    CHECK_OK(em_packs_create(&s->packs));
    CHECK_OK(em_build_at(&b, "l", "layer", EMBER_SEQUENCE_MIXER, em_json_config(json), &s->layer));
    for (size_t i = 0; i < s->params.count; i++) {
        ember_tensor *t = &s->params.param[i]->tensor;
        t->data = em_arena_alloc(&s->arena, ember_tensor_count(t) * sizeof(float));
        assert_non_null(t->data);
    }
    json_decref(json);
}

static void subject_close(struct subject *s)
{
    em_packs_destroy(s->packs);
    em_params_deinit(&s->params);
    em_arena_deinit(&s->arena);
}

static ember_tensor *param(struct subject *s, const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "l.%s", name);
    struct em_param *p = em_params_find(&s->params, path);
    if (!p) fail_msg("there is no parameter %s", path);
    return &p->tensor;
}

static ember_tensor *part(struct subject *s, const char *prefix, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    return param(s, path);
}

// What the layer says of its own start; other parameters are random.
static void start(struct subject *s, uint64_t seed)
{
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    for (size_t i = 0; i < s->params.count; i++) {
        struct em_param *p = s->params.param[i];
        const size_t n = ember_tensor_count(&p->tensor);
        if (p->filling.fill)
            p->filling.fill(p->filling.context, &rng, &p->tensor);
        else
            for (size_t j = 0; j < n; j++)
                em_f32(&p->tensor)[j] = (float)(0.3 * em_rng_normal(&rng));
    }
    em_packs_changed(s->packs);
}

// The filling rule of published vectors: value i of tensor k is 0.5 sin(0.37 i + 1.3 k), i from 1.
static void fill_by_rule(ember_tensor *t, unsigned k)
{
    for (size_t i = 0; i < ember_tensor_count(t); i++)
        em_f32(t)[i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * (double)k));
}

static void set_all(ember_tensor *t, float value)
{
    for (size_t i = 0; i < ember_tensor_count(t); i++)
        em_f32(t)[i] = value;
}

// y [T, width] of x, `chunk` tokens at a time (0: all at once, without a state).
static void run(struct subject *s, enum em_backend backend, const float *x, size_t T, size_t chunk,
                float *y)
{
    struct em_program *p;
    ember_tensor *in, *out;
    ember_state *state;
    const size_t most = chunk ? chunk : T;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = most, .max_sequences = 1, .packs = s->packs},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), s->width, &in));
    CHECK_OK(ember_forward(s->layer, em_program_flow(p), in, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_state_create(em_program_layout(p), &state));
    for (size_t at = 0; at < T; at += most) {
        const size_t n = T - at < most ? T - at : most, offset[] = {0, n};
        ember_batch batch = {
            .n_tokens = n, .n_sequences = 1, .offset = offset, .inputs = x + at * s->width};
        if (chunk) batch.state_in = batch.state_out = &state;
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
        memcpy(y + at * s->width, em_f32(out), n * s->width * sizeof *y);
    }
    em_state_destroy(state);
    em_program_destroy(p);
}

// The first T rows of the filter `prefix`, of three layers of sines, without a skip.
static void filter(struct subject *s, enum em_backend backend, const char *prefix, size_t T,
                   float *k)
{
    struct em_program *p;
    ember_tensor *in, *out;
    ember_filter_network n = {.z = part(s, prefix, "positions"),
                              .t = part(s, prefix, "times"),
                              .deltas = part(s, prefix, "deltas"),
                              .frequency = part(s, prefix, "frequency"),
                              .hidden = 3};
    static const char *const weight[] = {"layers.0.weight", "layers.1.weight", "layers.2.weight",
                                         "layers.3.weight"},
                             *const bias[] = {"layers.0.bias", "layers.1.bias", "layers.2.bias"};
    for (size_t i = 0; i <= n.hidden; i++)
        n.weight[i] = part(s, prefix, weight[i]);
    for (size_t i = 0; i < n.hidden; i++)
        n.bias[i] = part(s, prefix, bias[i]);
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 1, .packs = s->packs},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), 1, &in));
    CHECK_OK(ember_implicit_filter(em_program_flow(p), &n, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    float *zeros = em_calloc(T, sizeof *zeros);
    const size_t offset[] = {0, T};
    const ember_batch batch = {.n_tokens = T, .n_sequences = 1, .offset = offset, .inputs = zeros};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    assert_int_equal(out->dim[0], T);
    memcpy(k, em_f32(out), T * out->dim[1] * sizeof *k);
    em_free(zeros);
    em_program_destroy(p);
}

static void check_close(const float *found, const double *expected, size_t n, double tolerance,
                        const char *what)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)found[i] - expected[i]) <= tolerance * largest))
            fail_msg("%s: %zu is %.9g, not %.9g", what, i, (double)found[i], expected[i]);
}

#define VECTOR                                                                                     \
    "{\"type\": \"hyena\", \"filter_length\": 6, \"emb_dim\": 5, \"filter_width\": 4,"             \
    " \"frequency\": 10}"

static void open_vector(struct subject *s)
{
    static const char *const name[] = {"filter.layers.0.weight",
                                       "filter.layers.0.bias",
                                       NULL,
                                       "filter.layers.1.weight",
                                       "filter.layers.1.bias",
                                       "filter.layers.2.weight",
                                       "filter.layers.2.bias",
                                       "filter.layers.3.weight",
                                       NULL,
                                       NULL,
                                       "in_proj.weight",
                                       "in_proj.bias",
                                       "short_conv.weight",
                                       "short_conv.bias",
                                       "out_proj.weight",
                                       "out_proj.bias",
                                       "filter.skip"};
    subject_open(s, 2, VECTOR);
    start(s, 1);
    for (unsigned k = 1; k <= sizeof name / sizeof *name; k++)
        if (name[k - 1]) fill_by_rule(param(s, name[k - 1]), k);
    em_packs_changed(s->packs);
}

static void the_published_filter(void **state)
{
    (void)state;
    static const double z[] = {0.2, 1, 0.5, -0.00010472, -0.866025},
                        k[] = {-0.417941,  0.622549,     0.00258961, -0.00169394,
                               -0.0235201, 0.000416728,  0.0621751,  -2.64182e-05,
                               0.0380324,  -6.27562e-07, -0.0173082, -3.58242e-08};
    struct subject s;
    float found[12];
    open_vector(&s);
    check_close(em_f32(param(&s, "filter.positions")) + 5, z, 5, 1e-6, "z of position 1");
    check_close(em_f32(param(&s, "filter.deltas")), (const double[]){-3.0701135, -15.350567}, 2,
                1e-7, "deltas");
    for (int backend = EM_REFERENCE; backend < EM_BACKENDS; backend++) {
        filter(&s, (enum em_backend)backend, "filter", 6, found);
        // Three sines of frequency 10 in a row make much of what f32 rounds inside of them.
        check_close(found, k, 12, 1e-5, "filter");
        // Small ones to their own size, too.
        for (size_t i = 0; i < 12; i++)
            assert_true(fabs((double)found[i] - k[i]) <= 1e-3 * fabs(k[i]));
    }
    subject_close(&s);
}

static void the_published_operator(void **state)
{
    (void)state;
    static const double y[] = {0.365207, 0.217142, 0.366479, 0.21846,  0.374849, 0.228149,
                               0.358361, 0.210504, 0.3292,   0.178065, 0.326707, 0.175273};
    struct subject s;
    float x[12], found[12];
    open_vector(&s);
    for (size_t i = 0; i < 12; i++)
        x[i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * 18));
    for (int backend = EM_REFERENCE; backend < EM_BACKENDS; backend++)
        for (size_t chunk = 0; chunk <= 6; chunk++) {
            run(&s, (enum em_backend)backend, x, 6, chunk, found);
            check_close(found, y, 12, 1e-5, "operator");
        }
    subject_close(&s);
}

// With gates of one, the layer's answer to an impulse is its filter, and the skip at the impulse.
static void an_impulse_gives_the_filter(void **state)
{
    (void)state;
    enum { T = 50, D = 3, AT = 7 };
    struct subject s;
    float x[T * D] = {0}, y[T * D], k[T * D];
    subject_open(&s, D, "{\"type\": \"hyena\", \"filter_length\": 64, \"filter_shift\": 0.05}");
    start(&s, 3);
    static const char *const zero[] = {"in_proj.weight",  "in_proj.bias",    "short_conv.weight",
                                       "short_conv.bias", "out_proj.weight", "out_proj.bias"};
    for (size_t i = 0; i < 6; i++)
        set_all(param(&s, zero[i]), 0);
    float *in = em_f32(param(&s, "in_proj.weight")), *out = em_f32(param(&s, "out_proj.weight"));
    for (size_t d = 0; d < D; d++) {
        in[(2 * D + d) * D + d] = out[d * D + d] = x[AT * D + d] = 1;
        em_f32(param(&s, "in_proj.bias"))[d] = em_f32(param(&s, "in_proj.bias"))[D + d] = 1;
    }
    for (size_t i = 0; i < 3 * (size_t)D; i++)
        em_f32(param(&s, "short_conv.weight"))[3 * i + 2] = 1;
    em_packs_changed(s.packs);
    run(&s, EM_CPU, x, T, 0, y);
    filter(&s, EM_CPU, "filter", T, k);
    double expected[T * D] = {0};
    // This network's shift is not known to filter(), which has none: by the window's own formula.
    for (size_t t = 0; t + AT < T; t++)
        for (size_t d = 0; d < D; d++) {
            const double window = exp(-(double)em_f32(param(&s, "filter.times"))[t] *
                                      fabs((double)em_f32(param(&s, "filter.deltas"))[d]));
            expected[(t + AT) * D + d] = (double)k[t * D + d] / window * (window + 0.05);
            if (t == 0) expected[AT * D + d] += (double)em_f32(param(&s, "filter.skip"))[d];
        }
    check_close(y, expected, T * D, 2e-6, "impulse response");
    subject_close(&s);
}

static void a_shorter_filter_is_the_beginning_of_a_longer_one(void **state)
{
    (void)state;
    enum { L = 1500 };
    struct subject s;
    float some[37 * 4], all[L * 4];
    subject_open(&s, 4, "{\"type\": \"hyena\", \"filter_length\": 1500, \"frequency\": 10}");
    start(&s, 5);
    filter(&s, EM_CPU, "filter", L, all);
    filter(&s, EM_CPU, "filter", 37, some);
    assert_memory_equal(some, all, sizeof some);
    subject_close(&s);
}

// Tokens one by one read a filter that was computed before, until a weight changes.
static void decoding_keeps_its_filter_while_the_weights_stay(void **state)
{
    (void)state;
    enum { T = 200, D = 6 };
    struct subject s;
    static float x[T * D], whole[T * D], pieces[T * D];
    subject_open(&s, D,
                 "{\"type\": \"hyena\", \"filter_length\": 1026, \"order\": 3, \"frequency\": 3}");
    fill_random(x, T * D, 4);
    start(&s, 7);
    run(&s, EM_CPU, x, T, 0, whole);
    double expected[T * D];
    for (size_t chunk = 1; chunk < 60; chunk += 19) {
        for (size_t i = 0; i < T * D; i++)
            expected[i] = (double)whole[i];
        run(&s, EM_CPU, x, T, chunk, pieces);
        check_close(pieces, expected, T * D, 1e-5, "in pieces");
    }
    // A program that lives on while the weights change.
    struct em_program *p;
    ember_tensor *in, *out;
    ember_state *carried;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = 1, .max_sequences = 1, .packs = s.packs},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), D, &in));
    CHECK_OK(ember_forward(s.layer, em_program_flow(p), in, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_state_create(em_program_layout(p), &carried));
    for (uint64_t seed = 8; seed < 10; seed++) {
        start(&s, seed);
        run(&s, EM_CPU, x, T, 0, whole);
        for (size_t i = 0; i < T * D; i++)
            expected[i] = (double)whole[i];
        em_state_reset(carried);
        for (size_t t = 0; t < T; t++) {
            const size_t offset[] = {0, 1};
            const ember_batch batch = {.n_tokens = 1,
                                       .n_sequences = 1,
                                       .offset = offset,
                                       .inputs = x + t * D,
                                       .state_in = &carried,
                                       .state_out = &carried};
            CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
            memcpy(pieces + t * D, em_f32(out), D * sizeof *pieces);
        }
        check_close(pieces, expected, T * D, 1e-5, "after a change of weights");
    }
    em_state_destroy(carried);
    em_program_destroy(p);
    subject_close(&s);
}

// ---- every order, against sums in double ----

enum { TOKENS = 23, D = 4, LAGS = 19 };

// A stream of the layer in double, and what f32 may be off by: what operands bring along, and what
// the operation adds, for a transform in proportion to the largest value that it meets. Products of
// many gates can be much smaller than what they are made of, so a share of the result is no bound.
struct stream {
    double value[TOKENS][D], error[TOKENS][D];
};

static const double ROUNDING = 6e-8; // of f32
static const double OWN = 12;        // roundings that an operation adds

// Rows first .. first + D - 1 of x W^T + b.
static struct stream exact_linear(const struct stream *x, const ember_tensor *w,
                                  const ember_tensor *b, size_t first)
{
    struct stream y;
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t d = 0; d < D; d++) {
            const float *row = em_f32(w) + (first + d) * D;
            double sum = (double)em_f32(b)[first + d], size = fabs(sum), error = 0;
            for (size_t i = 0; i < D; i++) {
                sum += (double)row[i] * x->value[t][i];
                size += fabs((double)row[i] * x->value[t][i]);
                error += fabs((double)row[i]) * x->error[t][i];
            }
            y.value[t][d] = sum;
            y.error[t][d] = error + OWN * ROUNDING * size;
        }
    return y;
}

// Channel d of the filter, k[lag * stride + d], over x; `later`: over what comes, not what was.
static void add_filtered(struct stream *y, const struct stream *x, const double *k, size_t stride,
                         bool later)
{
    for (size_t d = 0; d < D; d++) {
        double largest = 0, taps = 0;
        for (size_t t = 0; t < TOKENS; t++)
            largest = fmax(largest, fabs(x->value[t][d]));
        for (size_t lag = 0; lag < LAGS; lag++)
            taps += fabs(k[lag * stride + d]);
        for (size_t t = 0; t < TOKENS; t++) {
            for (size_t lag = 0; lag < LAGS && (later ? t + lag < TOKENS : lag <= t); lag++) {
                const size_t from = later ? t + lag : t - lag;
                y->value[t][d] += k[lag * stride + d] * x->value[from][d];
                y->error[t][d] += fabs(k[lag * stride + d]) * x->error[from][d];
            }
            y->error[t][d] += OWN * ROUNDING * taps * largest;
        }
    }
}

static void multiply(struct stream *x, const struct stream *by)
{
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t d = 0; d < D; d++) {
            const double a = x->value[t][d], b = by->value[t][d];
            x->error[t][d] = fabs(a) * by->error[t][d] + fabs(b) * x->error[t][d] +
                             x->error[t][d] * by->error[t][d] + ROUNDING * fabs(a * b);
            x->value[t][d] = a * b;
        }
}

// [LAGS, channels], with the skip at lag 0.
static double *exact_filter(struct subject *s, const char *prefix, size_t channels)
{
    const size_t n = LAGS * channels;
    float *k = em_calloc(n, sizeof *k);
    double *exact = em_calloc(n, sizeof *exact);
    assert_true(k && exact);
    filter(s, EM_REFERENCE, prefix, LAGS, k);
    for (size_t i = 0; i < n; i++)
        exact[i] = (double)k[i];
    for (size_t c = 0; c < channels && strcmp(prefix, "filter") == 0; c++)
        exact[c] += (double)em_f32(param(s, "filter.skip"))[c];
    em_free(k);
    return exact;
}

// in_proj and the short convolution: stream i of [x_0, .., x_{o-1}, v].
static struct stream exact_input(struct subject *s, const struct stream *x, size_t i)
{
    const struct stream wide =
        exact_linear(x, param(s, "in_proj.weight"), param(s, "in_proj.bias"), i * D);
    const ember_tensor *w = param(s, "short_conv.weight"), *b = param(s, "short_conv.bias");
    const size_t width = w->dim[1];
    double taps[LAGS * D] = {0};
    for (size_t d = 0; d < D; d++)
        for (size_t lag = 0; lag < width; lag++)
            taps[lag * D + d] = (double)em_f32(w)[(i * D + d) * width + width - 1 - lag];
    struct stream y = {0};
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t d = 0; d < D; d++)
            y.value[t][d] = (double)em_f32(b)[i * D + d];
    add_filtered(&y, &wide, taps, D, false);
    return y;
}

static struct stream exact_hyena(struct subject *s, const float *x, size_t order, bool two_sided)
{
    const size_t channels = (order - 1) * D;
    double *k = exact_filter(s, "filter", channels),
           *later = two_sided ? exact_filter(s, "later_filter", channels) : NULL;
    struct stream in = {0};
    for (size_t i = 0; i < (size_t)TOKENS * D; i++)
        in.value[i / D][i % D] = (double)x[i];
    struct stream v = exact_input(s, &in, order), gate;
    for (size_t o = 0; o + 1 < order; o++) {
        gate = exact_input(s, &in, order - 1 - o);
        multiply(&v, &gate);
        struct stream next = {0};
        add_filtered(&next, &v, k + o * D, channels, false);
        if (later) add_filtered(&next, &v, later + o * D, channels, true);
        v = next;
    }
    gate = exact_input(s, &in, 0);
    multiply(&v, &gate);
    em_free(k);
    em_free(later);
    return exact_linear(&v, param(s, "out_proj.weight"), param(s, "out_proj.bias"), 0);
}

static void check_stream(const float *found, const struct stream *exact, size_t order,
                         const char *what)
{
    double largest = 0, loosest = 0;
    for (size_t i = 0; i < (size_t)TOKENS * D; i++) {
        const double value = exact->value[i / D][i % D], error = exact->error[i / D][i % D];
        largest = fmax(largest, fabs(value));
        loosest = fmax(loosest, error);
        if (!(fabs((double)found[i] - value) <= error))
            fail_msg("order %zu, %s: %zu is %.9g, not %.9g within %.2g", order, what, i,
                     (double)found[i], value, error);
    }
    if (!(loosest <= 1e-4 * pow(2, (double)order - 2) * largest))
        fail_msg("order %zu: a bound of %g says nothing of %g", order, loosest, largest);
}

static void every_order_is_what_sums_in_double_give(void **state)
{
    (void)state;
    static const size_t orders[] = {2, 3, 5, 6, 7, 9, 12};
    for (size_t i = 0; i < 2 * sizeof orders / sizeof *orders; i++) {
        const size_t order = orders[i / 2];
        const bool two_sided = i % 2;
        struct subject s;
        char config[160];
        float x[TOKENS * D], y[TOKENS * D], other[TOKENS * D];
        snprintf(config, sizeof config,
                 "{\"type\": \"hyena%s\", \"order\": %zu, \"filter_length\": %d, \"frequency\": 2}",
                 two_sided ? "_two_sided" : "", order, LAGS);
        subject_open(&s, D, config);
        start(&s, 11 + order);
        set_all(param(&s, "out_proj.bias"), 0); // nothing beside the products
        fill_random(x, TOKENS * D, (unsigned)order);
        const struct stream exact = exact_hyena(&s, x, order, two_sided);
        run(&s, EM_REFERENCE, x, TOKENS, 0, y);
        check_stream(y, &exact, order, two_sided ? "two sides, reference" : "reference");
        run(&s, EM_CPU, x, TOKENS, 0, y);
        check_stream(y, &exact, order, two_sided ? "two sides, cpu" : "cpu");
        for (size_t chunk = 1; !two_sided && chunk < TOKENS; chunk += 6) {
            run(&s, EM_CPU, x, TOKENS, chunk, other);
            check_stream(other, &exact, order, "in pieces");
        }
        // Whatever the order, the last token reaches earlier outputs of two sides, and of one none.
        memcpy(other, x, sizeof x);
        for (size_t d = 0; d < D; d++)
            other[(TOKENS - 1) * D + d] = -x[(TOKENS - 1) * D + d];
        const struct stream moved = exact_hyena(&s, other, order, two_sided);
        run(&s, EM_CPU, other, TOKENS, 0, y);
        check_stream(y, &moved, order, "another last token");
        double most = 0; // times what f32 may be off by
        for (size_t t = 0; t + 1 < TOKENS; t++)
            for (size_t d = 0; d < D; d++)
                most = fmax(most, fabs(moved.value[t][d] - exact.value[t][d]) / exact.error[t][d]);
        if (two_sided ? most < 4 : most > 0)
            fail_msg("order %zu: the last token moves earlier outputs by %g", order, most);
        subject_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_filter),
        cmocka_unit_test(the_published_operator),
        cmocka_unit_test(an_impulse_gives_the_filter),
        cmocka_unit_test(a_shorter_filter_is_the_beginning_of_a_longer_one),
        cmocka_unit_test(every_order_is_what_sums_in_double_give),
        cmocka_unit_test(decoding_keeps_its_filter_while_the_weights_stay)};
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/hyena", tests, NULL, NULL);
}
