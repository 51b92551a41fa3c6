// A transform in steps that threads share where a call has fewer groups of channels than threads.
#include "ops/fft_conv.h"

// Columns of a piece: a function of N alone, as sums of pieces follow it.
static size_t columns_of_piece(size_t columns)
{
    const size_t each = columns / EM_FC_PIECES;
    return each < 64 ? 64 : each;
}

static void enter(const struct em_fft_conv_transform *t, size_t begin, size_t end)
{
    if (t->gradient)
        em_kernels()->fft_enter_gradient_f32(t->parts.x, t->N, t->gradient, begin, end);
    else if (t->rows)
        em_kernels()->fft_enter_f32(t->parts.x, t->N, t->rows, begin, end);
    else
        em_kernels()->fft_pass_f32(t->parts.x, t->N, true, begin, end);
}

static void leave(const struct em_fft_conv_transform *t, size_t piece, size_t begin, size_t end)
{
    if (t->gradient) {
        struct em_fft_gradient g = *t->gradient;
        if (t->dskip) g.dskip = t->dskip + piece * EM_FC_LANES;
        em_kernels()->fft_leave_gradient_f32(t->parts.x, t->N, &g, begin, end);
    } else if (t->finish) {
        em_kernels()->fft_leave_f32(t->parts.x, t->N, t->finish, begin, end);
    } else {
        em_kernels()->fft_pass_f32(t->parts.x, t->N, false, begin, end);
    }
}

static void enter_pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_fft_conv_transform *t = arg;
    const size_t columns = t->N / em_fft_parts(t->N), each = columns_of_piece(columns);
    for (size_t i = begin; i < end; i++)
        enter(t, i * each, (i + 1) * each < columns ? (i + 1) * each : columns);
}

static void leave_pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_fft_conv_transform *t = arg;
    const size_t columns = t->N / em_fft_parts(t->N), each = columns_of_piece(columns);
    for (size_t i = begin; i < end; i++)
        leave(t, i, i * each, (i + 1) * each < columns ? (i + 1) * each : columns);
}

static void run_parts(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_fft_conv_transform *t = arg;
    em_kernels()->fft_parts_f32(&t->parts, t->N, begin, end);
}

void em_fft_conv_run(const struct em_fft_conv_transform *t, enum em_fft_conv_step step)
{
    static em_task *const task[] = {enter_pieces, run_parts, leave_pieces};
    struct em_fft_conv_transform copy = *t;
    const size_t parts = em_fft_parts(t->N), columns = t->N / parts,
                 each = columns_of_piece(columns);
    em_parallel(t->call->exec->pool, step == EM_FC_PARTS ? parts : (columns + each - 1) / each, 1,
                task[step], &copy);
}
