// What the parts of the long convolution share: ops/fft_conv.c records it, fft_conv_cpu.c and
// fft_conv_backward.c run it by transforms, fft_conv_stream.c continues states,
// fft_conv_reference.c is the plain sum.
#ifndef EM_OPS_FFT_CONV_H
#define EM_OPS_FFT_CONV_H

#include "kernels/kernels.h"
#include "ops/rows.h"

enum { EM_FC_U, EM_FC_K, EM_FC_K_REV, EM_FC_SKIP, EM_FC_PRE, EM_FC_POST, EM_FC_INPUTS };
enum { EM_FC_LANES = EM_FFT_LANES };
// Blocks of the online convolution up to this one are summed directly.
enum { EM_FC_DIRECT = 16 };
// Larger blocks meet in parts of this size, so that decoding takes little scratch.
enum { EM_FC_LARGEST = 65536 };

struct em_fft_conv_attr {
    size_t head_dim, taps, period;
    size_t block; // of states: fixed when it is recorded, though a batch may bring fewer lags
    bool tap_rows, circular, gelu, exact;
    float dropout;
};

// One call, read once. A signal is the product of a channel of u and one of pre_gate: channel c has
// head_dim of them, i = 0.., with channel head * head_dim + i of u and post_gate. With head_dim 1,
// signal and channel are the same.
struct em_fft_conv {
    const struct em_call *call;
    struct em_fft_conv_attr attr;
    size_t D, d;       // channels; head_dim
    size_t taps, late; // lags that the kernels have: 0 .. taps - 1, and 0 .. late - 1 of k_rev
    bool causal;
};
struct em_fft_conv em_fft_conv_of(const struct em_call *c);

// Lag j of head h; `rev`: of k_rev. And its gradient's place.
static inline size_t em_fft_conv_tap(const struct em_fft_conv *f, const ember_tensor *k, size_t h,
                                     size_t j)
{
    return f->attr.tap_rows ? j * k->stride[0] + h : h * k->dim[1] + j;
}

// What dropout leaves of a channel of sequence s: 0 or 1 / (1 - p); 1 outside training.
float em_fft_conv_mask(const struct em_fft_conv *f, size_t s, size_t channel);

// ---- states ----
// A token's row is what went in (v; with head_dim > 1 u, then pre_gate), then what is pending: sums
// for tokens to come, [head_dim][D]. Inputs go round in `block` rows; see ops/fft_conv_stream.c.

static inline size_t em_fft_conv_block(size_t taps)
{
    size_t block = 1;
    while (block + 1 < taps)
        block *= 2;
    return block;
}
static inline size_t em_fft_conv_inputs(const struct em_fft_conv *f)
{
    return f->d > 1 ? 2 * f->D : f->D;
}
static inline size_t em_fft_conv_row(const struct em_fft_conv *f)
{
    return em_fft_conv_inputs(f) + f->d * f->D;
}
// Tokens that sequence s has seen before this batch; 0 without a state.
static inline size_t em_fft_conv_seen(const struct em_fft_conv *f, size_t s)
{
    const struct em_exec *x = f->call->exec;
    return f->call->slot >= 0 && em_slot_in(f->call, s) ? (size_t)x->position[x->batch->offset[s]]
                                                        : 0;
}
// The largest block that ends at token `at` and meets the tokens after it.
static inline size_t em_fft_conv_meets(size_t at, size_t block)
{
    const size_t low = at & (~at + 1);
    return low && low < block ? low : block;
}
// After `seen` tokens there is something pending for tokens up to `end`, that of token q in row
// q - base of the state.
struct em_fft_conv_pending {
    size_t base, end;
};
static inline struct em_fft_conv_pending em_fft_conv_pending(size_t seen, size_t block)
{
    if (!seen) return (struct em_fft_conv_pending){0, 0};
    if (seen >= block)
        return (struct em_fft_conv_pending){seen / block * block, seen / block * block + block};
    size_t top = 1;
    while (2 * top <= seen)
        top *= 2;
    return (struct em_fft_conv_pending){top, 2 * top};
}

// ---- cpu ----

// Of each thread. All have room for the largest segment (em_fft_conv_plan).
struct em_fft_conv_scratch {
    float *work, *other, *spectrum, *gradient; // workspaces of N numbers
    float *signal;                             // rows of one segment
    float *rows, *more;                        // [T + history][EM_FC_LANES]
    float *taps;                               // [2 EM_FC_DIRECT][EM_FC_LANES]: the first lags
};

// How one sequence is cut into segments.
struct em_fft_conv_plan { // sizes alone: plans are compared by their bytes
    size_t N;             // numbers of a transform: 2 N values
    size_t A;             // outputs of a segment
    size_t past, T;       // inputs before the outputs, outputs
    size_t before, late;  // lags of k, of k_rev that matter
};
// Spectra that last while weights do, in programs without gradients and within EM_FC_KEPT bytes:
// out[1] has them, a workspace each 16 channels, out[2] says of which plan and weights.
enum { EM_FC_KEPT = 256 << 20, EM_FC_MARKS = 2 + 6 };
struct em_fft_conv_kept {
    struct em_fft_conv_plan plan;
    float *spectra;
    size_t each; // floats
    bool fill;   // they are not there yet
};

// `lanes` neighbouring channels from `channel` on, with signal i of each.
struct em_fft_conv_group {
    const struct em_fft_conv *f;
    struct em_fft_conv_scratch *scratch;
    size_t channel, lanes, i;
    const struct em_fft_conv_kept *kept; // NULL: nothing is kept
};

static inline size_t em_fft_conv_head(const struct em_fft_conv_group *g, size_t lane)
{
    return (g->channel + lane) / g->f->d;
}

struct em_fft_conv_plan em_fft_conv_plan_of(const struct em_fft_conv *f, size_t past, size_t T);
// At least the N of every plan of up to T tokens.
size_t em_fft_conv_most_numbers(const struct em_fft_conv *f, size_t T);
// The plan's kernel into `spectrum`, transformed and over N.
void em_fft_conv_plan_spectrum(const struct em_fft_conv_group *g, const struct em_fft_conv_plan *p,
                               float *spectrum);
void em_fft_conv_clear(float *work, size_t N);
// The kernels' gradients, from that of their spectrum.
void em_fft_conv_spectrum_gradient(const struct em_fft_conv_group *g,
                                   const struct em_fft_conv_plan *p, float *gradient);

// One transform's steps, shared out to threads unless the caller is one of them already.
enum em_fft_conv_step { EM_FC_ENTER, EM_FC_PARTS, EM_FC_LEAVE };
struct em_fft_conv_transform {
    const struct em_call *call;
    size_t N;
    struct em_fft_parts parts;
    // ENTER: rows, or gradients, or none of them: the values are in parts.x already. LEAVE: finish,
    // or gradients, or none of them.
    const struct em_fft_rows *rows;
    const struct em_fft_finish *finish;
    const struct em_fft_gradient *gradient;
    float
        *dskip; // [EM_FC_PIECES][EM_FC_LANES]: of each piece of gradient's LEAVE; NULL: not wanted
};
enum { EM_FC_PIECES = 64 };
void em_fft_conv_run(const struct em_fft_conv_transform *t, enum em_fft_conv_step step);
// A sequence that is one segment with room for it, channel by channel: its transforms read u and
// the gates, and write y.
bool em_fft_conv_fused(const struct em_fft_conv *f, const struct em_fft_conv_plan *p);

// Inputs of the group, tokens [begin, end) of the whole sequence, of which `seen` were before this
// batch: into [end - begin][EM_FC_LANES].
void em_fft_conv_signal(const struct em_fft_conv_group *g, size_t s, size_t seen, size_t begin,
                        size_t end, float *rows);
// The spectrum of lags [first, first + count), count <= 2 N, into scratch->spectrum, over N.
void em_fft_conv_spectrum(const struct em_fft_conv_group *g, size_t N, size_t first, size_t count);

// The group's convolution of sequence s, which has a state behind it, is asked for one, or is to be
// exact: rows [T][EM_FC_LANES].
void em_fft_conv_stream(const struct em_fft_conv_group *g, size_t s, float *rows);
// Then, after all signals that need what the states have: the inputs of the group's channels into
// the states' rows.
void em_fft_conv_keep(const struct em_fft_conv_group *g);
// Of the whole sequence without any.
void em_fft_conv_whole(const struct em_fft_conv_group *g, size_t s, float *rows);

void em_fft_conv_cpu_forward(const struct em_call *c);
void em_fft_conv_cpu_backward(const struct em_call *c);
// Bytes of scratch for T tokens.
ember_status em_fft_conv_cpu_scratch(const struct em_call *c, size_t T,
                                     size_t *bytes) EMBER_CHECKED;

void em_fft_conv_reference_forward(const struct em_call *c);
void em_fft_conv_reference_backward(const struct em_call *c);

#endif
