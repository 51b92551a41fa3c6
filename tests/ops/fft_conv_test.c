#include "support/op_check.h"

enum { U, K, REV, SKIP, PRE, POST };

// Absent inputs have no dimensions: an input list ends there, so they stand in as parameters of one
// value that are not given.
static ember_status fft_conv(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                             ember_tensor **out)
{
    const ember_fft_conv_options *given = c->context;
    ember_fft_conv_options o = *given;
    ember_tensor *t[POST + 1];
    for (unsigned i = 0; i <= POST; i++)
        t[i] = c->in[i].ndim == 3 ? NULL : in[i];
    o.k_rev = t[REV];
    // head_dim 0 and a period without a circle: one tensor in all three places.
    if (!o.circular && o.period == 1) t[PRE] = t[POST] = t[U];
    return ember_fft_conv(flow, &o, t[U], t[K], t[SKIP], t[PRE], t[POST], &out[0]);
}

struct form {
    size_t d, heads, lags, rows, sequences;
    bool skip, pre, post, rev;
    ember_fft_conv_options o;
};

static void absent(struct op_input *in)
{
    *in = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 1, 1}, .ndim = 3, .constant = true};
}

static struct op_case case_of(const struct form *f, size_t round)
{
    const size_t d = f->o.head_dim ? f->o.head_dim : 1, D = d * f->heads;
    const enum op_input_kind rows = round & 1 ? OP_COLUMNS : OP_ROWS;
    struct op_case c = {.name = "fft_conv",
                        .record = fft_conv,
                        .context = &f->o,
                        .rows = f->rows,
                        .by_token = true,
                        .sequences = f->sequences,
                        .stateful = !f->rev && !f->o.circular,
                        .in = {[U] = {rows, {D}, 1},
                               [SKIP] = {OP_PARAMETER, {f->heads}, 1},
                               [PRE] = {rows, {D}, 1},
                               [POST] = {OP_ROWS, {D}, 1}}};
    struct op_input k = {.kind = OP_PARAMETER, .dim = {f->heads, f->lags}, .ndim = 2};
    if (f->o.tap_rows) k.dim[0] = f->lags, k.dim[1] = f->heads;
    c.in[K] = c.in[REV] = k;
    if (!f->rev) absent(&c.in[REV]);
    if (!f->skip) absent(&c.in[SKIP]);
    if (!f->pre && d == 1) absent(&c.in[PRE]);
    if (!f->post && d == 1) absent(&c.in[POST]);
    return c;
}

static void check(struct form *f, size_t round)
{
    struct op_case c = case_of(f, round);
    check_op(&c, round);
}

// Every mode, at odd sizes: whole, packed, in pieces through states; gradients of everything.
static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (size_t round = 0; round < op_rounds(24); round++) {
        struct form f = {.heads = op_size(&sizes, 21),
                         .lags = round % 3 ? op_size(&sizes, 40) : op_size(&sizes, 6),
                         .rows = op_size(&sizes, 45),
                         .sequences = op_size(&sizes, 4),
                         .skip = round & 2,
                         .pre = round % 3 == 1,
                         .post = round & 1};
        f.o.tap_rows = round & 1;
        f.o.gelu = round % 5 == 2;
        f.o.taps = round % 7 == 3 ? 3 : 0;
        f.o.head_dim = round % 6 == 5 ? 1 + round % 4 : 0;
        if (f.o.head_dim) f.heads = 1 + f.heads % 5;
        if (round % 8 == 6) f.o.circular = true, f.o.period = round % 16 == 6 ? 0 : 50;
        if (round % 8 == 7) f.rev = true;
        if (round % 8 == 2) f.o.exact = true;
        if (round % 8 == 3 && !f.o.head_dim) f.o.period = 1;
        check(&f, round);
    }
}

// Kernels much shorter than a sequence: segments; and heads wider than a group of channels.
static void segments_and_wide_heads(void **state)
{
    (void)state;
    static const struct form forms[] = {
        {.heads = 3, .lags = 5, .rows = 1500, .sequences = 2, .skip = true, .post = true},
        {.heads = 18, .lags = 40, .rows = 1300, .sequences = 3, .rev = true},
        {.heads = 2, .lags = 9, .rows = 21, .sequences = 2, .o = {.head_dim = 19}},
        {.heads = 2, .lags = 300, .rows = 700, .sequences = 2, .skip = true},
        {.heads = 1, .lags = 300, .rows = 300, .sequences = 1, .o = {.exact = true}},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct op_case c = case_of(&forms[i], i);
        c.large = true;
        check_op(&c, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_gradients_and_states),
                                       cmocka_unit_test(segments_and_wide_heads)};
    return OP_RUN_TESTS("fft_conv", tests);
}
