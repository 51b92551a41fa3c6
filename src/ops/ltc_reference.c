// The reference of the operation ltc: one sequence, dense matrices, sums in double.
#include "ops/ltc.h"

struct view {
    const struct em_reference_step *s;
    size_t I, U, unfolds;
    double rate, epsilon;
    bool implicit;
    double *felt, *dfelt;             // [I]
    double *v, *denominator, *memory; // [unfolds + 1][U], [unfolds][U]
};

static double value_of(const struct em_reference_step *s, unsigned i, size_t at)
{
    return (double)em_f32(s->call->in[i])[at];
}

static struct view view_of(const struct em_reference_step *s)
{
    const struct em_ltc_attr *a = em_attr_const(s->call, struct em_ltc_attr);
    struct view w = {.s = s,
                     .I = s->call->in[LTC_X]->dim[1],
                     .U = s->call->in[LTC_CM]->dim[0],
                     .unfolds = a->unfolds,
                     .rate = a->unfolds / s->dt,
                     .epsilon = (double)a->epsilon,
                     .implicit = a->implicit_constraints,
                     .v = s->work};
    w.denominator = w.v + (w.unfolds + 1) * w.U;
    w.felt = w.denominator + w.unfolds * w.U + 6 * w.U;
    w.dfelt = w.felt + w.I;
    for (size_t i = 0; i < w.I; i++)
        w.felt[i] = s->call->in[LTC_INPUT_W]
                        ? s->x[i] * value_of(s, LTC_INPUT_W, i) + value_of(s, LTC_INPUT_B, i)
                        : s->x[i];
    w.memory = s->work + em_ltc_reference_work(w.I, w.U, w.unfolds);
    return w;
}

static double value(const struct view *w, unsigned i, size_t at)
{
    return value_of(w->s, i, at);
}

static double positive(const struct view *w, unsigned i, size_t at)
{
    const double x = value(w, i, at);
    return w->implicit ? (x > 30 ? x : log1p(exp(x))) : x;
}

static double slope(const struct view *w, unsigned i, size_t at)
{
    return w->implicit ? 1 / (1 + exp(-value(w, i, at))) : 1;
}

static double sigmoid_of(const struct view *w, unsigned list, size_t at, double from)
{
    return 1 / (1 + exp(-value(w, list + LTC_LIST_SIGMA, at) *
                        (from - value(w, list + LTC_LIST_MU, at))));
}

// Numerator and denominator of neuron i: what its synapses of a list say.
static void receive(const struct view *w, unsigned list, const double *from, size_t sources,
                    size_t i, double *numerator, double *denominator)
{
    for (size_t j = 0; j < sources; j++) {
        const size_t at = j * w->U + i;
        const double a = positive(w, list + LTC_LIST_W, at) * sigmoid_of(w, list, at, from[j]) *
                         value(w, list + LTC_LIST_MASK, at);
        *numerator += a * value(w, list + LTC_LIST_EREV, at);
        *denominator += a;
    }
}

// Fills v and denominators.
static void solve(const struct view *w, double *memory_c)
{
    const struct em_memory m = {LTC_MEMORY, w->I, w->U};
    const size_t U = w->U;
    if (w->s->call->in[LTC_MEMORY])
        em_memory_reference(w->s, &m, w->v, memory_c, w->memory);
    else
        memcpy(w->v, w->s->before, U * sizeof *w->v);
    for (size_t n = 0; n < w->unfolds; n++) {
        const double *old = w->v + n * U;
        for (size_t i = 0; i < U; i++) {
            const double c = positive(w, LTC_CM, i) * w->rate, g = positive(w, LTC_GLEAK, i);
            double numerator = c * old[i] + g * value(w, LTC_VLEAK, i), denominator = c + g;
            receive(w, LTC_SENSORY_SIGMA, w->felt, w->I, i, &numerator, &denominator);
            receive(w, LTC_SIGMA, old, U, i, &numerator, &denominator);
            w->denominator[n * U + i] = denominator + w->epsilon;
            w->v[(n + 1) * U + i] = numerator / (denominator + w->epsilon);
        }
    }
}

void em_ltc_reference(const struct em_reference_step *s)
{
    const struct view w = view_of(s);
    solve(&w, s->after + w.U);
    memcpy(s->after, w.v + w.unfolds * w.U, w.U * sizeof *s->after);
}

static void add(const struct view *w, unsigned i, size_t at, double d)
{
    float *g = em_gradient_of(w->s->call, i);
    if (g) g[at] += (float)d;
}

static void receive_back(const struct view *w, unsigned list, const double *from, size_t sources,
                         size_t i, double dn, double dd, double *dfrom)
{
    for (size_t j = 0; j < sources; j++) {
        const size_t at = j * w->U + i;
        const double g = sigmoid_of(w, list, at, from[j]),
                     mask = value(w, list + LTC_LIST_MASK, at),
                     weight = positive(w, list + LTC_LIST_W, at) * mask,
                     erev = value(w, list + LTC_LIST_EREV, at), da = dn * erev + dd,
                     dz = da * weight * g * (1 - g), sigma = value(w, list + LTC_LIST_SIGMA, at);
        add(w, list + LTC_LIST_EREV, at, dn * weight * g);
        add(w, list + LTC_LIST_W, at, da * mask * g * slope(w, list + LTC_LIST_W, at));
        add(w, list + LTC_LIST_SIGMA, at, dz * (from[j] - value(w, list + LTC_LIST_MU, at)));
        add(w, list + LTC_LIST_MU, at, -dz * sigma);
        dfrom[j] += dz * sigma;
    }
}

void em_ltc_reference_back(const struct em_reference_step *s)
{
    const struct view w = view_of(s);
    const struct em_memory m = {LTC_MEMORY, w.I, w.U};
    const size_t U = w.U;
    double *dbefore = w.denominator + w.unfolds * U, *memory_c = dbefore + U;
    memset(w.dfelt, 0, w.I * sizeof *w.dfelt);
    solve(&w, memory_c);
    for (size_t n = w.unfolds; n-- > 0;) {
        const double *old = w.v + n * U, *next = old + U;
        memset(dbefore, 0, U * sizeof *dbefore);
        for (size_t i = 0; i < U; i++) {
            const double dn = s->ds[i] / w.denominator[n * U + i], dd = -dn * next[i],
                         c = positive(&w, LTC_CM, i), dc = dn * old[i] + dd;
            add(&w, LTC_CM, i, dc * w.rate * slope(&w, LTC_CM, i));
            add(&w, LTC_GLEAK, i, (dn * value(&w, LTC_VLEAK, i) + dd) * slope(&w, LTC_GLEAK, i));
            add(&w, LTC_VLEAK, i, dn * positive(&w, LTC_GLEAK, i));
            dbefore[i] += dn * c * w.rate;
            receive_back(&w, LTC_SENSORY_SIGMA, w.felt, w.I, i, dn, dd, w.dfelt);
            receive_back(&w, LTC_SIGMA, old, U, i, dn, dd, dbefore);
        }
        memcpy(s->ds, dbefore, U * sizeof *dbefore);
    }
    const bool mapped = s->call->in[LTC_INPUT_W] != NULL;
    for (size_t i = 0; i < w.I; i++) {
        s->dx[i] += w.dfelt[i] * (mapped ? value(&w, LTC_INPUT_W, i) : 1);
        if (mapped) add(&w, LTC_INPUT_W, i, w.dfelt[i] * s->x[i]);
        if (mapped) add(&w, LTC_INPUT_B, i, w.dfelt[i]);
    }
    if (s->call->in[LTC_MEMORY]) em_memory_reference_back(s, &m, s->ds, s->ds + U, w.memory);
}
