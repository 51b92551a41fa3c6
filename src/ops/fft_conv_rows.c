// The rows that a group of channels of the long convolution reads, and how its sequences are cut
// up.
#include "ops/fft_conv_rows.h"

#include "base/sizes.h"

// Partners' columns of an input's rows, one beside the other.
static void gather(const struct em_fft_conv_group *g, const ember_tensor *x, size_t start,
                   size_t count, float *rows)
{
    for (size_t t = 0; t < count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            rows[t * EM_FC_LANES + lane] = em_row(x, start + t)[em_fft_conv_partner(g, lane)];
}

// What goes in at tokens [start, start + count) of the batch. `own`: room for gathered rows.
struct em_fft_rows em_fft_conv_batch_rows(const struct em_fft_conv_group *g, size_t start,
                                          size_t count, float *own)
{
    const ember_tensor *u = g->f->call->in[EM_FC_U], *pre = g->f->call->in[EM_FC_PRE];
    struct em_fft_rows r = {.count = count, .lanes = g->lanes};
    if (g->f->d > 1) {
        gather(g, u, start, count, own);
        r.x = own, r.stride = EM_FC_LANES;
    } else {
        r.x = em_row(u, start) + g->channel, r.stride = u->stride[0];
    }
    if (pre) r.gate = em_row(pre, start) + g->channel, r.gate_stride = pre->stride[0];
    return r;
}

void em_fft_conv_signal(const struct em_fft_conv_group *g, size_t s, size_t seen, size_t begin,
                        size_t end, float *rows)
{
    const struct em_fft_conv *f = g->f;
    const size_t start = f->call->exec->batch->offset[s], block = f->attr.block;
    const struct em_slot *in = seen ? em_slot_in(f->call, s) : NULL;
    for (; begin < end && begin < seen; begin++, rows += EM_FC_LANES) {
        const float *row = in->tokens + begin % block * em_fft_conv_row(f);
        for (size_t lane = 0; lane < g->lanes; lane++) {
            const size_t c = g->channel + lane;
            rows[lane] = f->d > 1 ? row[em_fft_conv_partner(g, lane)] * row[f->D + c] : row[c];
        }
    }
    if (begin == end) return;
    const struct em_fft_rows r = em_fft_conv_batch_rows(g, start + begin - seen, end - begin, rows);
    for (size_t t = 0; t < r.count; t++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            rows[t * EM_FC_LANES + lane] =
                r.x[t * r.stride + lane] * (r.gate ? r.gate[t * r.gate_stride + lane] : 1);
}

// Inputs [begin, end), counted from the first one that the plan has, as values 0 .. of `work`.
void em_fft_conv_read(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                      size_t begin, size_t end, float *work)
{
    const size_t start = g->f->call->exec->batch->offset[s];
    if (!p->past) {
        const struct em_fft_rows r =
            em_fft_conv_batch_rows(g, start + begin, end - begin, g->scratch->signal);
        em_kernels()->fft_read_f32(work, p->N, 0, &r);
        return;
    }
    const size_t seen = em_fft_conv_seen(g->f, s), first = seen - p->past;
    em_fft_conv_signal(g, s, seen, first + begin, first + end, g->scratch->signal);
    em_kernels()->fft_read_f32(work, p->N, 0,
                               &(struct em_fft_rows){.x = g->scratch->signal,
                                                     .stride = EM_FC_LANES,
                                                     .count = end - begin,
                                                     .lanes = g->lanes});
}

// ---- segments ----

// Segment with outputs from token t on.
struct em_fft_conv_segment em_fft_conv_segment_at(const struct em_fft_conv_plan *p, size_t t)
{
    struct em_fft_conv_segment s = {.A = em_min_size(p->A, p->T - t)};
    s.H = em_min_size(p->past + t, p->before - 1);
    s.F = p->late ? em_min_size(p->T - t - s.A, p->late - 1) : 0;
    if (p->A == p->T) s.H = p->past;
    s.input = p->past + t - s.H;
    return s;
}

void em_fft_conv_lane_values(const struct em_fft_conv_group *g, size_t s, float *mask, float *skip)
{
    const ember_tensor *t = g->f->call->in[EM_FC_SKIP];
    for (size_t lane = 0; lane < EM_FC_LANES; lane++) {
        const bool there = lane < g->lanes;
        mask[lane] = there ? em_fft_conv_mask(g->f, s, g->channel + lane) : 0;
        skip[lane] = there && t ? em_f32(t)[em_fft_conv_head(g, lane)] : 0;
    }
}

// The rows of post_gate that go with the group's, gathered where they have to be.
const float *em_fft_conv_post_rows(const struct em_fft_conv_group *g, size_t start, size_t count,
                                   float *own, size_t *stride)
{
    const ember_tensor *post = g->f->call->in[EM_FC_POST];
    if (!post) return NULL;
    if (g->f->d == 1) {
        *stride = post->stride[0];
        return em_row(post, start) + g->channel;
    }
    gather(g, post, start, count, own);
    *stride = EM_FC_LANES;
    return own;
}
