// Liquid time-constant cells with a fused semi-implicit solver (Hasani et al. 2021, "Liquid
// Time-constant Networks", arXiv:2006.04439). Synapse j to i says a = w sigmoid(sigma (v_j - mu)),
// and `unfolds` times
//   v_i <- (c_i v_i + gleak_i vleak_i + sum_j a_ji erev_ji + sum_k s_ki erev_ki)
//        / (c_i + gleak_i + sum_j a_ji + sum_k s_ki + epsilon),  c = cm unfolds / dt,
// s the sensory synapses, which see the inputs x [T, I]. Matrices are [source, destination], and a
// mask says which synapses there are. The output is the first M neurons' v, the state v (and the c
// of a memory).
#include "ops/ltc.h"

static struct em_ltc_attr attr_of(const struct em_call *c)
{
    return *em_attr_const(c, struct em_ltc_attr);
}

static size_t inputs_of(const struct em_call *c)
{
    return c->in[LTC_X]->dim[1];
}

static size_t units_of(const struct em_call *c)
{
    return c->in[LTC_CM]->dim[0];
}

static struct em_memory memory_of(const struct em_call *c)
{
    return (struct em_memory){LTC_MEMORY, inputs_of(c), units_of(c)};
}

static bool has_memory(const struct em_call *c)
{
    return c->in[LTC_MEMORY] != NULL;
}

// Sigmoids are kept from the forward part of a step to its backward part up to this many vectors,
// half a megabyte; computing them again is cheaper than going to memory.
enum { KEPT = 8192 };

static size_t kept_of(const struct em_call *c)
{
    size_t n;
    return em_mul_size(units_of(c) * units_of(c), attr_of(c).unfolds, &n) && n <= KEPT ? n : 0;
}

static void sizes(const struct em_call *c, struct em_cell_sizes *s)
{
    const size_t I = inputs_of(c), U = units_of(c), n = attr_of(c).unfolds, synapses = (I + U) * U;
    const struct em_memory m = memory_of(c);
    *s = (struct em_cell_sizes){
        .I = I,
        .S = has_memory(c) ? 2 * U : U,
        .O = attr_of(c).outputs,
        .work = (2 * n + 1) * U + I * U + kept_of(c) + 3 * U + 2 * I +
                (has_memory(c) ? em_memory_work(&m) + U : 0),
        .taps = has_memory(c) ? em_memory_taps(&m) : 0,
        .sums = 4 * synapses + 3 * U + 2 * I,
        .prepared = sizeof(struct em_ltc) + (5 * synapses + 3 * U + 2 * (U + 1) + 64) * 4,
        .product = has_memory(c) ? (I > U ? I : U) : 0,
        .reference_work =
            em_ltc_reference_work(I, U, n) + (has_memory(c) ? em_memory_reference_work(&m) : 0),
    };
}

static ember_status shape(struct em_call *c)
{
    static const struct {
        unsigned i;
        const char *name;
    } square[] = {{LTC_SIGMA, "sigma"},
                  {LTC_MU, "mu"},
                  {LTC_W, "w"},
                  {LTC_EREV, "erev"},
                  {LTC_MASK, "mask"}},
      sensory[] = {{LTC_SENSORY_SIGMA, "sensory_sigma"},
                   {LTC_SENSORY_MU, "sensory_mu"},
                   {LTC_SENSORY_W, "sensory_w"},
                   {LTC_SENSORY_EREV, "sensory_erev"},
                   {LTC_SENSORY_MASK, "sensory_mask"}};
    char text[96];
    const struct em_ltc_attr a = attr_of(c);
    EM_TRY(em_check_f32(c, c->in[LTC_X], "x", 0));
    if (c->in[LTC_X]->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "ltc: x has to be [T, I], not %s",
                       em_shape_text(c->in[LTC_X], text, sizeof text));
    EM_TRY(em_check_f32(c, c->in[LTC_CM], "cm", 0));
    const size_t I = inputs_of(c), U = units_of(c);
    EM_TRY(em_check_parameter(c, LTC_CM, "cm", &U, 1));
    EM_TRY(em_check_parameter(c, LTC_GLEAK, "gleak", &U, 1));
    EM_TRY(em_check_parameter(c, LTC_VLEAK, "vleak", &U, 1));
    for (unsigned i = 0; i < sizeof square / sizeof *square; i++) {
        EM_TRY(em_check_parameter(c, square[i].i, square[i].name, (size_t[]){U, U}, 2));
        EM_TRY(em_check_parameter(c, sensory[i].i, sensory[i].name, (size_t[]){I, U}, 2));
    }
    if (c->in[LTC_INPUT_W]) {
        EM_TRY(em_check_parameter(c, LTC_INPUT_W, "input_w", &I, 1));
        EM_TRY(em_check_parameter(c, LTC_INPUT_B, "input_b", &I, 1));
    }
    size_t synapses;
    if (!em_add_size(I, U, &synapses) || !em_mul_size(synapses, U, &synapses) ||
        synapses > INT32_MAX / 8)
        return em_fail(EMBER_E_SHAPE, "ltc: %zu inputs and %zu units are too many", I, U);
    if (!a.outputs || a.outputs > U)
        return em_fail(EMBER_E_SHAPE, "ltc: %zu outputs of %zu units", a.outputs, U);
    if (has_memory(c)) {
        const struct em_memory m = memory_of(c);
        EM_TRY(em_memory_check(c, &m));
    }
    return em_recurrent_shape(c);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double T = (double)c->in[LTC_X]->dim[0], U = (double)units_of(c),
                 synapses = (double)(inputs_of(c) + attr_of(c).unfolds * units_of(c)) * U,
                 bytes = 4 * em_elements(c->in[LTC_X]) + 4 * T * U;
    *forward = (struct em_cost){T * synapses * 22, bytes};
    *backward = (struct em_cost){T * synapses * 38, 3 * bytes};
}

// ---- what a run prepares: lists of the synapses that there are ----

struct prepared {
    struct em_ltc cell;
};

// Softplus, where parameters are kept positive that way.
static float positive(const struct em_call *c, float x)
{
    if (!attr_of(c).implicit_constraints) return x;
    return x > 20 ? x : log1pf(expf(x));
}

static float *list_synapses(const struct em_call *c, struct em_ltc_synapses *s, unsigned first,
                            size_t sources, float *memory)
{
    const size_t U = units_of(c), most = sources * U;
    int32_t *start = (int32_t *)(void *)memory, *source = start + U + 1;
    float *sigma = memory + U + 1 + most, *mu = sigma + most, *w = mu + most, *erev = w + most;
    const float *mask = em_f32(c->in[first + LTC_LIST_MASK]);
    size_t n = 0;
    for (size_t i = 0; i < U; i++) {
        start[i] = (int32_t)n;
        for (size_t j = 0; j < sources; j++) {
            const size_t at = j * U + i;
            if (mask[at] == 0) continue;
            source[n] = (int32_t)j;
            sigma[n] = em_f32(c->in[first + LTC_LIST_SIGMA])[at];
            mu[n] = em_f32(c->in[first + LTC_LIST_MU])[at];
            w[n] = positive(c, em_f32(c->in[first + LTC_LIST_W])[at]) * mask[at];
            erev[n++] = em_f32(c->in[first + LTC_LIST_EREV])[at];
        }
    }
    start[U] = (int32_t)n;
    *s = (struct em_ltc_synapses){start, source, sigma, mu, w, erev, n};
    return erev + most;
}

static void prepare(const struct em_call *c, void *memory)
{
    struct prepared *p = memory;
    const size_t U = units_of(c);
    float *cm = (float *)(void *)(p + 1), *gleak = cm + U;
    for (size_t i = 0; i < U; i++) {
        cm[i] = positive(c, em_f32(c->in[LTC_CM])[i]);
        gleak[i] = positive(c, em_f32(c->in[LTC_GLEAK])[i]);
    }
    p->cell = (struct em_ltc){.I = inputs_of(c),
                              .U = U,
                              .unfolds = attr_of(c).unfolds,
                              .epsilon = attr_of(c).epsilon,
                              .cm = cm,
                              .gleak = gleak,
                              .vleak = em_f32(c->in[LTC_VLEAK])};
    float *next = list_synapses(c, &p->cell.sensory, LTC_SENSORY_SIGMA, inputs_of(c), gleak + U);
    list_synapses(c, &p->cell.inner, LTC_SIGMA, U, next);
}

static size_t used_sums(const void *memory)
{
    const struct em_ltc *cell = &((const struct prepared *)memory)->cell;
    return 4 * (cell->sensory.count + cell->inner.count) + 3 * cell->U + 2 * cell->I;
}

// ---- cpu ----

// A thread's work: v of every unfold, inverses, sensory sigmoids, inner sigmoids, scratch, memory.
static struct em_ltc_trace trace_of(const struct em_step *s, const struct em_ltc *cell,
                                    float **scratch, float **memory)
{
    const size_t U = cell->U;
    struct em_ltc_trace t = {.v = s->work};
    t.inverse = em_lanes_at(t.v, (cell->unfolds + 1) * U);
    t.sensory = em_lanes_at(t.inverse, cell->unfolds * U);
    float *kept = em_lanes_at(t.sensory, cell->I * U);
    const size_t n = kept_of(s->call);
    t.activity = n ? kept : NULL;
    *scratch = em_lanes_at(kept, n);
    *memory = em_lanes_at(*scratch, 3 * U + 2 * cell->I);
    return t;
}

// What the senses feel of the step's x: [I], behind the scratch.
static float *feel(const struct em_step *s, float *scratch)
{
    const struct em_call *c = s->call;
    const size_t I = inputs_of(c);
    float *felt = em_lanes_at(scratch, 3 * units_of(c));
    if (!c->in[LTC_INPUT_W]) {
        memcpy(felt, s->x, I * EM_LANES * sizeof *felt);
        return felt;
    }
    for (size_t i = 0; i < I; i++) {
        const float w = em_f32(c->in[LTC_INPUT_W])[i], b = em_f32(c->in[LTC_INPUT_B])[i];
        for (size_t lane = 0; lane < EM_LANES; lane++)
            felt[i * EM_LANES + lane] = s->x[i * EM_LANES + lane] * w + b;
    }
    return felt;
}

// dfelt [I] goes on to x; sums [I][2] of input_w and input_b.
static void feel_back(const struct em_step *s, const float *dfelt, float *sums)
{
    const struct em_call *c = s->call;
    for (size_t i = 0; i < inputs_of(c); i++) {
        const float w = c->in[LTC_INPUT_W] ? em_f32(c->in[LTC_INPUT_W])[i] : 1;
        float *dw = em_lanes_at(sums, 2 * i), *db = em_lanes_at(dw, 1);
        for (size_t lane = 0; lane < EM_LANES; lane++) {
            const size_t at = i * EM_LANES + lane;
            s->dx[at] += dfelt[at] * w;
            dw[lane] += dfelt[at] * s->x[at];
            db[lane] += dfelt[at];
        }
    }
}

// v, and with a memory the LSTM's step before it.
static void start_from(const struct em_step *s, const struct em_ltc_trace *t, float *c,
                       float *memory)
{
    const size_t U = units_of(s->call);
    const struct em_memory m = memory_of(s->call);
    if (has_memory(s->call))
        em_memory_step(s, &m, t->v, c, memory);
    else
        memcpy(t->v, s->before, U * EM_LANES * sizeof(float));
}

static void step(const struct em_step *s)
{
    const struct em_ltc *cell = &((const struct prepared *)s->prepared)->cell;
    float *scratch, *memory;
    struct em_ltc_trace t = trace_of(s, cell, &scratch, &memory);
    t.inverse = t.sensory = t.activity = NULL;
    start_from(s, &t, em_lanes_at(s->after, cell->U), memory);
    em_kernels()->ltc_f32(cell, &t, feel(s, scratch), s->dt, scratch);
    memcpy(s->after, em_lanes_at(t.v, cell->unfolds * cell->U), cell->U * EM_LANES * sizeof(float));
}

static void step_back(const struct em_step *s)
{
    const struct em_ltc *cell = &((const struct prepared *)s->prepared)->cell;
    float *scratch, *memory;
    const struct em_ltc_trace t = trace_of(s, cell, &scratch, &memory);
    const struct em_memory m = memory_of(s->call);
    float *spare = em_lanes_at(memory, 5 * cell->U); // the new c, which nobody reads
    start_from(s, &t, spare, memory);
    float *felt = feel(s, scratch), *dfelt = em_lanes_at(felt, cell->I);
    em_kernels()->ltc_f32(cell, &t, felt, s->dt, scratch);
    memset(dfelt, 0, cell->I * EM_LANES * sizeof *dfelt);
    const size_t inner = 4 * cell->sensory.count, neuron = inner + 4 * cell->inner.count;
    const struct em_ltc_sums sums = {.sensory = s->sums,
                                     .inner = em_lanes_at(s->sums, inner),
                                     .neuron = em_lanes_at(s->sums, neuron)};
    em_kernels()->ltc_backward_f32(cell, &t, &sums, felt, s->dt, dfelt, s->ds, scratch);
    feel_back(s, dfelt, em_lanes_at(s->sums, neuron + 3 * cell->U));
    if (has_memory(s->call))
        em_memory_step_back(s, &m, s->ds, em_lanes_at(s->ds, cell->U), memory, s->tap);
}

// Of softplus at x; 1 where there is none.
static double slope(const struct em_call *c, float x)
{
    return attr_of(c).implicit_constraints ? 1 / (1 + exp(-(double)x)) : 1;
}

static void add_synapses(const struct em_call *c, const struct em_ltc_synapses *s, unsigned first,
                         const double *sums)
{
    const size_t U = units_of(c);
    float *dsigma = em_gradient_of(c, first + LTC_LIST_SIGMA),
          *dmu = em_gradient_of(c, first + LTC_LIST_MU),
          *dw = em_gradient_of(c, first + LTC_LIST_W),
          *derev = em_gradient_of(c, first + LTC_LIST_EREV);
    const float *mask = em_f32(c->in[first + LTC_LIST_MASK]),
                *w = em_f32(c->in[first + LTC_LIST_W]);
    for (size_t i = 0; i < U; i++)
        for (size_t k = (size_t)s->start[i]; k < (size_t)s->start[i + 1]; k++) {
            const size_t at = (size_t)s->source[k] * U + i;
            const double *sum = sums + 4 * k;
            if (dsigma) dsigma[at] += (float)sum[0];
            if (dmu) dmu[at] -= (float)(sum[1] * (double)s->sigma[k]);
            if (dw) dw[at] += (float)(sum[2] * (double)mask[at] * slope(c, w[at]));
            if (derev) derev[at] += (float)(sum[3] * (double)s->w[k]);
        }
}

static void finish(const struct em_call *c, const void *prepared, const float *taps,
                   const double *sums)
{
    const struct em_ltc *cell = &((const struct prepared *)prepared)->cell;
    const double *inner = sums + 4 * cell->sensory.count, *neuron = inner + 4 * cell->inner.count;
    float *dcm = em_gradient_of(c, LTC_CM), *dgleak = em_gradient_of(c, LTC_GLEAK),
          *dvleak = em_gradient_of(c, LTC_VLEAK);
    add_synapses(c, &cell->sensory, LTC_SENSORY_SIGMA, sums);
    add_synapses(c, &cell->inner, LTC_SIGMA, inner);
    for (size_t i = 0; i < cell->U; i++) {
        if (dcm) dcm[i] += (float)(neuron[3 * i] * slope(c, em_f32(c->in[LTC_CM])[i]));
        if (dgleak) dgleak[i] += (float)(neuron[3 * i + 1] * slope(c, em_f32(c->in[LTC_GLEAK])[i]));
        if (dvleak) dvleak[i] += (float)neuron[3 * i + 2];
    }
    const double *sense = neuron + 3 * cell->U;
    float *dw = em_gradient_of(c, LTC_INPUT_W), *db = em_gradient_of(c, LTC_INPUT_B);
    for (size_t i = 0; i < cell->I; i++) {
        if (dw) dw[i] += (float)sense[2 * i];
        if (db) db[i] += (float)sense[2 * i + 1];
    }
    if (has_memory(c)) {
        const struct em_memory m = memory_of(c);
        em_memory_finish(c, &m, taps, 0);
    }
}

static const struct em_cell cell = {.sizes = sizes,
                                    .prepare = prepare,
                                    .sums = used_sums,
                                    .step = step,
                                    .step_back = step_back,
                                    .finish = finish,
                                    .reference = em_ltc_reference,
                                    .reference_back = em_ltc_reference_back};

const struct em_op em_op_ltc = {
    .name = "ltc",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_recurrent_forward, em_recurrent_backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_recurrent_reference_forward, em_recurrent_reference_backward)},
    .backward_reads = EM_READS_IN(LTC_X),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_ltc(ember_flow *flow, ember_tensor *x, const ember_ltc_parameters *p,
                       const ember_ltc_options *o, ember_tensor **y)
{
    if (!o->unfolds || o->unfolds > EMBER_LTC_UNFOLDS_MAX || !(o->epsilon >= 0))
        return em_fail(EMBER_E_RANGE, "ltc: unfolds has to be 1 to %d, not %zu",
                       EMBER_LTC_UNFOLDS_MAX, o->unfolds);
    EM_TRY(em_check_token_rows(flow, "ltc", x));
    struct em_call *c = em_recurrent_new(flow, &em_op_ltc, &cell, LTC_INPUTS);
    if (!c) return EMBER_E_NOMEM;
    ember_tensor *const in[LTC_INPUTS] = {x,
                                          p->cm,
                                          p->gleak,
                                          p->vleak,
                                          p->sigma,
                                          p->mu,
                                          p->w,
                                          p->erev,
                                          p->mask,
                                          p->sensory.sigma,
                                          p->sensory.mu,
                                          p->sensory.w,
                                          p->sensory.erev,
                                          p->sensory.mask,
                                          p->input_w,
                                          p->input_b,
                                          p->memory.input_map,
                                          p->memory.input_bias,
                                          p->memory.recurrent_map};
    memcpy(c->in, in, sizeof in);
    struct em_ltc_attr *a = em_attr(c, struct em_ltc_attr);
    a->unfolds = (unsigned)o->unfolds;
    a->epsilon = o->epsilon;
    a->implicit_constraints = o->implicit_constraints;
    const size_t U = p->cm ? p->cm->dim[0] : 0;
    a->outputs = o->outputs ? o->outputs : U;
    return em_recurrent_record(flow, c, p->memory.input_map ? 2 * U : U, y);
}
