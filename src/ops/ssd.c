// Mamba-2's scan over packed sequences: state space duality, Dao and Gu 2024, arXiv:2405.21060.
// Head j of width P, with N states and one decay rate A = -exp(A_log) for all of them:
//   dt = softplus(dt + dt_bias) within limits
//   h[t] = exp(dt A) h[t-1] + dt B[t] x[t]^T,  y[t] = C[t] h[t] + D x[t]
// A sequence is taken in chunks: with L_i = sum of dt A from the chunk's start to i, u = dt x and
// M_ij = exp(L_i - L_j) for j <= i, else 0,
//   y = (C B^T . M) u + exp(L) C h + D x,  h' = exp(L_n) h + (exp(L_n - L) B)^T u,
// all matrix products. L is a sum in double over few tokens, so that its differences lose nothing
// that shows in f32. Backward makes the states at the chunks' starts again and walks back. No
// gradient goes into the state that a sequence starts from.
#include "ops/ssd.h"

#include <math.h>

enum { X = EM_SSD_X, DT, A_LOG, B, C, D, DT_BIAS, INPUTS };

static ember_status check(const struct em_call *c, unsigned i, const char *name, size_t width)
{
    const ember_tensor *t = c->in[i];
    char text[96];
    EM_TRY(em_check_f32(c, t, name, 0));
    if (i == A_LOG || i == D || i == DT_BIAS) {
        if (t->info || !em_is_contiguous(t) || t->ndim != 1 || t->dim[0] != width)
            return em_fail(EMBER_E_SHAPE, "ssd: %s has to be a parameter [%zu], not %s", name,
                           width, em_shape_text(t, text, sizeof text));
    } else if (t->ndim != 2 || t->dim[1] != width || !em_has_token_rows(t)) {
        return em_fail(EMBER_E_SHAPE, "ssd: %s has to be [T, %zu], not %s", name, width,
                       em_shape_text(t, text, sizeof text));
    }
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    EM_TRY(check(c, X, "x", a->H * a->P));
    EM_TRY(check(c, DT, "dt", a->H));
    EM_TRY(check(c, A_LOG, "A_log", a->H));
    EM_TRY(check(c, B, "B", a->G * a->N));
    EM_TRY(check(c, C, "C", a->G * a->N));
    if (c->in[D]) EM_TRY(check(c, D, "D", a->H));
    if (c->in[DT_BIAS]) EM_TRY(check(c, DT_BIAS, "dt_bias", a->H));
    size_t bytes = 0;
    if (em_is_reference(c))
        EM_TRY(em_ssd_reference_scratch(c, a, &bytes));
    else
        EM_TRY(em_ssd_cpu_scratch(c, a, &bytes));
    em_need_scratch(c, bytes);
    return em_out_like(c, 0, c->in[X]);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct em_ssd *a = em_attr_const(c, struct em_ssd);
    const double T = (double)c->out[0]->dim[0], H = (double)a->H, N = (double)a->N,
                 P = (double)a->P;
    const double bytes =
        4 * (2 * em_elements(c->in[X]) + em_elements(c->in[B]) + em_elements(c->in[C]));
    *forward = (struct em_cost){
        T * H * (4 * N * P + EM_SSD_CHUNK * P) + T * (double)a->G * EM_SSD_CHUNK * N, bytes};
    *backward = (struct em_cost){T * H * (14 * N * P + 3 * EM_SSD_CHUNK * (N + P)), 2 * bytes};
}

const struct em_op em_op_ssd = {
    .name = "ssd",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_ssd_cpu_forward, em_ssd_cpu_backward),
                [EM_REFERENCE] = EM_PASSES(em_ssd_reference_forward, em_ssd_reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(DT) | EM_READS_IN(A_LOG) | EM_READS_IN(B) |
                      EM_READS_IN(C) | EM_READS_IN(D) | EM_READS_IN(DT_BIAS),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_ssd(ember_flow *flow, const ember_ssd_inputs *in, const ember_ssd_options *o,
                       ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "ssd", in->x));
    const size_t E = in->x->ndim == 2 ? in->x->dim[1] : 0, groups = o->groups ? o->groups : 1;
    const double high = o->dt_max > 0 ? o->dt_max : (double)INFINITY;
    if (!o->heads || !E || E % o->heads || o->heads % groups)
        return em_fail(EMBER_E_SHAPE,
                       "ssd: %zu channels cannot be %zu heads in %zu groups: each has to divide "
                       "what stands before it",
                       E, o->heads, groups);
    if (!(o->dt_min >= 0) || !(high >= o->dt_min))
        return em_fail(EMBER_E_RANGE, "ssd: steps cannot be limited to %g .. %g", o->dt_min, high);
    if (!in->B || in->B->ndim != 2 || !in->B->dim[1] || in->B->dim[1] % groups)
        return em_fail(EMBER_E_SHAPE, "ssd: B has to be [T, groups * N], of %zu groups", groups);
    struct em_call *c = em_call_new(flow, &em_op_ssd, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    const struct em_ssd a = {.H = o->heads,
                             .P = E / o->heads,
                             .G = groups,
                             .N = in->B->dim[1] / groups,
                             .low = o->dt_min,
                             .high = high};
    *em_attr(c, struct em_ssd) = a;
    c->in[X] = in->x;
    c->in[DT] = in->dt;
    c->in[A_LOG] = in->A_log;
    c->in[B] = in->B;
    c->in[C] = in->C;
    c->in[D] = in->D;
    c->in[DT_BIAS] = in->dt_bias;
    size_t states;
    if (!em_mul_size(E, a.N, &states))
        return em_fail(EMBER_E_NOMEM, "ssd: %zu channels of %zu states do not fit into memory", E,
                       a.N);
    EM_TRY(em_need_state(flow, c, &(struct em_state_spec){.name = "ssd", .fixed = states}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
