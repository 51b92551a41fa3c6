// The reference of the operation cfc: one sequence, sums in double.
#include "ops/cfc.h"

// Doubles of a layer: z, pre-activations and values of the backbone, heads' products, and gradients
// of as many.
static size_t layer_work(const struct em_call *c, const struct em_cfc_layer *l)
{
    return 2 * (l->in + 2 * em_cfc_attr_of(c)->backbone * l->K + l->n_heads * l->H);
}

size_t em_cfc_reference_work(const struct em_call *c)
{
    const struct em_memory m = em_cfc_memory_of(c);
    size_t n = 4 * em_cfc_attr_of(c)->units;
    for (unsigned i = 0; i < em_cfc_attr_of(c)->layers; i++) {
        const struct em_cfc_layer l = em_cfc_layer_of(c, i);
        n += layer_work(c, &l);
    }
    return n + (em_cfc_has_memory(c) ? em_memory_reference_work(&m) : 0);
}

struct layer {
    struct em_cfc_layer l;
    double *z, *pre, *value, *p, *dz, *dvalue, *dp;
};

static struct layer layer_at(const struct em_call *c, unsigned index, double **work)
{
    struct layer y = {.l = em_cfc_layer_of(c, index)};
    const size_t K = em_cfc_attr_of(c)->backbone * y.l.K, heads = y.l.n_heads * y.l.H;
    y.z = *work;
    y.pre = y.z + y.l.in;
    y.value = y.pre + K;
    y.p = y.value + K;
    y.dz = y.p + heads;
    y.dvalue = y.dz + y.l.in;
    y.dp = y.dvalue + 2 * K;
    *work += layer_work(c, &y.l);
    return y;
}

static double weight(const struct em_call *c, const struct layer *y, unsigned input, size_t at)
{
    const double w = (double)em_f32(c->in[input])[at];
    const bool masked = c->in[y->l.mask] && (input == y->l.heads || input == y->l.heads + 2);
    return masked && y->l.n_heads >= (input == y->l.heads ? 1 : 4)
               ? w * (double)em_f32(c->in[y->l.mask])[at]
               : w;
}

static void product(const struct em_call *c, const struct layer *y, unsigned input, const double *x,
                    double *to)
{
    const size_t rows = c->in[input]->dim[0], columns = c->in[input]->dim[1];
    for (size_t i = 0; i < rows; i++) {
        to[i] = (double)em_f32(c->in[input + 1])[i];
        for (size_t k = 0; k < columns; k++)
            to[i] += weight(c, y, input, i * columns + k) * x[k];
    }
}

// dx += w^T dy, and the parameters' gradients.
static void product_back(const struct em_call *c, const struct layer *y, unsigned input,
                         const double *x, const double *dy, double *dx)
{
    const size_t rows = c->in[input]->dim[0], columns = c->in[input]->dim[1];
    float *dw = em_gradient_of(c, input), *db = em_gradient_of(c, input + 1);
    for (size_t i = 0; i < rows; i++) {
        if (db) db[i] += (float)dy[i];
        for (size_t k = 0; k < columns; k++) {
            const size_t at = i * columns + k;
            const bool is_head =
                input == y->l.heads || (y->l.n_heads == 4 && input == y->l.heads + 2);
            const double mask =
                is_head && c->in[y->l.mask] ? (double)em_f32(c->in[y->l.mask])[at] : 1;
            dx[k] += weight(c, y, input, at) * dy[i];
            if (dw) dw[at] += (float)(dy[i] * x[k] * mask);
        }
    }
}

static double activate(const struct em_call *c, double x, double *slope)
{
    static const enum em_activation kind[] = {EM_TANH, EM_RELU, EM_SILU, EM_TANH, EM_GELU};
    const int a = em_cfc_attr_of(c)->activation;
    if (a != EMBER_CFC_LECUN_TANH) return em_activation_reference(kind[a], x, slope);
    const double t = tanh(0.666 * x);
    *slope = 1.7159 * 0.666 * (1 - t * t);
    return 1.7159 * t;
}

static double dropped(const struct em_reference_step *s, unsigned layer, unsigned depth,
                      size_t unit)
{
    return em_cfc_drops(s->call, depth)
               ? (double)em_cfc_dropout(s->call, layer, depth, s->token, unit)
               : 1;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

// A unit's h, and how it moves with its heads' products and (pure) with w_tau and A.
static double unit(const struct em_reference_step *s, const struct layer *y, size_t j,
                   double *slope, double *tau_slope, double *a_slope)
{
    const struct em_call *c = s->call;
    const size_t H = y->l.H;
    const enum em_cfc_mode mode = em_cfc_attr_of(c)->mode;
    if (mode == EM_CFC_PURE) {
        const double tau = (double)em_f32(c->in[y->l.tau])[j],
                     a = (double)em_f32(c->in[y->l.tau + 1])[j], f = y->p[j],
                     e = exp(-s->dt * (fabs(tau) + fabs(f)));
        slope[0] = -a * e * (1 - s->dt * fabs(f));
        *tau_slope = a * e * f * s->dt * (tau > 0 ? 1 : tau < 0 ? -1 : 0);
        *a_slope = 1 - e * f;
        return a - a * e * f;
    }
    const double f1 = tanh(y->p[j]), f2 = tanh(y->p[H + j]),
                 g = sigmoid(y->p[2 * H + j] * s->dt + y->p[3 * H + j]);
    const bool gated = mode == EM_CFC_DEFAULT;
    const double dg = (gated ? f2 - f1 : f2) * g * (1 - g);
    slope[0] = (gated ? 1 - g : 1) * (1 - f1 * f1);
    slope[1] = g * (1 - f2 * f2);
    slope[2] = dg * s->dt;
    slope[3] = dg;
    return gated ? f1 * (1 - g) + g * f2 : f1 + g * f2;
}

static void layer_forward(const struct em_reference_step *s, const struct layer *y, unsigned index,
                          const double *input, const double *last, double *h)
{
    const struct em_call *c = s->call;
    const size_t K = y->l.K;
    double slope[4], unused[2];
    memcpy(y->z, input, y->l.I * sizeof *y->z);
    memcpy(y->z + y->l.I, last, y->l.H * sizeof *y->z);
    const double *z = y->z;
    for (unsigned b = 0; b < em_cfc_attr_of(c)->backbone; b++) {
        product(c, y, y->l.backbone + 2 * b, z, y->pre + b * K);
        for (size_t k = 0; k < K; k++)
            y->value[b * K + k] = activate(c, y->pre[b * K + k], slope) * dropped(s, index, b, k);
        z = y->value + b * K;
    }
    for (unsigned k = 0; k < y->l.n_heads; k++)
        product(c, y, y->l.heads + 2 * k, z, y->p + k * y->l.H);
    for (size_t j = 0; j < y->l.H; j++)
        h[j] = unit(s, y, j, slope, &unused[0], &unused[1]);
}

// dh [H] becomes dz [in].
static void layer_back(const struct em_reference_step *s, const struct layer *y, unsigned index,
                       const double *dh)
{
    const struct em_call *c = s->call;
    const unsigned n = em_cfc_attr_of(c)->backbone;
    const size_t K = y->l.K, H = y->l.H;
    double slope[4], tau_slope = 0, a_slope = 0;
    for (size_t j = 0; j < H; j++) {
        unit(s, y, j, slope, &tau_slope, &a_slope);
        for (unsigned k = 0; k < y->l.n_heads; k++)
            y->dp[k * H + j] = dh[j] * slope[k];
        if (y->l.n_heads > 1) continue;
        float *dtau = em_gradient_of(c, y->l.tau), *da = em_gradient_of(c, y->l.tau + 1);
        if (dtau) dtau[j] += (float)(dh[j] * tau_slope);
        if (da) da[j] += (float)(dh[j] * a_slope);
    }
    memset(y->dz, 0, y->l.in * sizeof *y->dz);
    memset(y->dvalue, 0, 2 * n * K * sizeof *y->dvalue);
    const double *z = n ? y->value + (n - 1) * K : y->z;
    for (unsigned k = 0; k < y->l.n_heads; k++)
        product_back(c, y, y->l.heads + 2 * k, z, y->dp + k * H,
                     n ? y->dvalue + (n - 1) * K : y->dz);
    for (unsigned b = n; b-- > 0;) {
        double *d = y->dvalue + b * K, *dpre = y->dvalue + n * K;
        for (size_t k = 0; k < K; k++) {
            activate(c, y->pre[b * K + k], slope);
            dpre[k] = d[k] * dropped(s, index, b, k) * slope[0];
        }
        product_back(c, y, y->l.backbone + 2 * b, b ? y->value + (b - 1) * K : y->z, dpre,
                     b ? y->dvalue + (b - 1) * K : y->dz);
    }
}

// Fills the layers' work; last: what layers take as their last states. h, c of the step.
static void forward(const struct em_reference_step *s, struct layer *layer, double *h, double *c,
                    double *last, double *memory)
{
    const struct em_call *call = s->call;
    const struct em_memory m = em_cfc_memory_of(call);
    if (em_cfc_has_memory(call))
        em_memory_reference(s, &m, last, c, memory);
    else
        memcpy(last, s->before, m.U * sizeof *last);
    const double *input = s->x;
    for (unsigned i = 0; i < em_cfc_attr_of(call)->layers; i++) {
        layer_forward(s, &layer[i], i, input, last + layer[i].l.first, h + layer[i].l.first);
        input = h + layer[i].l.first;
    }
}

static double *layers_of(const struct em_reference_step *s, struct layer *layer)
{
    double *work = s->work;
    for (unsigned i = 0; i < em_cfc_attr_of(s->call)->layers; i++)
        layer[i] = layer_at(s->call, i, &work);
    return work;
}

void em_cfc_reference(const struct em_reference_step *s)
{
    struct layer layer[EMBER_CFC_LAYERS_MAX];
    const size_t units = em_cfc_attr_of(s->call)->units;
    double *last = layers_of(s, layer);
    forward(s, layer, s->after, s->after + units, last, last + 4 * units);
}

void em_cfc_reference_back(const struct em_reference_step *s)
{
    const struct em_call *call = s->call;
    const struct em_memory m = em_cfc_memory_of(call);
    struct layer layer[EMBER_CFC_LAYERS_MAX];
    const size_t units = em_cfc_attr_of(call)->units;
    double *last = layers_of(s, layer), *h = last + units, *c = h + units,
           *memory = last + 4 * units;
    forward(s, layer, h, c, last, memory);
    for (unsigned i = em_cfc_attr_of(call)->layers; i-- > 0;) {
        const struct em_cfc_layer *l = &layer[i].l;
        double *dh = s->ds + l->first, *to = i ? s->ds + layer[i - 1].l.first : s->dx;
        layer_back(s, &layer[i], i, dh);
        for (size_t k = 0; k < l->I; k++)
            to[k] += layer[i].dz[k];
        memcpy(dh, layer[i].dz + l->I, l->H * sizeof *dh);
    }
    if (em_cfc_has_memory(call)) em_memory_reference_back(s, &m, s->ds, s->ds + units, memory);
}
