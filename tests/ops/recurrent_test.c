// timeout: 300
// LSTM, GRU, LTC and CfC cells: both backends, gradients, states, and what is known of them.
#include <math.h>

#include "base/rng.h"
#include "support/op_check.h"

static ember_status lstm(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    return ember_lstm(flow, in[0], in[1], c->in[2].ndim ? in[2] : NULL, &out[0]);
}

static ember_status gru(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                        ember_tensor **out)
{
    return ember_gru(flow, in[0], in[1], c->in[2].ndim ? in[2] : NULL, &out[0]);
}

static void gated_cells(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (size_t round = 0; round < op_rounds(4); round++) {
        const size_t H = op_size(&sizes, 21), gates = round & 1 ? 3 : 4;
        struct op_case c = {.name = round & 1 ? "gru" : "lstm",
                            .record = round & 1 ? gru : lstm,
                            .rows = 5 + op_size(&sizes, 40),
                            .by_token = true,
                            .sequences = round == 2 ? 19 : op_size(&sizes, 5),
                            .stateful = true,
                            .in = {{round & 1 ? OP_ROWS : OP_COLUMNS, {gates * H}, 1},
                                   {OP_PARAMETER, {gates * H, H}, 2}}};
        if (round & 2)
            c.in[2] = (struct op_input){.kind = OP_PARAMETER, .dim = {gates * H}, .ndim = 1};
        check_op(&c, round);
    }
}

struct ltc_setup {
    ember_ltc_options options;
    bool memory;
};

enum {
    CM = 1,
    GLEAK,
    VLEAK,
    SIGMA,
    MU,
    W,
    EREV,
    MASK,
    SENSORY,
    INPUT_W = SENSORY + 5,
    INPUT_B,
    MEMORY
};

static ember_status ltc(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                        ember_tensor **out)
{
    const struct ltc_setup *s = c->context;
    ember_ltc_parameters p = {.cm = in[CM],
                              .gleak = in[GLEAK],
                              .vleak = in[VLEAK],
                              .sigma = in[SIGMA],
                              .mu = in[MU],
                              .w = in[W],
                              .erev = in[EREV],
                              .mask = in[MASK],
                              .sensory = {in[SENSORY], in[SENSORY + 1], in[SENSORY + 2],
                                          in[SENSORY + 3], in[SENSORY + 4]}};
    if (s->memory) p.memory = (ember_recurrent_memory){in[MEMORY], in[MEMORY + 1], in[MEMORY + 2]};
    // Not every synapse is there.
    for (size_t i = 0; i < ember_tensor_count(in[MASK]); i++)
        em_f32(in[MASK])[i] = (float)(em_hash64(i, 1, 2) % 3 > 0);
    for (size_t i = 0; i < ember_tensor_count(in[SENSORY + 4]); i++)
        em_f32(in[SENSORY + 4])[i] = (float)(em_hash64(i, 1, 3) % 3 > 0);
    return ember_ltc(flow, in[0], &p, &s->options, &out[0]);
}

static void add_synapses(struct op_case *c, unsigned at, size_t sources, size_t U)
{
    static const float low[] = {1, 0.2f, 0.1f, -1, 1}, high[] = {3, 0.8f, 1, 1, 2};
    for (unsigned i = 0; i < 5; i++)
        c->in[at + i] = (struct op_input){.kind = OP_PARAMETER,
                                          .dim = {sources, U},
                                          .ndim = 2,
                                          .low = low[i],
                                          .high = high[i],
                                          .constant = i == 4};
}

static void add_memory(struct op_case *c, unsigned at, size_t I, size_t U)
{
    c->in[at] = (struct op_input){.kind = OP_PARAMETER, .dim = {4 * U, I}, .ndim = 2};
    c->in[at + 1] = (struct op_input){.kind = OP_PARAMETER, .dim = {4 * U}, .ndim = 1};
    c->in[at + 2] = (struct op_input){.kind = OP_PARAMETER, .dim = {4 * U, U}, .ndim = 2};
}

static void liquid_time_constants(void **state)
{
    (void)state;
    uint64_t sizes = 9;
    for (size_t round = 0; round < op_rounds(4); round++) {
        const size_t I = op_size(&sizes, 7), U = op_size(&sizes, round == 3 ? 40 : 9);
        const struct ltc_setup s = {
            .options = {.unfolds = 1 + round,
                        .outputs = round & 1 ? 0 : op_size(&sizes, U),
                        .epsilon = 1e-8f,
                        .implicit_constraints = round != 2},
            .memory = round >= 2,
        };
        struct op_case c = {.name = "ltc",
                            .record = ltc,
                            .context = &s,
                            .rows = 5 + op_size(&sizes, 15),
                            .by_token = true,
                            .sequences = round == 1 ? 18 : op_size(&sizes, 4),
                            .timespans = round != 1,
                            .stateful = true,
                            .large = U > 20,
                            .difference_tolerance = 3e-3,
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {I}, 1}}};
        for (unsigned i = CM; i <= VLEAK; i++)
            c.in[i] = (struct op_input){
                .kind = OP_PARAMETER, .dim = {U}, .ndim = 1, .low = 0.2f, .high = 0.9f};
        add_synapses(&c, SIGMA, U, U);
        add_synapses(&c, SENSORY, I, U);
        for (unsigned i = INPUT_W; i <= INPUT_B && round; i++)
            c.in[i] = (struct op_input){.kind = OP_PARAMETER, .dim = {I}, .ndim = 1};
        if (s.memory) add_memory(&c, MEMORY, I, U);
        check_op(&c, round);
    }
}

struct cfc_setup {
    ember_cfc_options options;
    size_t layers;
    bool masked, memory;
};

static unsigned place_cfc_layer(ember_tensor **in, const struct cfc_setup *s, ember_cfc_layer *l)
{
    unsigned n = 0;
    for (size_t b = 0; b < s->options.backbone_layers; b++, n += 2) {
        l->backbone[b].weight = in[n];
        l->backbone[b].bias = in[n + 1];
    }
    l->ff1.weight = in[n], l->ff1.bias = in[n + 1];
    n += 2;
    if (s->options.mode == EMBER_CFC_PURE) {
        l->w_tau = in[n], l->a = in[n + 1];
        n += 2;
    } else {
        l->ff2.weight = in[n], l->ff2.bias = in[n + 1];
        l->time_a.weight = in[n + 2], l->time_a.bias = in[n + 3];
        l->time_b.weight = in[n + 4], l->time_b.bias = in[n + 5];
        n += 6;
    }
    if (s->masked) {
        l->mask = in[n++];
        for (size_t i = 0; i < ember_tensor_count(l->mask); i++)
            em_f32(l->mask)[i] = (float)(em_hash64(i, 1, 2) % 3 > 0);
    }
    return n;
}

static ember_status cfc(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                        ember_tensor **out)
{
    const struct cfc_setup *s = c->context;
    ember_cfc_layer layer[3] = {0};
    ember_cfc_options o = s->options;
    unsigned n = 1;
    if (s->memory) {
        o.memory = (ember_recurrent_memory){in[1], in[2], in[3]};
        n += 3;
    }
    for (size_t l = 0; l < s->layers; l++)
        n += place_cfc_layer(in + n, s, &layer[l]);
    return ember_cfc(flow, in[0], layer, s->layers, &o, &out[0]);
}

static void add_product(struct op_case *c, unsigned *at, size_t rows, size_t columns)
{
    c->in[(*at)++] = (struct op_input){.kind = OP_PARAMETER, .dim = {rows, columns}, .ndim = 2};
    c->in[(*at)++] = (struct op_input){.kind = OP_PARAMETER, .dim = {rows}, .ndim = 1};
}

static void add_cfc_layer(struct op_case *c, unsigned *at, const struct cfc_setup *s, size_t I,
                          size_t H, size_t K)
{
    size_t columns = I + H;
    for (size_t b = 0; b < s->options.backbone_layers; b++, columns = K)
        add_product(c, at, K, columns);
    for (unsigned h = 0; h < (s->options.mode == EMBER_CFC_PURE ? 1 : 4); h++)
        add_product(c, at, H, columns);
    if (s->options.mode == EMBER_CFC_PURE)
        for (unsigned i = 0; i < 2; i++)
            c->in[(*at)++] =
                (struct op_input){.kind = OP_PARAMETER, .dim = {1, H}, .ndim = 2, .keep_off = 0.1f};
    if (s->masked)
        c->in[(*at)++] = (struct op_input){
            .kind = OP_PARAMETER, .dim = {H, columns}, .ndim = 2, .constant = true};
}

static void closed_form(void **state)
{
    (void)state;
    static const struct cfc_setup setups[] = {
        {{.mode = EMBER_CFC_DEFAULT, .backbone_layers = 1}, 1, false, false},
        {{.mode = EMBER_CFC_NO_GATE, .backbone_layers = 0}, 3, true, true},
        {{.mode = EMBER_CFC_PURE,
          .backbone_layers = 2,
          .activation = EMBER_CFC_SILU,
          .dropout = 0.3f},
         1,
         false,
         true},
        {{.mode = EMBER_CFC_PURE, .backbone_layers = 0}, 2, true, false},
        {{.mode = EMBER_CFC_DEFAULT,
          .backbone_layers = 3,
          .activation = EMBER_CFC_GELU,
          .stride = 3},
         1,
         false,
         false},
        {{.mode = EMBER_CFC_DEFAULT, .backbone_layers = 0, .stride = 2}, 3, true, true},
    };
    uint64_t sizes = 77;
    for (size_t round = 0; round < sizeof setups / sizeof *setups; round++) {
        const struct cfc_setup *s = &setups[round];
        const size_t I = op_size(&sizes, 6);
        unsigned at = 1;
        static const char *const name[] = {"cfc", "cfc 1", "cfc 2", "cfc 3", "cfc 4", "cfc 5"};
        struct op_case c = {.name = name[round],
                            .record = cfc,
                            .context = s,
                            .rows = 5 + op_size(&sizes, 25),
                            .by_token = true,
                            .sequences = round == 1 ? 18 : op_size(&sizes, 4),
                            .timespans = round != 2,
                            .stateful = s->options.dropout == 0, // masks follow the batch's tokens
                            .random = s->options.dropout > 0,
                            .difference_tolerance = 3e-3,
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {I}, 1}}};
        size_t H[3], units = 0;
        for (size_t l = 0; l < s->layers; l++)
            units += H[l] = op_size(&sizes, 8);
        if (s->memory) {
            add_memory(&c, at, I, units);
            at += 3;
        }
        for (size_t l = 0; l < s->layers; l++)
            add_cfc_layer(&c, &at, s, l ? H[l - 1] : I, H[l], op_size(&sizes, 11));
        check_op(&c, round);
    }
}

static ember_status affine(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    (void)c;
    return ember_column_affine(flow, in[0], in[1], in[2], &out[0]);
}

static void columns_are_scaled(void **state)
{
    (void)state;
    uint64_t sizes = 3;
    for (size_t round = 0; round < op_rounds(3); round++) {
        const size_t D = op_size(&sizes, 40);
        check_op(&(struct op_case){.name = "column_affine",
                                   .record = affine,
                                   .rows = op_size(&sizes, 20),
                                   .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1},
                                          {OP_PARAMETER, {D}, 1},
                                          {OP_PARAMETER, {D}, 1}}},
                 round);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {
        .record = lstm, .by_token = true, .in = {{OP_ROWS, {8}, 1}, {OP_PARAMETER, {8, 3}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE, "lstm: zx is [5, 8], w is [8, 3]");
    c.record = gru;
    check_op_refused(&c, EMBER_E_SHAPE, "gru: zx is [5, 8], w is [8, 3]");
    const struct cfc_setup none = {{.mode = EMBER_CFC_PURE}, 0, false, false};
    c.record = cfc;
    c.context = &none;
    check_op_refused(&c, EMBER_E_RANGE, "cfc: 0 layers (1 to 8)");
    c.record = affine;
    c.in[2] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "column_affine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gated_cells),
        cmocka_unit_test(liquid_time_constants),
        cmocka_unit_test(closed_form),
        cmocka_unit_test(columns_are_scaled),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("ops/recurrent", tests);
}
