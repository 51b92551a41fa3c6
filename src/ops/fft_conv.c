// Long convolution over packed sequences: v = u pre, z = conv(v, k) + skip v, y = post act(z).
// With dz = dy post act'(z): dpost = dy act(z), dk[j] = sum_t dz[t] v[t-j], dskip = sum_t dz v,
//   dv[s] = sum_t dz[t] k[t-s] + skip dz[s], du = dv pre, dpre = dv u.
// No gradient goes into a state; the kernel's has its tokens too. Saved for backward, where a gate
// or an activation needs it: z [T, head_dim, D].
#include "ops/fft_conv.h"

#include "base/rng.h"

struct em_fft_conv em_fft_conv_of(const struct em_call *c)
{
    struct em_fft_conv f = {.call = c, .attr = *em_attr_const(c, struct em_fft_conv_attr)};
    const ember_tensor *k = c->in[EM_FC_K];
    f.D = c->in[EM_FC_U]->dim[1];
    f.d = f.attr.head_dim;
    f.taps = k->dim[f.attr.tap_rows ? 0 : 1];
    if (f.attr.taps && f.attr.taps < f.taps) f.taps = f.attr.taps;
    f.late = c->in[EM_FC_K_REV] ? f.taps : 0;
    f.causal = !f.late && !f.attr.circular;
    return f;
}

// The mask is a hash of (seed, step, call, sequence, channel), as dropout's is.
float em_fft_conv_mask(const struct em_fft_conv *f, size_t s, size_t channel)
{
    const struct em_exec *x = f->call->exec;
    const float p = x->training ? f->attr.dropout : 0;
    if (!(p > 0)) return 1;
    const uint64_t seed = em_hash64(x->seed, x->step, 0x66667463);
    const uint64_t bits = em_hash64(seed, f->call->index, s * f->D + channel) >> 32;
    return bits < (uint64_t)((double)p * 0x1p32) ? 0 : 1 / (1 - p);
}

static ember_status check_kernel(const struct em_call *c, unsigned i, const char *what)
{
    char text[96];
    const struct em_fft_conv_attr *a = em_attr_const(c, struct em_fft_conv_attr);
    const ember_tensor *k = c->in[i];
    const size_t heads = c->in[EM_FC_U]->dim[1] / a->head_dim;
    EM_TRY(em_check_f32(c, k, what, 0));
    if (k->ndim != 2 || k->dim[a->tap_rows] != heads || !k->dim[!a->tap_rows] ||
        em_has_token_rows(k) || (!a->tap_rows && !em_is_contiguous(k)))
        return em_fail(EMBER_E_SHAPE, "fft_conv: %s has to be %s with %zu head%s, not %s", what,
                       a->tap_rows ? "rows of lags [L, heads]" : "contiguous [heads, L]", heads,
                       heads == 1 ? "" : "s", em_shape_text(k, text, sizeof text));
    return EMBER_OK;
}

static ember_status check_inputs(const struct em_call *c)
{
    char text[96];
    const struct em_fft_conv_attr *a = em_attr_const(c, struct em_fft_conv_attr);
    const ember_tensor *u = c->in[EM_FC_U], *skip = c->in[EM_FC_SKIP];
    EM_TRY(em_check_f32(c, u, "u", 0));
    if (u->ndim != 2 || u->dim[1] % a->head_dim)
        return em_fail(EMBER_E_SHAPE,
                       "fft_conv: u has to be [T, D], D a multiple of head_dim %zu, "
                       "not %s",
                       a->head_dim, em_shape_text(u, text, sizeof text));
    EM_TRY(check_kernel(c, EM_FC_K, "k"));
    if (c->in[EM_FC_K_REV]) EM_TRY(check_kernel(c, EM_FC_K_REV, "k_rev"));
    if (c->in[EM_FC_K_REV] &&
        c->in[EM_FC_K_REV]->dim[!a->tap_rows] != c->in[EM_FC_K]->dim[!a->tap_rows])
        return em_fail(EMBER_E_SHAPE, "fft_conv: k and k_rev have to have as many lags");
    if (skip) EM_TRY(em_check_f32(c, skip, "skip", 0));
    if (skip && (skip->ndim != 1 || skip->dim[0] != u->dim[1] / a->head_dim))
        return em_fail(EMBER_E_SHAPE, "fft_conv: skip has to be [%zu], not %s",
                       u->dim[1] / a->head_dim, em_shape_text(skip, text, sizeof text));
    if (c->in[EM_FC_PRE]) EM_TRY(em_check_same(c, "u", u, "pre_gate", c->in[EM_FC_PRE]));
    if (c->in[EM_FC_POST]) EM_TRY(em_check_same(c, "u", u, "post_gate", c->in[EM_FC_POST]));
    if (a->head_dim > 1 && (!c->in[EM_FC_PRE] || !c->in[EM_FC_POST]))
        return em_fail(EMBER_E_SHAPE, "fft_conv: head_dim %zu needs both gates", a->head_dim);
    return EMBER_OK;
}

// Kernels that are parameters have spectra worth keeping: of sequences that share a batch evenly.
static ember_status keep_spectra(struct em_call *c, const struct em_fft_conv *f)
{
    const struct em_program_options *o = em_flow_options(em_program_flow(c->program));
    const ember_tensor *rev = c->in[EM_FC_K_REV];
    if (em_is_training(c) || em_is_reference(c) || f->d > 1 || f->attr.exact ||
        c->in[EM_FC_K]->info || (rev && rev->info))
        return EMBER_OK;
    const size_t T = o->max_tokens / (o->max_sequences ? o->max_sequences : 1);
    const struct em_fft_conv_plan p = em_fft_conv_plan_of(f, 0, T ? T : 1);
    const size_t each = em_fft_floats(p.N), groups = (f->D + EM_FC_LANES - 1) / EM_FC_LANES;
    if (T < EM_FC_DIRECT || groups > EM_FC_KEPT / sizeof(float) / each) return EMBER_OK;
    EM_TRY(em_out(c, 1, EMBER_F32, (size_t[]){groups, each}, 2));
    EM_TRY(em_out(c, 2, EMBER_I32, &(size_t){EM_FC_MARKS}, 1));
    em_lasting(c->out[1]);
    em_lasting(c->out[2]);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    EM_TRY(check_inputs(c));
    const struct em_fft_conv f = em_fft_conv_of(c);
    const size_t T = c->in[EM_FC_U]->dim[0];
    size_t bytes = 0;
    EM_TRY(em_fft_conv_cpu_scratch(c, T, &bytes));
    em_need_scratch(c, bytes);
    EM_TRY(em_out_rows(c, 0, EMBER_F32, c->in[EM_FC_U], 1, &f.D, 1));
    EM_TRY(keep_spectra(c, &f));
    if (!f.attr.gelu && !c->in[EM_FC_POST]) return EMBER_OK;
    return em_saved_rows(c, 0, EMBER_F32, c->in[EM_FC_U], 1, (size_t[]){f.d, f.D}, 2);
}

static double levels_of(double n)
{
    double levels = 1;
    for (; n > 1; n /= 2)
        levels++;
    return levels;
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    const double n = em_elements(c->out[0]) * (double)f.d,
                 T = (double)(c->out[0]->dim[0] < f.taps ? c->out[0]->dim[0] : f.taps);
    // A transform of N numbers takes 4 N log2 N, for as many values of a signal.
    const double transform = 4 * levels_of(T);
    *forward = (struct em_cost){n * (2 * transform + 10), 4 * 4 * n};
    *backward = (struct em_cost){n * (3 * transform + 24), 4 * 8 * n};
}

const struct em_op em_op_fft_conv = {
    .name = "fft_conv",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_fft_conv_cpu_forward, em_fft_conv_cpu_backward),
                [EM_REFERENCE] =
                    EM_PASSES(em_fft_conv_reference_forward, em_fft_conv_reference_backward)},
    .backward_reads = EM_READS_IN(EM_FC_U) | EM_READS_IN(EM_FC_K) | EM_READS_IN(EM_FC_K_REV) |
                      EM_READS_IN(EM_FC_SKIP) | EM_READS_IN(EM_FC_PRE) | EM_READS_IN(EM_FC_POST),
    .flags = EM_OP_SETS_FRESH,
};

static ember_status need_state(ember_flow *flow, struct em_call *c)
{
    const struct em_fft_conv f = em_fft_conv_of(c);
    const size_t block = em_fft_conv_block(f.taps);
    em_attr(c, struct em_fft_conv_attr)->block = block;
    if (!f.causal || f.taps < 2) return EMBER_OK;
    return em_need_state(flow, c,
                         &(struct em_state_spec){.name = "fft_conv",
                                                 .per_token = em_fft_conv_row(&f),
                                                 .window = block + 1});
}

ember_status ember_fft_conv(ember_flow *flow, const ember_fft_conv_options *options,
                            ember_tensor *u, ember_tensor *k, ember_tensor *skip,
                            ember_tensor *pre_gate, ember_tensor *post_gate, ember_tensor **y)
{
    static const ember_fft_conv_options none;
    const ember_fft_conv_options *o = options ? options : &none;
    EM_TRY(em_check_token_rows(flow, "fft_conv", u));
    if (!(o->dropout >= 0 && o->dropout < 1))
        return em_fail(EMBER_E_RANGE, "fft_conv: dropout has to be at least 0 and below 1, not %g",
                       (double)o->dropout);
    if (o->exact && (o->k_rev || o->circular))
        return em_fail(EMBER_E_RANGE, "fft_conv: only a causal convolution can be exact");
    if (o->k_rev && o->circular)
        return em_fail(EMBER_E_RANGE, "fft_conv: a circular convolution has no k_rev");
    struct em_call *c = em_call_new(flow, &em_op_fft_conv, EM_FC_INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[EM_FC_U] = u;
    c->in[EM_FC_K] = k;
    c->in[EM_FC_K_REV] = o->k_rev;
    c->in[EM_FC_SKIP] = skip;
    c->in[EM_FC_PRE] = pre_gate;
    c->in[EM_FC_POST] = post_gate;
    *em_attr(c, struct em_fft_conv_attr) =
        (struct em_fft_conv_attr){.head_dim = o->head_dim ? o->head_dim : 1,
                                  .taps = o->taps,
                                  .period = o->period,
                                  .tap_rows = o->tap_rows,
                                  .circular = o->circular,
                                  .gelu = o->gelu,
                                  .exact = o->exact,
                                  .dropout = o->dropout};
    EM_TRY(check_inputs(c));
    EM_TRY(need_state(flow, c));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
