// Rows of a group of channels, for both passes of the long convolution.
#ifndef EM_OPS_FFT_CONV_ROWS_H
#define EM_OPS_FFT_CONV_ROWS_H

#include "kernels/fft.h"
#include "ops/fft_conv.h"

// Rows that are gathered or filtered at once, beside what came out of the transforms.
enum { EM_FC_STRETCH = 256 };

static inline size_t em_fft_conv_tokens(const struct em_call *c, size_t s)
{
    return c->exec->batch->offset[s + 1] - c->exec->batch->offset[s];
}

// The channel of u and post_gate that a lane's signal has.
static inline size_t em_fft_conv_partner(const struct em_fft_conv_group *g, size_t lane)
{
    return em_fft_conv_head(g, lane) * g->f->d + g->i;
}

// What goes in at tokens [start, start + count) of the batch. `own`: room for gathered rows.
struct em_fft_rows em_fft_conv_batch_rows(const struct em_fft_conv_group *g, size_t start,
                                          size_t count, float *own);
// The rows of post_gate that go with the group's, gathered where they have to be.
const float *em_fft_conv_post_rows(const struct em_fft_conv_group *g, size_t start, size_t count,
                                   float *own, size_t *stride);
// Dropout's mask and D of each lane; 0 for idle ones.
void em_fft_conv_lane_values(const struct em_fft_conv_group *g, size_t s, float *mask, float *skip);

struct em_fft_conv_segment {
    size_t H, A, F; // inputs before the outputs, outputs, inputs after them
    size_t input;   // the first input
};

// Segment with outputs from token t on.
struct em_fft_conv_segment em_fft_conv_segment_at(const struct em_fft_conv_plan *p, size_t t);
// Inputs [begin, end), counted from the first one that the plan has, as values 0 .. of `work`.
void em_fft_conv_read(const struct em_fft_conv_group *g, size_t s, const struct em_fft_conv_plan *p,
                      size_t begin, size_t end, float *work);

// Runs a task for every group of channels: units of whole heads side by side; or, where they are
// fewer than threads, one after the other, each with all of them.
typedef void em_fft_conv_task(const struct em_fft_conv_group *g);
void em_fft_conv_each_group(const struct em_call *c, em_fft_conv_task *task, bool forward);

#endif
