// timeout: 600
// plugins
// What every registered layer has to hold, at random configs made from its own option table: nobody
// writes a test for a new layer to get these.
//   chunked = whole: fed in pieces through the carried state, a sequence gives what it gives at
//   once packed = separate: sequences in one batch give what each gives alone the future never
//   changes the past: other tokens later leave earlier outputs as they were
// and: cpu equals reference, outputs and gradients; gradients equal differences of the loss; a
// recomputed block has bit-equal gradients; a saved model opens again as the same.
//
// EMBER_TEST_PLUGIN=FILE.so: the components of that plug-in, each alone and within those built in.
// EMBER_TEST_COMPONENT=NAME: that one. EMBER_TEST_ROUNDS, EMBER_TEST_SEED: how many configs, which.
#include <ember/plugin.h>
#include <ember/runtime.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/rng.h"
#include "models/model.h"
#include "support/check.h"

enum { VOCABULARY = 19, TOKENS = 23, SEQUENCES = 3, ROUNDS = 6, FEW = 2, TRIES = 500 };

// ---- random configs ----

static size_t below(struct em_rng *rng, size_t n)
{
    return (size_t)em_rng_below(rng, n);
}

// Zeros for a whole block would hide what came before it.
static const struct em_component *pick(struct em_rng *rng, ember_kind kind)
{
    const struct em_component *found = NULL, *c;
    size_t n = 0;
    for (size_t i = 0; (c = em_registry_at(i)); i++)
        if (c->kind == kind && strcmp(c->name, "zero") && below(rng, ++n) == 0) found = c;
    return found;
}

static unsigned flags_of(const struct em_component *c)
{
    return ((const ember_layer_type *)c->impl)->flags;
}

static json_t *random_component(struct em_rng *rng, const struct em_component *c, unsigned depth);

static json_t *random_value(struct em_rng *rng, const ember_option *o, unsigned depth)
{
    const char *choice = o->text;
    json_t *list;
    switch (o->type) {
    case EMBER_OPTION_BOOL: return json_boolean(below(rng, 2));
    case EMBER_OPTION_SIZE: {
        // Products of many inputs, and many layers of random weights, make much of what f32 rounds,
        // or vanish beside the residual path: hyena_test.c holds every order against a bound of its
        // own.
        const bool deep = !strcmp(o->name, "order") || strstr(o->name, "layers");
        const double least = fmax(o->min, deep ? 4 : 8), most = fmin(o->max, least);
        return json_integer((json_int_t)o->min +
                            (json_int_t)below(rng, (size_t)(most - o->min) + 1));
    }
    case EMBER_OPTION_FLOAT:
    case EMBER_OPTION_DOUBLE: {
        const double high = fmin(o->max, fmax(o->preset * 2, 0.5)),
                     low = fmax(o->min, o->preset / 4);
        return json_real(low + (high - low) * em_rng_uniform(rng));
    }
    case EMBER_OPTION_ENUM: {
        size_t n = 1;
        for (const char *p = o->text; *p; p++)
            n += *p == '|';
        for (size_t i = below(rng, n); i > 0; i--)
            choice = strchr(choice, '|') + 1;
        return json_stringn(choice, strcspn(choice, "|"));
    }
    case EMBER_OPTION_COMPONENT:
        return depth < 3 ? random_component(rng, pick(rng, (ember_kind)o->kind), depth + 1) : NULL;
    case EMBER_OPTION_COMPONENTS:
        list = json_array();
        for (size_t i = 2 + below(rng, 3); i > 0; i--)
            json_array_append_new(list,
                                  random_component(rng, pick(rng, (ember_kind)o->kind), depth + 1));
        return list;
    case EMBER_OPTION_STRING:
    case EMBER_OPTION_END: break;
    }
    return NULL;
}

static json_t *random_component(struct em_rng *rng, const struct em_component *c, unsigned depth)
{
    json_t *config = json_pack("{s:s}", "type", c->name);
    for (const ember_option *o = c->options; o && o->name; o++) {
        // Widths default to several times the model's: always small here. Noise has no place in
        // these properties.
        const bool always = o->type == EMBER_OPTION_SIZE || o->type == EMBER_OPTION_COMPONENT;
        if (!strcmp(o->name, "dropout")) continue;
        // A block within a channel mixer has no sequence mixer.
        if (c->kind == EMBER_BLOCK && depth && !strcmp(o->name, "sequence")) continue;
        // What looks at later tokens in training alone is causal here.
        if (!strcmp(o->name, "accept_future")) {
            if (!(flags_of(c) & EMBER_NOT_CAUSAL))
                json_object_set_new(config, o->name, json_true());
            continue;
        }
        if (o->type == EMBER_OPTION_COMPONENTS && (depth > 1 || below(rng, 3))) continue;
        if (!always && below(rng, 2)) continue;
        json_t *value = random_value(rng, o, depth);
        if (value) json_object_set_new(config, o->name, value);
    }
    return config;
}

// A model of two blocks around the component.
static json_t *random_model(struct em_rng *rng, const struct em_component *c)
{
    static const size_t width[] = {8, 12, 16, 24};
    json_t *layer = random_component(rng, c, 0), *block;
    switch (c->kind) {
    case EMBER_SEQUENCE_MIXER:
        block = json_pack("{s:s, s:o}", "type", "pre_norm", "sequence", layer);
        break;
    case EMBER_CHANNEL_MIXER:
        block = json_pack("{s:s, s:o}", "type", "pre_norm", "channel", layer);
        break;
    case EMBER_NORM:
        block = json_pack("{s:s, s:o, s:{s:s}}", "type", "sandwich_norm", "norm", layer, "channel",
                          "type", "mlp");
        break;
    case EMBER_ROUTER:
        block = json_pack("{s:s, s:{s:s, s:i, s:o}}", "type", "pre_norm", "channel", "type", "moe",
                          "experts", (int)(2 + below(rng, 6)), "router", layer);
        break;
    case EMBER_GATE:
        block = json_pack("{s:s, s:{s:s, s:i, s:{s:s, s:i, s:o}}}", "type", "pre_norm", "channel",
                          "type", "moe", "experts", (int)(2 * (1 + below(rng, 4))), "router",
                          "type", "softmax_topk", "k", 2, "gate", layer);
        break;
    case EMBER_COMBINER:
        block = json_pack("{s:s, s:{s:s, s:o}}", "type", "pre_norm", "channel", "type", "moe",
                          "combiner", layer);
        break;
    default: block = layer; break;
    }
    // A sequence mixer after it, so that a leak from token to token shows at other tokens too.
    return json_pack("{s:s, s:b, s:i, s:i, s:b, s:f, s:[o, {s:s, s:{s:s}}]}", "model_type", "ember",
                     "causal", !(flags_of(c) & EMBER_NOT_CAUSAL), "hidden_size",
                     (int)width[below(rng, 4)], "vocab_size", VOCABULARY, "tie_word_embeddings",
                     (int)below(rng, 2), "initializer_range", 0.4, "blocks", block, "type",
                     "pre_norm", "sequence", "type", "short_conv");
}

static struct em_model *open_random(struct em_rng *rng, const struct em_component *c, char *text,
                                    size_t size)
{
    for (unsigned i = 0; i < TRIES; i++) {
        struct em_model *m = NULL;
        json_t *config = random_model(rng, c);
        char *dump = json_dumps(config, JSON_COMPACT);
        snprintf(text, size, "%s", dump);
        free(dump);
        const ember_status status = em_model_create(config, "random", NULL, &m);
        json_decref(config);
        if (status == EMBER_OK) return m;
        // A random config may be refused, but only as a config.
        if (status != EMBER_E_CONFIG) fail_msg("%s: %s", text, ember_last_error());
    }
    fail_msg("%s %s: no random config was accepted; the last refusal: %s", ember_kind_name(c->kind),
             c->name, ember_last_error());
    return NULL;
}

// ---- running ----

struct runner {
    struct em_program *program;
    struct em_model_outputs out;
};

static void runner_open(struct runner *r, const struct em_model *m, enum em_backend backend,
                        bool gradients, enum em_recompute recompute)
{
    assert_int_equal(em_program_create(&(struct em_program_options){.backend = backend,
                                                                    .max_tokens = TOKENS,
                                                                    .max_sequences = SEQUENCES,
                                                                    .gradients = gradients,
                                                                    .recompute = recompute},
                                       &r->program),
                     EMBER_OK);
    CHECK_OK(em_model_record(m, r->program, gradients ? EM_HEAD_LOSS : EM_HEAD_NONE, &r->out));
    assert_int_equal(em_program_allocate(r->program), EMBER_OK);
}

static void run(struct runner *r, const ember_batch *batch)
{
    const struct em_run run = {
        .batch = batch, .loss_scale = 1, .aux_scale = 0.5, .gradients = r->out.loss != NULL};
    if (em_program_forward(r->program, &run) != EMBER_OK) fail_msg("%s", ember_last_error());
    if (r->out.loss && em_program_backward(r->program) != EMBER_OK)
        fail_msg("%s", ember_last_error());
}

static void check_equal(const float *a, const float *b, size_t n, double tolerance,
                        const char *what, const char *config)
{
    double largest = 1e-30, worst = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        worst = d > worst || !isfinite(d) ? d : worst;
    }
    if (!(worst <= tolerance * largest))
        fail_msg("%s: off by %g of %g: %s", what, worst, largest, config);
}

struct subject {
    const struct em_model *m;
    const char *config;
    struct em_rng *rng;
    bool causal, looked_ahead;
    int32_t tokens[TOKENS], targets[TOKENS];
    float *whole; // [TOKENS, D], one sequence at once
};

static void run_pieces(struct subject *s, struct runner *r, float *out)
{
    ember_state *state;
    const size_t D = s->m->width;
    assert_int_equal(em_state_create(em_program_layout(r->program), &state), EMBER_OK);
    for (size_t at = 0; at < TOKENS;) {
        size_t n = 1 + below(s->rng, 6);
        if (at + n > TOKENS) n = TOKENS - at;
        const size_t offset[] = {0, n};
        // The old state may be overwritten, or a new one left.
        ember_state *next = state;
        if (below(s->rng, 2))
            assert_int_equal(em_state_create(em_program_layout(r->program), &next), EMBER_OK);
        run(r, &(ember_batch){.n_tokens = n,
                              .n_sequences = 1,
                              .offset = offset,
                              .tokens = s->tokens + at,
                              .state_in = &state,
                              .state_out = &next});
        memcpy(out + at * D, em_f32(r->out.hidden), n * D * sizeof *out);
        if (next != state) em_state_destroy(state);
        state = next;
        at += n;
    }
    em_state_destroy(state);
}

static void run_separately(struct subject *s, struct runner *r, const size_t *offset, float *out)
{
    const size_t D = s->m->width;
    for (size_t i = 0; i < SEQUENCES; i++) {
        const size_t n = offset[i + 1] - offset[i], own[] = {0, n};
        run(r,
            &(ember_batch){
                .n_tokens = n, .n_sequences = 1, .offset = own, .tokens = s->tokens + offset[i]});
        memcpy(out + offset[i] * D, em_f32(r->out.hidden), n * D * sizeof *out);
    }
}

static void check_outputs(struct subject *s, enum em_backend backend)
{
    struct runner r;
    const size_t n = TOKENS * s->m->width, all[] = {0, TOKENS};
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    runner_open(&r, s->m, backend, false, false);
    const ember_batch whole = {
        .n_tokens = TOKENS, .n_sequences = 1, .offset = all, .tokens = s->tokens};
    run(&r, &whole);
    memcpy(a, em_f32(r.out.hidden), n * sizeof *a);
    if (backend == EM_CPU) memcpy(s->whole, a, n * sizeof *a);
    check_equal(a, s->whole, n, 1e-5, "reference and cpu differ", s->config);

    if (s->causal) {
        run_pieces(s, &r, b);
        check_equal(b, a, n, 1e-5, "in pieces and at once differ", s->config);
    }

    const size_t offset[] = {0, 1 + below(s->rng, 7), 9 + below(s->rng, 9), TOKENS};
    run(&r,
        &(ember_batch){
            .n_tokens = TOKENS, .n_sequences = SEQUENCES, .offset = offset, .tokens = s->tokens});
    memcpy(b, em_f32(r.out.hidden), n * sizeof *b);
    float *alone = malloc(n * sizeof *alone);
    run_separately(s, &r, offset, alone);
    check_equal(b, alone, n, 1e-5, "packed and separate differ", s->config);
    free(alone);

    const size_t from = 1 + below(s->rng, TOKENS - 1);
    int32_t other[TOKENS];
    memcpy(other, s->tokens, sizeof other);
    for (size_t t = from; t < TOKENS; t++)
        other[t] = (other[t] + 1 + (int32_t)below(s->rng, VOCABULARY - 1)) % VOCABULARY;
    run(&r, &(ember_batch){.n_tokens = TOKENS, .n_sequences = 1, .offset = all, .tokens = other});
    if (s->causal)
        check_equal(em_f32(r.out.hidden), a, from * s->m->width, 1e-5,
                    "the future changes the past", s->config);
    // What says that it is not causal, is not: at one config at least.
    double past = 0;
    for (size_t i = 0; i < from * s->m->width; i++)
        past = fmax(past, fabs((double)em_f32(r.out.hidden)[i] - (double)a[i]));
    s->looked_ahead = s->looked_ahead || past > 0;
    // The last place did change, or the check above would say nothing.
    double moved = 0;
    for (size_t i = from * s->m->width; i < n; i++)
        moved = fmax(moved, fabs((double)em_f32(r.out.hidden)[i] - (double)a[i]));
    if (!(moved > 0)) fail_msg("other tokens change nothing at all: %s", s->config);
    em_program_destroy(r.program);
    free(a);
    free(b);
}

static void gradients(struct subject *s, enum em_backend backend, enum em_recompute recompute,
                      float *to)
{
    struct runner r;
    const size_t offset[] = {0, 5, 11, TOKENS};
    memset(to, 0, s->m->n_values * sizeof *to);
    struct em_model *m = (struct em_model *)(uintptr_t)s->m;
    assert_int_equal(em_model_attach_gradients(m, to), EMBER_OK);
    runner_open(&r, s->m, backend, true, recompute);
    run(&r, &(ember_batch){.n_tokens = TOKENS,
                           .n_sequences = SEQUENCES,
                           .offset = offset,
                           .tokens = s->tokens,
                           .targets = s->targets});
    em_program_destroy(r.program);
}

static void check_gradients(struct subject *s)
{
    const size_t n = s->m->n_values;
    float *cpu = malloc(n * sizeof *cpu), *again = malloc(n * sizeof *again);
    gradients(s, EM_CPU, EM_RECOMPUTE_NONE, cpu);
    for (enum em_recompute r = EM_RECOMPUTE_CHEAP; r <= EM_RECOMPUTE_REGIONS; r++) {
        gradients(s, EM_CPU, r, again);
        for (size_t i = 0; i < n; i++)
            if (memcmp(&cpu[i], &again[i], sizeof *cpu))
                fail_msg("recomputation changes gradient %zu from %g to %g: %s", i, (double)cpu[i],
                         (double)again[i], s->config);
    }
    gradients(s, EM_REFERENCE, EM_RECOMPUTE_NONE, again);
    size_t at = 0;
    for (size_t i = 0; i < s->m->params.count; i++) {
        const struct em_param *p = s->m->params.param[i];
        const size_t count = ember_tensor_count(&p->tensor);
        // A gradient that cancels to nearly nothing has no relative accuracy: against the largest
        // of all.
        double scale = 0, all = 0;
        for (size_t j = 0; j < count; j++)
            scale = fmax(scale, fabs((double)again[at + j]));
        for (size_t j = 0; j < n; j++)
            all = fmax(all, fabs((double)again[j]));
        for (size_t j = 0; j < count; j++)
            if (!(fabs((double)cpu[at + j] - (double)again[at + j]) <= 2e-4 * scale + 1e-6 * all))
                fail_msg("gradient of %s: cpu %g, reference %g of %g: %s", p->tensor.name,
                         (double)cpu[at + j], (double)again[at + j], scale, s->config);
        at += count;
    }
    free(cpu);
    free(again);
}

// ---- differences ----

static double loss_at(struct runner *r, const ember_batch *batch)
{
    const struct em_run run = {.batch = batch, .loss_scale = 1};
    em_program_weights_changed(r->program);
    if (em_program_forward(r->program, &run) != EMBER_OK) fail_msg("%s", ember_last_error());
    double sum =
        0; // of the tokens' own figures: the loss as one float has less than half the digits
    for (size_t t = 0; t < batch->n_tokens; t++)
        sum += (double)em_f32(r->out.nll)[t];
    return sum;
}

// The derivative along a unit direction d, by central differences with a step of e.
static double slope_along(struct runner *r, const ember_batch *batch, float *x, const float *d,
                          size_t n, double e)
{
    double value[2];
    float *kept = malloc(n * sizeof *kept);
    memcpy(kept, x, n * sizeof *x);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((double)kept[i] + (side ? e : -e) * (double)d[i]);
        value[side] = loss_at(r, batch);
    }
    memcpy(x, kept, n * sizeof *x);
    free(kept);
    return (value[1] - value[0]) / (2 * e);
}

// Of one parameter, along its gradient and along a random direction. A step may cross a kink, or
// send a token to another expert: a gradient that is right agrees at one of the steps.
static void check_slopes(struct subject *s, struct runner *r, const ember_batch *batch,
                         const struct em_param *p, const float *g)
{
    const size_t n = ember_tensor_count(&p->tensor);
    float *d = malloc(n * sizeof *d);
    double norm = 0;
    for (size_t i = 0; i < n; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    for (int random = 0; random < 2; random++) {
        double length = 0, expected = 0, found = 0;
        for (size_t i = 0; i < n; i++) {
            d[i] = random ? (float)em_rng_normal(s->rng) : g[i];
            length += (double)d[i] * (double)d[i];
        }
        for (size_t i = 0; i < n && length > 0; i++) {
            d[i] = (float)((double)d[i] / sqrt(length));
            expected += (double)d[i] * (double)g[i];
        }
        bool agrees = false, jumps = false;
        for (double e = 2e-2, before = 0; e > 3e-4 && !agrees; e /= 4, before = found) {
            found = slope_along(r, batch, em_f32(&p->tensor), d, n, e);
            agrees = fabs(found - expected) <= 0.01 * norm + 4e-6 / e;
            jumps = fabs(found) > 3.5 * fabs(before) && fabs(found) > 20 * norm;
        }
        // Where experts tie the loss jumps, four times as steeply with a quarter of the step: there
        // is no derivative.
        if (!agrees && !jumps)
            fail_msg("%s: the loss changes by %g along a direction, its gradient says %g: %s",
                     p->tensor.name, found, expected, s->config);
    }
    free(d);
}

// The reference's gradients of the first block, which has the component, without auxiliary losses.
static void check_differences(struct subject *s)
{
    struct runner r;
    struct em_model *m = (struct em_model *)(uintptr_t)s->m;
    const size_t offset[] = {0, 5, 11, TOKENS};
    float *g = calloc(m->n_values, sizeof *g);
    assert_int_equal(em_model_attach_gradients(m, g), EMBER_OK);
    runner_open(&r, m, EM_REFERENCE, true, false);
    const ember_batch batch = {.n_tokens = TOKENS,
                               .n_sequences = SEQUENCES,
                               .offset = offset,
                               .tokens = s->tokens,
                               .targets = s->targets};
    const struct em_run run = {.batch = &batch, .loss_scale = 1, .gradients = true};
    assert_int_equal(em_program_forward(r.program, &run), EMBER_OK);
    assert_int_equal(em_program_backward(r.program), EMBER_OK);
    size_t at = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        const struct em_param *p = m->params.param[i];
        if (!p->frozen && strncmp(p->tensor.name, "blocks.0.", 9) == 0)
            check_slopes(s, &r, &batch, p, g + at);
        at += ember_tensor_count(&p->tensor);
    }
    em_program_destroy(r.program);
    free(g);
}

static void check_saved(const struct subject *s, const char *directory)
{
    struct em_model *m;
    char *path = em_path_join(directory, "model.safetensors");
    assert_int_equal(em_model_save_config(s->m, directory, EM_ST_F32), EMBER_OK);
    assert_int_equal(em_model_save_weights(s->m, path, EM_ST_F32), EMBER_OK);
    if (em_model_open(directory, &m) != EMBER_OK) fail_msg("%s: %s", ember_last_error(), s->config);
    assert_int_equal(m->params.count, s->m->params.count);
    for (size_t i = 0; i < m->params.count; i++) {
        const ember_tensor *a = &m->params.param[i]->tensor, *b = &s->m->params.param[i]->tensor;
        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->data, b->data, em_tensor_bytes(b));
    }
    em_model_close(m);
    em_free(path);
}

static void check_component(const struct em_component *c, size_t rounds, uint64_t seed)
{
    char config[4096];
    const char *directory = test_directory();
    bool causal = false, looked_ahead = false;
    for (size_t round = 0; round < rounds; round++) {
        struct em_rng rng;
        em_rng_seed(&rng, seed, round);
        struct em_model *m = open_random(&rng, c, config, sizeof config);
        assert_int_equal(em_model_allocate(m), EMBER_OK);
        em_model_init(m, seed + round, NULL);
        // Buffers and biases start at zero: values of their own make a forgotten one visible.
        for (size_t i = 0; i < m->params.count; i++)
            if (m->params.param[i]->init != EMBER_INIT_NORMAL)
                for (size_t j = 0; j < ember_tensor_count(&m->params.param[i]->tensor); j++)
                    em_f32(&m->params.param[i]->tensor)[j] += (float)(0.2 * em_rng_normal(&rng));
        struct subject s = {.m = m,
                            .config = config,
                            .rng = &rng,
                            .causal = m->causal,
                            .whole = malloc(TOKENS * m->width * sizeof(float))};
        for (size_t t = 0; t < TOKENS; t++) {
            s.tokens[t] = (int32_t)below(&rng, VOCABULARY);
            s.targets[t] = (int32_t)below(&rng, VOCABULARY + 3) - 3;
        }
        check_outputs(&s, EM_CPU);
        check_outputs(&s, EM_REFERENCE);
        check_gradients(&s);
        if (round < FEW || c->plugin) check_differences(&s);
        check_saved(&s, directory);
        causal = causal || s.causal;
        looked_ahead = looked_ahead || s.looked_ahead;
        free(s.whole);
        em_model_close(m);
    }
    if (!causal && !looked_ahead)
        fail_msg("%s says that it is not causal, but the future never changes the past", c->name);
}

static bool is_layer(ember_kind kind)
{
    return kind == EMBER_SEQUENCE_MIXER || kind == EMBER_CHANNEL_MIXER || kind == EMBER_NORM ||
           kind == EMBER_ROUTER || kind == EMBER_COMBINER || kind == EMBER_GATE ||
           kind == EMBER_BLOCK;
}

static void every_layer_holds_its_properties(void **state)
{
    (void)state;
    const char *rounds = getenv("EMBER_TEST_ROUNDS"), *seed = getenv("EMBER_TEST_SEED"),
               *only = getenv("EMBER_TEST_COMPONENT");
    const bool plugin = getenv("EMBER_TEST_PLUGIN") != NULL;
    const struct em_component *c;
    size_t layers = 0;
    for (size_t i = 0; (c = em_registry_at(i)); i++) {
        // Blocks of images take images of their size alone: tests/models/vmamba_test.c and
        // tests/ops/image_test.c have them.
        if (is_layer(c->kind) && (flags_of(c) & EMBER_IMAGES)) continue;
        if (!is_layer(c->kind) || (plugin && !c->plugin) || (only && strcmp(c->name, only) != 0))
            continue;
        check_component(c, rounds ? strtoul(rounds, NULL, 10) : ROUNDS,
                        seed ? strtoull(seed, NULL, 10) : 1);
        print_message("%s %s\n", ember_kind_name(c->kind), c->name);
        layers++;
    }
    assert_true(layers >= (plugin || only ? 1 : 14));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_layer_holds_its_properties)};
    const char *plugin = getenv("EMBER_TEST_PLUGIN");
    if ((plugin ? ember_plugin_load(plugin) : ember_start()) != EMBER_OK) {
        fprintf(stderr, "%s\n", ember_last_error());
        return 1;
    }
    return cmocka_run_group_tests_name("nn/properties", tests, NULL, NULL);
}
