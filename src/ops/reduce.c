// Sums over rows. Threads share columns, never a sum.
#include "kernels/kernels.h"
#include "ops/rows.h"

// Columns of one piece of work; and the rows whose sum is made by itself, so that the error grows
// with the number of blocks and not of rows.
enum { COLUMNS = 128, ROWS = 64 };

struct job {
    const struct em_strip *rows;
    float *sum;
};

static void sum_columns(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct job *job = arg;
    const struct em_strip *s = job->rows;
    for (size_t b = begin; b < end; b++) {
        const size_t first = b * COLUMNS,
                     n = s->width - first < COLUMNS ? s->width - first : COLUMNS;
        float total[COLUMNS] = {0}, block[COLUMNS];
        for (size_t r = 0; r < s->count;) {
            memcpy(block, em_strip_row(s, r++) + first, n * sizeof *block);
            for (; r % ROWS && r < s->count; r++)
                em_kernels()->add_f32(block, block, em_strip_row(s, r) + first, n);
            em_kernels()->add_f32(total, total, block, n);
        }
        em_kernels()->add_f32(job->sum + first, job->sum + first, total, n);
    }
}

void em_add_column_sums(struct em_pool *pool, const struct em_strip *rows, float *sum)
{
    struct job job = {rows, sum};
    if (rows->count) em_parallel(pool, (rows->width + COLUMNS - 1) / COLUMNS, 1, sum_columns, &job);
}
