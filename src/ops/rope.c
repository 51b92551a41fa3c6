// Rotary positions in two operations: a table of cosines and sines of the batch's positions, shared
// by all layers with the same frequencies, and the rotation. Su et al. 2021, arXiv:2104.09864.
//   half:         (x_i, x_{i+R/2}) turns by angle_i        interleaved: (x_{2i}, x_{2i+1})
//   angle_i = position * frequency_i, frequency_i = theta^(-2i/R); backward turns back.
#include <float.h>
#include <math.h>

#include "kernels/kernels.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

struct table_attr {
    ember_rope_options options;
    const float *frequency; // [R / 2], in the program's arena
};

static ember_status table_shape(struct em_call *c)
{
    const size_t rotary = em_attr(c, struct table_attr)->options.rotary;
    return em_out_tokens(c, 0, EMBER_F32, &rotary, 1);
}

static void table_cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    *forward = (struct em_cost){20 * em_elements(c->out[0]), 4 * em_elements(c->out[0])};
    *backward = (struct em_cost){0};
}

// Row: R/2 cosines, then R/2 sines. The angle is rounded to f32 before its cosine is taken, as the
// reference implementations do.
static void table_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct table_attr *a = em_attr_const(c, struct table_attr);
    const size_t half = a->options.rotary / 2;
    for (size_t t = begin; t < end; t++) {
        float *row = em_row(c->out[0], t);
        const float position = (float)c->exec->position[t];
        for (size_t i = 0; i < half; i++) {
            const float angle = position * a->frequency[i];
            row[i] = (float)cos((double)angle);
            row[half + i] = (float)sin((double)angle);
        }
    }
}

static void table_forward(const struct em_call *c)
{
    em_over_rows(c, c->out[0]->dim[0], 16 * c->out[0]->dim[1], table_rows);
}

static void table_reference(const struct em_call *c)
{
    table_rows(&c, 0, c->out[0]->dim[0], 0);
}

const struct em_op em_op_rope_table = {
    .name = "rope_table",
    .shape = table_shape,
    .cost = table_cost,
    .backend = {[EM_CPU] = {table_forward, NULL}, [EM_REFERENCE] = {table_reference, NULL}},
};

// Llama-3: long waves are slowed down by `factor`, short ones kept, those between are mixed.
static float llama3_frequency(const ember_rope_options *o, float f, float factor)
{
    const float wavelength = (float)(2 * 3.14159265358979323846) / f;
    const float low = (float)o->low_frequency_factor, high = (float)o->high_frequency_factor,
                context = (float)o->original_context;
    if (wavelength > (float)(o->original_context / o->low_frequency_factor)) return f / factor;
    if (wavelength < (float)(o->original_context / o->high_frequency_factor)) return f;
    const float smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * f / factor + smooth * f;
}

// Frequencies in f32, by the steps of the reference implementations: at the end of a long context
// an angle shows every rounding.
static void fill_frequencies(const ember_rope_options *o, float *frequency)
{
    const size_t half = o->rotary / 2, active = o->active_pairs ? o->active_pairs : half;
    const float factor = o->factor > 0 ? (float)o->factor : 1;
    for (size_t i = 0; i < half; i++) {
        const float f = 1.0f / powf((float)o->theta, (float)(2 * i) / (float)o->rotary);
        frequency[i] = o->original_context > 0 ? llama3_frequency(o, f, factor) : f / factor;
        if (i >= active) frequency[i] = 0;
    }
}

static ember_status record_table(ember_flow *flow, const ember_rope_options *options,
                                 ember_tensor **table)
{
    struct em_program *p = flow->program;
    for (size_t i = 0; i < p->n_calls; i++) {
        const struct em_call *c = p->call[i];
        if (c->op != &em_op_rope_table) continue;
        const ember_rope_options *o = &em_attr_const(c, struct table_attr)->options;
        if (o->theta == options->theta && o->rotary == options->rotary &&
            o->active_pairs == options->active_pairs && o->factor == options->factor &&
            o->low_frequency_factor == options->low_frequency_factor &&
            o->high_frequency_factor == options->high_frequency_factor &&
            o->original_context == options->original_context) {
            *table = c->out[0];
            return EMBER_OK;
        }
    }
    struct em_call *c = em_call_new(flow, &em_op_rope_table, 0);
    float *frequency = em_arena_alloc(&p->arena, options->rotary / 2 * sizeof *frequency);
    if (!c || !frequency) return EMBER_E_NOMEM;
    fill_frequencies(options, frequency);
    *em_attr(c, struct table_attr) = (struct table_attr){*options, frequency};
    EM_TRY(em_record(flow, c));
    *table = c->out[0];
    return EMBER_OK;
}

// ---- the rotation ----

struct rope_attr {
    bool interleaved;
};

enum { X, TABLE, INPUTS };

static ember_status shape(struct em_call *c)
{
    EM_TRY(em_check_f32(c, c->in[X], "x", 0));
    return em_out_like(c, 0, c->in[X]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), table = em_elements(c->in[TABLE]);
    *forward = (struct em_cost){3 * n, 4 * (2 * n + table)};
    *backward = (struct em_cost){4 * n, 4 * (3 * n + table)};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    const size_t K = em_last_dim(c->in[X]), H = c->in[X]->dim[1], R = c->in[TABLE]->dim[1];
    for (size_t t = begin; t < end; t++) {
        const float *table = em_row(c->in[TABLE], t);
        em_kernels()->rope_f32(em_strip_row(&y, t), em_strip_row(&x, t), H, K, R, table,
                               table + R / 2, em_attr_const(c, struct rope_attr)->interleaved);
    }
}

static void forward(const struct em_call *c)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    em_over_rows(c, y.count, y.width, forward_rows);
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip dx = em_strip_of(c->in[X]->grad), dy = em_strip_of(c->out[0]->grad);
    const size_t K = em_last_dim(c->in[X]), H = c->in[X]->dim[1], R = c->in[TABLE]->dim[1];
    for (size_t t = begin; t < end; t++) {
        const float *table = em_row(c->in[TABLE], t);
        float *to = em_strip_row(&dx, t);
        if (em_fresh(c, X)) memset(to, 0, dx.width * sizeof *to);
        em_kernels()->rope_backward_f32(to, em_strip_row(&dy, t), H, K, R, table, table + R / 2,
                                        em_attr_const(c, struct rope_attr)->interleaved);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    if (em_wants(c, X)) em_over_rows(c, dy.count, dy.width, backward_rows);
}

// Turns one head by `sign` times the table's angles, adding to y when `add`.
static void reference_turn(const struct em_call *c, float *y, const float *x, const float *table,
                           double sign, bool add)
{
    const size_t K = em_last_dim(c->in[X]), R = c->in[TABLE]->dim[1];
    const bool interleaved = em_attr_const(c, struct rope_attr)->interleaved;
    for (size_t i = 0; i < K; i++) {
        double v = (double)x[i];
        if (i < R) {
            const size_t pair = interleaved ? i / 2 : i % (R / 2);
            const bool first = interleaved ? i % 2 == 0 : i < R / 2;
            const size_t other =
                interleaved ? (first ? i + 1 : i - 1) : (first ? i + R / 2 : i - R / 2);
            const double cosine = (double)table[pair], sine = sign * (double)table[R / 2 + pair];
            v = (double)x[i] * cosine + (first ? -1 : 1) * (double)x[other] * sine;
        }
        y[i] = (float)(add ? (double)y[i] + v : v);
    }
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    const size_t K = em_last_dim(c->in[X]);
    for (size_t t = 0; t < y.count; t++)
        for (size_t h = 0; h < c->in[X]->dim[1]; h++)
            reference_turn(c, em_strip_row(&y, t) + h * K, em_strip_row(&x, t) + h * K,
                           em_row(c->in[TABLE], t), 1, false);
}

static void reference_backward(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    const size_t K = em_last_dim(c->in[X]);
    if (!em_wants(c, X)) return;
    em_zero_fresh(c, X);
    const struct em_strip dx = em_strip_of(c->in[X]->grad);
    for (size_t t = 0; t < dy.count; t++)
        for (size_t h = 0; h < c->in[X]->dim[1]; h++)
            reference_turn(c, em_strip_row(&dx, t) + h * K, em_strip_row(&dy, t) + h * K,
                           em_row(c->in[TABLE], t), -1, true);
}

const struct em_op em_op_rope = {
    .name = "rope",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(TABLE),
    .flags = EM_OP_SETS_FRESH | EM_OP_ROW_WISE,
};

static bool is_positive(double x)
{
    return x >= (double)FLT_MIN && x <= (double)FLT_MAX; // also in f32
}

static ember_status check_frequencies(const ember_rope_options *o)
{
    const double low = o->low_frequency_factor, high = o->high_frequency_factor;
    if (!is_positive(o->theta) || (o->factor != 0 && !is_positive(o->factor)))
        return em_fail(EMBER_E_RANGE, "rope: theta %g and factor %g have to be above 0", o->theta,
                       o->factor);
    const bool none = o->original_context == 0 && low == 0 && high == 0,
               all = is_positive(o->original_context) && is_positive(low) && is_positive(high);
    if (!none && !(all && low < high))
        return em_fail(
            EMBER_E_RANGE,
            "rope: frequency factors %g and %g of a context of %g have to be above 0, in "
            "this order, or all be 0",
            low, high, o->original_context);
    return EMBER_OK;
}

ember_status ember_rope(ember_flow *flow, ember_tensor *x, const ember_rope_options *options,
                        ember_tensor **y)
{
    char text[96];
    ember_rope_options o = *options;
    EM_TRY(em_check_token_rows(flow, "rope", x));
    if (x->ndim != 3)
        return em_fail(EMBER_E_SHAPE, "rope: x has to be [T, H, K], not %s",
                       em_shape_text(x, text, sizeof text));
    if (!o.rotary) o.rotary = x->dim[2];
    if (o.rotary % 2 || o.rotary > x->dim[2] || o.active_pairs > o.rotary / 2)
        return em_fail(EMBER_E_SHAPE,
                       "rope: %zu dimensions and %zu pairs of a head of %zu cannot rotate",
                       o.rotary, o.active_pairs, x->dim[2]);
    EM_TRY(check_frequencies(&o));
    ember_tensor *table;
    EM_TRY(record_table(flow, &o, &table));
    struct em_call *c = em_call_new(flow, &em_op_rope, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[TABLE] = table;
    em_attr(c, struct rope_attr)->interleaved = o.interleaved;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
