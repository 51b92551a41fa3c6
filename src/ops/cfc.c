// Closed-form continuous-time cells (Hasani et al. 2022, "Closed-form continuous-time neural
// networks", arXiv:2106.13898). A layer reads z = [input | its last state], through a backbone of
// products with an activation, and has four heads on that: f1, f2 = tanh, s = sigmoid(a dt + b),
// and
//   h = f1 (1 - s) + s f2 (default), f1 + s f2 (no_gate); pure: A - A exp(-dt (|tau| + |f|)) f.
// Layers are fed one by the other. With a memory an LSTM of all units runs first, and the layers'
// last states are what it makes. The state is [h of all layers | c of the memory].
#include "ops/cfc.h"

#include "base/rng.h"
#include "ops/program_priv.h"

// What a layer keeps while it runs, in vectors: z [in], pre-activations and values of the backbone
// [K each], a mask of dropout each, the heads' products [n H].
static size_t layer_work(const struct em_call *c, const struct em_cfc_layer *l)
{
    return l->in + 3 * em_cfc_attr_of(c)->backbone * l->K + l->n_heads * l->H;
}

// What a layer leaves for products over all tokens: dz and z of each product.
static size_t layer_taps(const struct em_call *c, const struct em_cfc_layer *l)
{
    const size_t n = em_cfc_attr_of(c)->backbone;
    const size_t heads = l->n_heads * l->H + l->into_heads;
    return n ? l->K + l->in + (n - 1) * 2 * l->K + heads : heads;
}

static void sizes(const struct em_call *c, struct em_cell_sizes *s)
{
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    const struct em_memory m = em_cfc_memory_of(c);
    const bool memory = em_cfc_has_memory(c);
    size_t work = 0, widest = 0;
    *s = (struct em_cell_sizes){.I = c->in[CFC_X]->dim[1], .S = memory ? 2 * a->units : a->units};
    for (unsigned i = 0; i < a->layers; i++) {
        const struct em_cfc_layer l = em_cfc_layer_of(c, i);
        const size_t columns = l.in > l.K ? l.in : l.K;
        work += layer_work(c, &l);
        s->taps += layer_taps(c, &l);
        if (columns > widest) widest = columns;
        if (a->mode == EM_CFC_PURE) s->sums += 2 * l.H;
        s->prepared += 2 * l.n_heads * l.H * (l.into_heads + 1) * sizeof(float);
        s->O = l.H;
        s->first = l.first;
    }
    s->work = work + 2 * widest + 2 * a->units + 4 + (memory ? em_memory_work(&m) + a->units : 0);
    if (memory) s->taps += em_memory_taps(&m);
    s->product = widest;
    if (memory && m.U > widest) s->product = m.U;
    s->reference_work = em_cfc_reference_work(c);
}

static ember_status check_product(const struct em_call *c, unsigned i, const char *what,
                                  size_t rows, size_t columns)
{
    EM_TRY(em_check_parameter(c, i, what, (size_t[]){rows, columns}, 2));
    return em_check_parameter(c, i + 1, what, &rows, 1);
}

static ember_status check_layer(const struct em_call *c, unsigned index)
{
    static const char *const heads[] = {"ff1", "ff2", "time_a", "time_b"};
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    const struct em_cfc_layer l = em_cfc_layer_of(c, index);
    if (!l.H) return em_fail(EMBER_E_SHAPE, "cfc: a layer of no units");
    for (unsigned b = 0; b < a->backbone; b++)
        EM_TRY(check_product(c, l.backbone + 2 * b, "backbone", l.K, b ? l.K : l.in));
    for (unsigned h = 0; h < l.n_heads; h++)
        EM_TRY(check_product(c, l.heads + 2 * h, heads[h], l.H, l.into_heads));
    if (a->mode == EM_CFC_PURE) {
        EM_TRY(em_check_parameter(c, l.tau, "w_tau", (size_t[]){1, l.H}, 2));
        EM_TRY(em_check_parameter(c, l.tau + 1, "A", (size_t[]){1, l.H}, 2));
    }
    if (c->in[l.mask] && a->backbone)
        return em_fail(EMBER_E_SHAPE, "cfc: a mask and a backbone do not go together");
    if (c->in[l.mask]) EM_TRY(em_check_parameter(c, l.mask, "mask", (size_t[]){l.H, l.in}, 2));
    return EMBER_OK;
}

// Sizes are read off parameters, so these have to be there and have their dimensions first.
static ember_status check_present(const struct em_call *c)
{
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    for (unsigned l = 0; l < a->layers; l++)
        for (unsigned i = 0; i + 1 < em_cfc_layer_inputs(a); i++) {
            const unsigned n = 2 * a->backbone + 2;
            const bool matrix = i < n ? i % 2 == 0 : a->mode == EM_CFC_PURE || i % 2 == 0;
            const ember_tensor *t = c->in[em_cfc_layer_at(c, l) + i];
            EM_TRY(em_check_f32(c, t, "a parameter", 0));
            if (t->ndim != (matrix ? 2 : 1))
                return em_fail(EMBER_E_SHAPE, "cfc: a parameter of layer %u has %u dimensions", l,
                               t->ndim);
        }
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[96];
    struct em_cfc_attr *a = em_attr(c, struct em_cfc_attr);
    EM_TRY(em_check_f32(c, c->in[CFC_X], "x", 0));
    if (c->in[CFC_X]->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "cfc: x has to be [T, I], not %s",
                       em_shape_text(c->in[CFC_X], text, sizeof text));
    EM_TRY(check_present(c));
    for (unsigned l = 0; l < a->layers; l++)
        EM_TRY(check_layer(c, l));
    if (em_cfc_has_memory(c)) {
        const struct em_memory m = em_cfc_memory_of(c);
        EM_TRY(em_memory_check(c, &m));
    }
    return em_recurrent_shape(c);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double T = (double)c->in[CFC_X]->dim[0], bytes = 8 * em_elements(c->in[CFC_X]);
    double weights = 0;
    for (unsigned i = CFC_MEMORY; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->ndim == 2) weights += em_elements(c->in[i]);
    *forward = (struct em_cost){2 * T * weights, bytes};
    *backward = (struct em_cost){6 * T * weights, 4 * bytes};
}

float em_cfc_dropout(const struct em_call *c, unsigned layer, unsigned depth, size_t token,
                     size_t unit)
{
    const float p = em_cfc_attr_of(c)->dropout;
    const uint64_t bits =
        em_hash64(em_hash64(c->exec->seed, c->exec->step, c->index),
                  token * EMBER_CFC_BACKBONE_MAX + depth, unit * EMBER_CFC_LAYERS_MAX + layer);
    return (double)(bits >> 32) * 0x1p-32 < (double)p ? 0 : 1 / (1 - p);
}

// ---- cpu ----

// The heads' weights as one matrix and one bias, masked where they are, layer after layer, each
// followed by room for its gradient: they read the same, so one product does for all.
static void prepare(const struct em_call *c, void *prepared)
{
    float *to = prepared;
    for (unsigned i = 0; i < em_cfc_attr_of(c)->layers; i++) {
        const struct em_cfc_layer l = em_cfc_layer_of(c, i);
        const size_t n = l.H * l.into_heads;
        float *bias = to + l.n_heads * n;
        for (unsigned h = 0; h < l.n_heads; h++) {
            const float *w = em_f32(c->in[l.heads + 2 * h]);
            if (c->in[l.mask] && h < 2)
                em_kernels()->mul_f32(to + h * n, w, em_f32(c->in[l.mask]), n);
            else
                memcpy(to + h * n, w, n * sizeof *w);
            memcpy(bias + h * l.H, em_f32(c->in[l.heads + 2 * h + 1]), l.H * sizeof *bias);
        }
        to += 2 * l.n_heads * (n + l.H);
    }
}

struct layer_run {
    struct em_cfc_layer l;
    const float *heads, *bias; // [n H, K], [n H]
    float *room;               // a gradient of both
    float *z, *pre, *value, *drop, *p, *tap;
    size_t tap_at, sum_at;
};

// A step's pieces of work: layers' first, then scratch of all.
struct step_run {
    struct layer_run layer[EMBER_CFC_LAYERS_MAX];
    float *spare;      // 2 * widest
    float *h, *memory; // [units + 4], the LSTM's
    size_t memory_tap;
};

static struct step_run run_of(const struct em_call *c, const void *prepared, float *work,
                              float *tap)
{
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    struct step_run r = {0};
    size_t widest = 0, tap_at = 0, sum_at = 0;
    const float *heads = prepared;
    for (unsigned i = 0; i < a->layers; i++) {
        struct layer_run *y = &r.layer[i];
        y->l = em_cfc_layer_of(c, i);
        const size_t K = y->l.K * a->backbone, columns = y->l.in > y->l.K ? y->l.in : y->l.K;
        const size_t rows = y->l.n_heads * y->l.H;
        y->heads = heads;
        y->bias = heads + rows * y->l.into_heads;
        y->room = (float *)(uintptr_t)y->bias + rows;
        heads = y->room + rows * (y->l.into_heads + 1);
        if (columns > widest) widest = columns;
        y->tap_at = tap_at;
        y->sum_at = sum_at;
        tap_at += layer_taps(c, &y->l);
        if (a->mode == EM_CFC_PURE) sum_at += 2 * y->l.H;
        if (!work) continue;
        y->z = work;
        y->pre = em_lanes_at(y->z, y->l.in);
        y->value = em_lanes_at(y->pre, K);
        y->drop = em_lanes_at(y->value, K);
        y->p = em_lanes_at(y->drop, K);
        work = em_lanes_at(y->p, y->l.n_heads * y->l.H);
        if (!tap) continue;
        y->tap = em_lanes_at(tap, y->tap_at);
        // Without a backbone what is read is what the heads' product sees: it is kept in place.
        if (!a->backbone) y->z = em_lanes_at(y->tap, y->l.n_heads * y->l.H);
    }
    r.memory_tap = tap_at;
    if (work) {
        r.spare = work;
        r.h = em_lanes_at(r.spare, 2 * widest);
        r.memory = em_lanes_at(r.h, 2 * a->units + 4);
    }
    return r;
}

static void product(float *y, const float *w, const ember_tensor *shape, const float *bias,
                    const float *x)
{
    em_kernels()->lanes_product_f32(y,
                                    &(struct em_lanes_product){.w = w,
                                                               .row_stride = shape->dim[1],
                                                               .col_stride = 1,
                                                               .rows = shape->dim[0],
                                                               .columns = shape->dim[1],
                                                               .bias = bias},
                                    x);
}

static void product_back(float *dx, const float *w, const ember_tensor *shape, const float *dy,
                         bool add)
{
    em_kernels()->lanes_product_f32(dx,
                                    &(struct em_lanes_product){.w = w,
                                                               .row_stride = 1,
                                                               .col_stride = shape->dim[1],
                                                               .rows = shape->dim[1],
                                                               .columns = shape->dim[0],
                                                               .add = add},
                                    dy);
}

static enum em_activation kernel_activation(const struct em_call *c)
{
    static const enum em_activation kind[] = {EM_TANH, EM_RELU, EM_SILU, EM_TANH, EM_GELU};
    return kind[em_cfc_attr_of(c)->activation];
}

static bool is_lecun(const struct em_call *c)
{
    return em_cfc_attr_of(c)->activation == EMBER_CFC_LECUN_TANH;
}

// value = act(pre); lecun_tanh leaves 0.666 pre in `pre`, which is what its slope is taken at.
static void activate(const struct em_call *c, float *value, float *pre, size_t n)
{
    if (is_lecun(c)) em_kernels()->scale_f32(pre, pre, 0.666f, n);
    em_kernels()->activation_f32(kernel_activation(c), value, pre, n);
    if (is_lecun(c)) em_kernels()->scale_f32(value, value, 1.7159f, n);
}

static void activate_back(const struct em_call *c, float *dpre, const float *dvalue,
                          const float *pre, size_t n)
{
    em_kernels()->activation_backward_f32(kernel_activation(c), dpre, true, dvalue, pre, n);
    if (is_lecun(c)) em_kernels()->scale_f32(dpre, dpre, 1.7159f * 0.666f, n);
}

static void make_mask(const struct em_step *s, float *mask, unsigned layer, unsigned depth,
                      size_t K)
{
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < EM_LANES; i++)
            mask[k * EM_LANES + i] =
                s->token[i] == SIZE_MAX ? 0 : em_cfc_dropout(s->call, layer, depth, s->token[i], k);
}

static struct em_cfc_heads heads_of(const struct em_step *s, const struct layer_run *y)
{
    const struct em_call *c = s->call;
    const bool pure = em_cfc_attr_of(c)->mode == EM_CFC_PURE;
    return (struct em_cfc_heads){.H = y->l.H,
                                 .mode = em_cfc_attr_of(c)->mode,
                                 .dt = s->dt,
                                 .p = y->p,
                                 .w_tau = pure ? em_f32(c->in[y->l.tau]) : NULL,
                                 .a = pure ? em_f32(c->in[y->l.tau + 1]) : NULL};
}

// From input and last state to the layer's new h.
static void layer_forward(const struct em_step *s, const struct layer_run *y, unsigned index,
                          const float *input, const float *last, float *h)
{
    const struct em_call *c = s->call;
    const struct em_cfc_layer *l = &y->l;
    memcpy(y->z, input, l->I * EM_LANES * sizeof *y->z);
    memcpy(em_lanes_at(y->z, l->I), last, l->H * EM_LANES * sizeof *y->z);
    const float *z = y->z;
    for (unsigned b = 0; b < em_cfc_attr_of(c)->backbone; b++) {
        const ember_tensor *w = c->in[l->backbone + 2 * b];
        float *pre = em_lanes_at(y->pre, b * l->K), *value = em_lanes_at(y->value, b * l->K),
              *mask = em_lanes_at(y->drop, b * l->K);
        product(pre, em_f32(w), w, em_f32(c->in[l->backbone + 2 * b + 1]), z);
        activate(c, value, pre, l->K * EM_LANES);
        if (em_cfc_drops(c, b)) {
            make_mask(s, mask, index, b, l->K);
            em_kernels()->mul_f32(value, value, mask, l->K * EM_LANES);
        }
        z = value;
    }
    em_kernels()->lanes_product_f32(y->p,
                                    &(struct em_lanes_product){.w = y->heads,
                                                               .row_stride = l->into_heads,
                                                               .col_stride = 1,
                                                               .rows = l->n_heads * l->H,
                                                               .columns = l->into_heads,
                                                               .bias = y->bias},
                                    z);
    const struct em_cfc_heads heads = heads_of(s, y);
    em_kernels()->cfc_heads_f32(&heads, h);
}

// The whole step; h [units] of all layers. `c` [units] is the memory's.
static void forward(const struct em_step *s, const struct step_run *r, float *h, float *c)
{
    const struct em_call *call = s->call;
    const struct em_memory m = em_cfc_memory_of(call);
    const float *input = s->x, *last = s->before;
    if (em_cfc_has_memory(call)) {
        em_memory_step(s, &m, r->h, c, r->memory);
        last = r->h;
    }
    for (unsigned i = 0; i < em_cfc_attr_of(call)->layers; i++) {
        const struct em_cfc_layer *l = &r->layer[i].l;
        float *to = em_lanes_at(h, l->first);
        layer_forward(s, &r->layer[i], i, input, last + l->first * EM_LANES, to);
        input = to;
    }
}

static void step(const struct em_step *s)
{
    const struct step_run r = run_of(s->call, s->prepared, s->work, NULL);
    forward(s, &r, s->after, em_lanes_at(s->after, em_cfc_attr_of(s->call)->units));
}

// dh of the layer becomes the gradient of what it read, in `dz` [in]. Taps: of the heads (dp, z),
// then of the backbone from its last layer to its first.
static void layer_back(const struct em_step *s, const struct layer_run *y, const float *dh,
                       float *dz, float *spare)
{
    const struct em_call *c = s->call;
    const struct em_cfc_layer *l = &y->l;
    const unsigned n = em_cfc_attr_of(c)->backbone;
    const struct em_cfc_heads heads = heads_of(s, y);
    float *dp = y->tap, *keep = em_lanes_at(dp, l->n_heads * l->H);
    const float *z = n ? y->value + (n - 1) * l->K * EM_LANES : y->z;
    float *from = n ? spare : dz;
    em_kernels()->cfc_heads_backward_f32(&heads, dp, em_lanes_at(s->sums, y->sum_at), dh);
    if (keep != z) memcpy(keep, z, l->into_heads * EM_LANES * sizeof *keep);
    em_kernels()->lanes_product_f32(from,
                                    &(struct em_lanes_product){.w = y->heads,
                                                               .row_stride = 1,
                                                               .col_stride = l->into_heads,
                                                               .rows = l->into_heads,
                                                               .columns = l->n_heads * l->H},
                                    dp);
    float *tap = em_lanes_at(keep, l->into_heads);
    for (unsigned b = n; b-- > 0;) {
        const ember_tensor *w = c->in[l->backbone + 2 * b];
        const size_t columns = b ? l->K : l->in;
        if (em_cfc_drops(c, b))
            em_kernels()->mul_f32(spare, spare, y->drop + b * l->K * EM_LANES, l->K * EM_LANES);
        activate_back(c, tap, spare, y->pre + b * l->K * EM_LANES, l->K * EM_LANES);
        memcpy(em_lanes_at(tap, l->K), b ? y->value + (b - 1) * l->K * EM_LANES : y->z,
               columns * EM_LANES * sizeof *tap);
        product_back(b ? spare : dz, em_f32(w), w, tap, false);
        tap = em_lanes_at(tap, l->K + columns);
    }
}

static void step_back(const struct em_step *s)
{
    const struct em_call *c = s->call;
    const size_t units = em_cfc_attr_of(c)->units;
    const struct step_run r = run_of(c, s->prepared, s->work, s->tap);
    const struct em_memory m = em_cfc_memory_of(c);
    const bool memory = em_cfc_has_memory(c);
    float *h = em_lanes_at(r.h, units + 2), *dz = em_lanes_at(r.spare, 0);
    // The state's gradient is that of h, layer by layer, and becomes that of the last states.
    forward(s, &r, h, memory ? em_lanes_at(r.memory, 5 * units) : NULL);
    for (unsigned i = em_cfc_attr_of(c)->layers; i-- > 0;) {
        const struct em_cfc_layer *l = &r.layer[i].l;
        float *dh = em_lanes_at(s->ds, l->first);
        // Spare is two of the widest: what was read, and what is on the way there.
        size_t widest = l->in > l->K ? l->in : l->K;
        layer_back(s, &r.layer[i], dh, dz, em_lanes_at(dz, widest));
        float *to = i ? em_lanes_at(s->ds, r.layer[i - 1].l.first) : s->dx;
        em_kernels()->add_f32(to, to, dz, l->I * EM_LANES);
        memcpy(dh, em_lanes_at(dz, l->I), l->H * EM_LANES * sizeof *dh);
    }
    if (memory)
        em_memory_step_back(s, &m, s->ds, em_lanes_at(s->ds, units), r.memory,
                            em_lanes_at(s->tap, r.memory_tap));
}

// The heads' gradients, from one product; a masked weight's is masked too.
static void finish_heads(const struct em_call *c, const struct layer_run *y, const float *taps)
{
    const struct em_cfc_layer *l = &y->l;
    const size_t rows = l->n_heads * l->H, n = l->H * l->into_heads;
    float *bias = y->room + rows * l->into_heads;
    memset(y->room, 0, rows * (l->into_heads + 1) * sizeof *y->room);
    em_tap_product(c, taps, y->tap_at, rows, y->tap_at + rows, l->into_heads, y->room);
    em_tap_bias(c, taps, y->tap_at, rows, bias);
    for (unsigned h = 0; h < l->n_heads; h++) {
        float *dw = em_gradient_of(c, l->heads + 2 * h),
              *db = em_gradient_of(c, l->heads + 2 * h + 1);
        if (dw && c->in[l->mask] && h < 2)
            em_kernels()->muladd_f32(dw, y->room + h * n, em_f32(c->in[l->mask]), n);
        else if (dw)
            em_kernels()->add_f32(dw, dw, y->room + h * n, n);
        if (db) em_kernels()->add_f32(db, db, bias + h * l->H, l->H);
    }
}

static void finish(const struct em_call *c, const void *prepared, const float *taps,
                   const double *sums)
{
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    const struct step_run r = run_of(c, prepared, NULL, NULL);
    for (unsigned i = 0; i < a->layers; i++) {
        const struct layer_run *y = &r.layer[i];
        const struct em_cfc_layer *l = &y->l;
        size_t at = y->tap_at + l->n_heads * l->H + l->into_heads;
        finish_heads(c, y, taps);
        for (unsigned b = a->backbone; b-- > 0;) {
            const size_t columns = b ? l->K : l->in;
            em_tap_product(c, taps, at, l->K, at + l->K, columns,
                           em_gradient_of(c, l->backbone + 2 * b));
            em_tap_bias(c, taps, at, l->K, em_gradient_of(c, l->backbone + 2 * b + 1));
            at += l->K + columns;
        }
        float *dtau = a->mode == EM_CFC_PURE ? em_gradient_of(c, l->tau) : NULL,
              *da = a->mode == EM_CFC_PURE ? em_gradient_of(c, l->tau + 1) : NULL;
        for (size_t j = 0; j < l->H; j++) {
            if (dtau) dtau[j] += (float)sums[y->sum_at + 2 * j];
            if (da) da[j] += (float)sums[y->sum_at + 2 * j + 1];
        }
    }
    if (em_cfc_has_memory(c)) {
        const struct em_memory m = em_cfc_memory_of(c);
        em_memory_finish(c, &m, taps, r.memory_tap);
    }
}

static const struct em_cell cell = {.sizes = sizes,
                                    .prepare = prepare,
                                    .step = step,
                                    .step_back = step_back,
                                    .finish = finish,
                                    .reference = em_cfc_reference,
                                    .reference_back = em_cfc_reference_back};

const struct em_op em_op_cfc = {
    .name = "cfc",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_recurrent_forward, em_recurrent_backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_recurrent_reference_forward, em_recurrent_reference_backward)},
    .backward_reads = EM_READS_IN(CFC_X),
    .flags = EM_OP_SETS_FRESH,
};

static ember_tensor **place_layer(ember_tensor **in, const struct em_cfc_attr *a,
                                  const ember_cfc_layer *l)
{
    for (unsigned b = 0; b < a->backbone; b++) {
        *in++ = l->backbone[b].weight;
        *in++ = l->backbone[b].bias;
    }
    *in++ = l->ff1.weight;
    *in++ = l->ff1.bias;
    if (a->mode == EM_CFC_PURE) {
        *in++ = l->w_tau;
        *in++ = l->a;
    } else {
        ember_tensor *const rest[] = {l->ff2.weight,  l->ff2.bias,      l->time_a.weight,
                                      l->time_a.bias, l->time_b.weight, l->time_b.bias};
        memcpy(in, rest, sizeof rest);
        in += 6;
    }
    *in++ = l->mask;
    return in;
}

ember_status ember_cfc(ember_flow *flow, ember_tensor *x, const ember_cfc_layer *layers,
                       size_t n_layers, const ember_cfc_options *o, ember_tensor **y)
{
    if (!n_layers || n_layers > EMBER_CFC_LAYERS_MAX ||
        o->backbone_layers > EMBER_CFC_BACKBONE_MAX || o->mode > EMBER_CFC_PURE ||
        o->activation > EMBER_CFC_GELU || !(o->dropout >= 0 && o->dropout < 1))
        return em_fail(EMBER_E_RANGE,
                       "cfc: %zu layers (1 to %d) of %zu backbone layers (0 to %d), dropout %g",
                       n_layers, EMBER_CFC_LAYERS_MAX, o->backbone_layers, EMBER_CFC_BACKBONE_MAX,
                       (double)o->dropout);
    EM_TRY(em_check_token_rows(flow, "cfc", x));
    const struct em_cfc_attr shape_of = {.mode = (enum em_cfc_mode)o->mode,
                                         .activation = (int)o->activation,
                                         .layers = (unsigned)n_layers,
                                         .backbone = (unsigned)o->backbone_layers,
                                         .dropout = o->dropout};
    struct em_call *c = em_recurrent_new(
        flow, &em_op_cfc, &cell, CFC_LAYERS + shape_of.layers * em_cfc_layer_inputs(&shape_of));
    if (!c) return EMBER_E_NOMEM;
    struct em_cfc_attr *a = em_attr(c, struct em_cfc_attr);
    const struct em_recurrent_attr base = a->base;
    *a = shape_of;
    a->base = base;
    a->base.stride = o->stride;
    c->in[CFC_X] = x;
    c->in[CFC_MEMORY] = o->memory.input_map;
    c->in[CFC_MEMORY + 1] = o->memory.input_bias;
    c->in[CFC_MEMORY + 2] = o->memory.recurrent_map;
    ember_tensor **in = c->in + CFC_LAYERS;
    for (size_t l = 0; l < n_layers; l++) {
        in = place_layer(in, a, &layers[l]);
        if (layers[l].ff1.weight) a->units += layers[l].ff1.weight->dim[0];
    }
    return em_recurrent_record(flow, c, o->memory.input_map ? 2 * a->units : a->units, y);
}
