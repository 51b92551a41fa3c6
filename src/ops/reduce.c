// Sums over rows. Threads share columns, never a sum.
#include "kernels/kernels.h"
#include "ops/rows.h"

// Columns of one piece of work; and the rows whose sum is made in f32, the sum of these being in
// double: the error does not grow with the number of rows.
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
        double total[COLUMNS] = {0};
        float block[COLUMNS];
        for (size_t r = 0; r < s->count;) {
            memcpy(block, em_strip_row(s, r++) + first, n * sizeof *block);
            for (; r % ROWS && r < s->count; r++)
                em_kernels()->add_f32(block, block, em_strip_row(s, r) + first, n);
            for (size_t j = 0; j < n; j++)
                total[j] += (double)block[j];
        }
        for (size_t j = 0; j < n; j++)
            job->sum[first + j] = (float)((double)job->sum[first + j] + total[j]);
    }
}

void em_add_column_sums(struct em_pool *pool, const struct em_strip *rows, float *sum)
{
    struct job job = {rows, sum};
    if (rows->count) em_parallel(pool, (rows->width + COLUMNS - 1) / COLUMNS, 1, sum_columns, &job);
}
