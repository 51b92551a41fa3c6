// Mean squares: loss [1] = loss_scale * the sum over rows of mean(x_row^2); dx = loss_scale * 2 x /
// width. With a loss_scale of 1 / rows, the mean over all elements.
#include "kernels/kernels.h"
#include "ops/rows.h"

// Rows whose squares make one partial sum. The sum is over blocks in their order, so it does not
// depend on who added which.
enum { BLOCK = 16 };

static ember_status shape(struct em_call *c)
{
    size_t bytes = 0;
    EM_TRY(em_check_f32(c, c->in[0], "x", 0));
    const struct em_strip x = em_strip_of(c->in[0]);
    EM_TRY(em_add_scratch(c, x.count / BLOCK + 1, sizeof(double) / sizeof(float), &bytes));
    em_need_scratch(c, bytes);
    return em_out(c, 0, EMBER_F32, (size_t[]){1}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[0]);
    *forward = (struct em_cost){2 * n, 4 * n};
    *backward = (struct em_cost){2 * n, 12 * n};
}

struct sums {
    const struct em_call *call;
    double *partial;
};

static void sum_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct sums *s = arg;
    const struct em_strip x = em_strip_of(s->call->in[0]);
    for (size_t b = begin; b < end; b++) {
        double sum = 0;
        for (size_t r = b * BLOCK; r < (b + 1) * BLOCK && r < x.count; r++)
            sum += em_kernels()->sum_squares_f32(em_strip_row(&x, r), x.width);
        s->partial[b] = sum;
    }
}

// The loss is this times the sum of all squares.
static double factor_of(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    return x.width ? c->exec->loss_scale / (double)x.width : 0;
}

static double gradient_factor(const struct em_call *c)
{
    return 2 * (double)em_f32(c->out[0]->grad)[0] * factor_of(c);
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    const size_t blocks = (x.count + BLOCK - 1) / BLOCK;
    double total = 0;
    if (blocks && x.width) {
        struct sums s = {c, em_scratch_take(em_scratch_of(c), blocks * sizeof(double))};
        em_parallel(c->exec->pool, blocks, em_row_grain(BLOCK * x.width), sum_blocks, &s);
        for (size_t b = 0; b < blocks; b++)
            total += s.partial[b];
    }
    em_f32(c->out[0])[0] = (float)(total * factor_of(c));
}

static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip x = em_strip_of(c->in[0]), dx = em_strip_of(c->in[0]->grad);
    const float factor = (float)gradient_factor(c);
    const bool set = em_fresh(c, 0);
    for (size_t r = begin; r < end; r++) {
        if (set)
            em_kernels()->scale_f32(em_strip_row(&dx, r), em_strip_row(&x, r), factor, x.width);
        else
            em_kernels()->axpy_f32(em_strip_row(&dx, r), factor, em_strip_row(&x, r), x.width);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    if (em_wants(c, 0)) em_over_rows(c, x.count, x.width, backward_rows);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[0]);
    double sum = 0;
    for (size_t r = 0; r < x.count; r++)
        for (size_t j = 0; j < x.width; j++)
            sum += (double)em_strip_row(&x, r)[j] * (double)em_strip_row(&x, r)[j];
    em_f32(c->out[0])[0] = (float)(sum * factor_of(c));
}

static void reference_backward(const struct em_call *c)
{
    if (!em_wants(c, 0)) return;
    const struct em_strip x = em_strip_of(c->in[0]), dx = em_strip_of(c->in[0]->grad);
    const double factor = gradient_factor(c);
    em_zero_fresh(c, 0);
    for (size_t r = 0; r < x.count; r++)
        for (size_t j = 0; j < x.width; j++)
            em_strip_row(&dx, r)[j] += (float)(factor * (double)em_strip_row(&x, r)[j]);
}

const struct em_op em_op_mean_square = {
    .name = "mean_square",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(0),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_mean_square(ember_flow *flow, ember_tensor *x, ember_tensor **loss)
{
    struct em_call *c = em_call_new(flow, &em_op_mean_square, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    EM_TRY(em_record(flow, c));
    *loss = c->out[0];
    return EMBER_OK;
}
