// A kernel of which only the lowest frequencies are left: k [H, L], padded to P places,
// transformed, all but the first F of its P / 2 + 1 frequencies set to 0, and transformed back. It
// answers before the impulse too: y[h][j], j < P / 2, are its lags, and later[h][j] those of tokens
// that come j later (later[h][0] = 0, as lag 0 is in y). Fu et al. 2023, "FlashFFTConv",
// arXiv:2311.05908, section 3.3. The map is its own transpose: dk is the same of what the gradients
// of y and later are in P places.
//
// In double: it is a small part of a convolution's work, and a kernel's error is everybody's. Two
// heads are one complex transform, as the map does not mix real and imaginary parts.
#include <math.h>

#include "kernels/kernels.h"
#include "ops/rows.h"

enum { Y, LATER };

struct attr {
    size_t places, frequencies;
};

static struct attr attr_of(const struct em_call *c)
{
    return *em_attr_const(c, struct attr);
}

static size_t pairs_of(const struct em_call *c)
{
    return c->in[0]->dim[0] / 2 + c->in[0]->dim[0] % 2;
}

static ember_status shape(struct em_call *c)
{
    char text[96];
    const struct attr a = attr_of(c);
    const ember_tensor *k = c->in[0];
    EM_TRY(em_check_f32(c, k, "k", 0));
    if (k->ndim != 2 || k->info || !em_is_contiguous(k) || k->dim[1] > a.places)
        return em_fail(EMBER_E_SHAPE,
                       "frequency_sparse: k has to be a parameter [H, L] of at most %zu lags, not "
                       "%s",
                       a.places, em_shape_text(k, text, sizeof text));
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, 2, a.places, &bytes)); // sines and cosines
    EM_TRY(em_add_scratch(c, em_call_threads(c), 4 * a.places, &bytes));
    em_need_scratch(c, bytes);
    const size_t dim[] = {k->dim[0], a.places / 2};
    EM_TRY(em_out(c, Y, EMBER_F32, dim, 2));
    return em_out(c, LATER, EMBER_F32, dim, 2);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct attr a = attr_of(c);
    const double P = (double)a.places, heads = (double)c->in[0]->dim[0];
    *forward = *backward =
        (struct em_cost){heads * 10 * P * log2(P), 4 * heads * (P + (double)c->in[0]->dim[1])};
}

// ---- cpu ----

struct work {
    const struct em_call *call;
    const double *turn; // [places / 2][2]: cosine and sine of 2 pi i / places
    double *values;     // [threads][places][2]
    bool backward;
};

static void swap(double *x, size_t i, size_t j)
{
    for (size_t part = 0; part < 2; part++) {
        const double t = x[2 * i + part];
        x[2 * i + part] = x[2 * j + part];
        x[2 * j + part] = t;
    }
}

// In place, radix 2: Cooley and Tukey 1965. `sign` -1: forward, 1: back (without the division).
static void transform(double *x, size_t P, const double *turn, double sign)
{
    for (size_t i = 1, j = 0; i < P; i++) {
        size_t bit = P >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j |= bit;
        if (i < j) swap(x, i, j);
    }
    for (size_t half = 1; half < P; half *= 2)
        for (size_t begin = 0; begin < P; begin += 2 * half)
            for (size_t i = 0; i < half; i++) {
                double *a = x + 2 * (begin + i), *b = a + 2 * half;
                const double *w = turn + 2 * (i * (P / 2 / half));
                const double re = b[0] * w[0] - sign * b[1] * w[1],
                             im = b[1] * w[0] + sign * b[0] * w[1];
                b[0] = a[0] - re;
                b[1] = a[1] - im;
                a[0] += re;
                a[1] += im;
            }
}

// Leaves the lowest frequencies of both parts, divided.
static void sparsify(double *x, const struct attr *a, const double *turn)
{
    const size_t P = a->places;
    if (a->frequencies > P / 2) return;
    transform(x, P, turn, -1);
    for (size_t f = a->frequencies; f <= P - a->frequencies; f++)
        x[2 * f] = x[2 * f + 1] = 0;
    transform(x, P, turn, 1);
    for (size_t i = 0; i < 2 * P; i++)
        x[i] /= (double)P;
}

static void forward_head(const struct work *w, size_t h, double *x)
{
    const struct em_call *c = w->call;
    const size_t P = attr_of(c).places, n = P / 2;
    float *y = em_f32(c->out[Y]) + h * n, *later = em_f32(c->out[LATER]) + h * n;
    for (size_t j = 0; j < n; j++) {
        y[j] = (float)x[2 * j];
        later[j] = j ? (float)x[2 * (P - j)] : 0;
    }
}

static void read_head(const struct work *w, size_t h, double *x)
{
    const struct em_call *c = w->call;
    const size_t P = attr_of(c).places, n = P / 2, L = c->in[0]->dim[1];
    const float *k = em_f32(c->in[0]) + h * L;
    for (size_t j = 0; !w->backward && j < L; j++)
        x[2 * j] = (double)k[j];
    if (!w->backward) return;
    const float *y = em_f32(c->out[Y]->grad) + h * n, *later = em_f32(c->out[LATER]->grad) + h * n;
    for (size_t j = 0; j < n; j++)
        x[2 * j] = (double)y[j];
    for (size_t j = 1; j < n; j++)
        x[2 * (P - j)] = (double)later[j];
}

static void pairs(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const struct attr a = attr_of(c);
    const size_t H = c->in[0]->dim[0], L = c->in[0]->dim[1];
    double *x = w->values + thread * 2 * a.places;
    for (size_t pair = begin; pair < end; pair++) {
        memset(x, 0, 2 * a.places * sizeof *x);
        for (size_t part = 0; part < 2 && 2 * pair + part < H; part++)
            read_head(w, 2 * pair + part, x + part);
        sparsify(x, &a, w->turn);
        for (size_t part = 0; part < 2 && 2 * pair + part < H; part++) {
            const size_t h = 2 * pair + part;
            float *dk = w->backward ? em_f32(c->in[0]->grad) + h * L : NULL;
            if (!dk) forward_head(w, h, x + part);
            for (size_t j = 0; dk && j < L; j++)
                dk[j] += (float)x[2 * j + part];
        }
    }
}

static void run(const struct em_call *c, bool backward)
{
    const size_t P = attr_of(c).places;
    double *turn = em_scratch_take(em_scratch_of(c), P * sizeof *turn);
    for (size_t i = 0; i < P / 2; i++) {
        const double angle = 2 * 3.14159265358979323846 * (double)i / (double)P;
        turn[2 * i] = cos(angle);
        turn[2 * i + 1] = sin(angle);
    }
    struct work w = {.call = c, .turn = turn, .backward = backward};
    w.values = em_scratch_take(em_scratch_of(c),
                               em_pool_threads(c->exec->pool) * 2 * P * sizeof *w.values);
    em_parallel(c->exec->pool, pairs_of(c), 1, pairs, &w);
}

static void forward(const struct em_call *c)
{
    run(c, false);
}

static void backward(const struct em_call *c)
{
    if (em_wants(c, 0)) run(c, true);
}

// ---- reference: a circular convolution with the sum of the cosines that are left ----

static double response(const struct attr *a, size_t n)
{
    double sum = 0;
    for (size_t f = 0; f < a->places; f++) {
        const size_t low = f < a->places - f ? f : a->places - f;
        if (low < a->frequencies)
            sum +=
                cos(2 * 3.14159265358979323846 * (double)(f * n % a->places) / (double)a->places);
    }
    return sum / (double)a->places;
}

static void reference(const struct em_call *c, bool backward)
{
    const struct attr a = attr_of(c);
    const size_t P = a.places, n = P / 2, H = c->in[0]->dim[0], L = c->in[0]->dim[1];
    double *d = em_scratch_take(em_scratch_of(c), P * sizeof *d);
    for (size_t i = 0; i < P; i++)
        d[i] = response(&a, i);
    for (size_t h = 0; h < H; h++)
        for (size_t place = 0; place < P; place++) {
            const size_t later = place > n ? P - place : 0;
            if (place == n) continue;
            const ember_tensor *t = c->out[later ? LATER : Y];
            const size_t at = h * n + (later ? later : place);
            double sum = 0;
            for (size_t j = 0; j < L; j++) {
                const double r = d[(place + P - j) % P];
                if (backward)
                    em_f32(c->in[0]->grad)[h * L + j] += (float)(r * (double)em_f32(t->grad)[at]);
                else
                    sum += r * (double)em_f32(c->in[0])[h * L + j];
            }
            if (!backward) em_f32(t)[at] = (float)sum;
        }
    for (size_t h = 0; !backward && h < H; h++)
        em_f32(c->out[LATER])[h * n] = 0;
}

static void reference_forward(const struct em_call *c)
{
    reference(c, false);
}

static void reference_backward(const struct em_call *c)
{
    if (em_wants(c, 0)) reference(c, true);
}

const struct em_op em_op_frequency_sparse = {
    .name = "frequency_sparse",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
};

ember_status ember_frequency_sparse(ember_flow *flow, ember_tensor *k, size_t fft_size,
                                    size_t frequencies, ember_tensor **y, ember_tensor **later)
{
    if (fft_size < 2 || fft_size & (fft_size - 1) || fft_size > (size_t)1 << 30)
        return em_fail(
            EMBER_E_RANGE,
            "frequency_sparse: fft_size has to be a power of two from 2 to 2^30, not %zu",
            fft_size);
    if (!frequencies)
        return em_fail(EMBER_E_RANGE, "frequency_sparse: at least one frequency has to be left");
    struct em_call *c = em_call_new(flow, &em_op_frequency_sparse, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = k;
    *em_attr(c, struct attr) = (struct attr){fft_size, frequencies};
    EM_TRY(em_record(flow, c));
    *y = c->out[Y];
    *later = c->out[LATER];
    return EMBER_OK;
}
