#include "report/similarity.h"

#include <math.h>

#include "base/alloc.h"

// Four sums, so that one addition does not wait for the other.
static double product(const float *a, const float *b, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++)
            sum[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++)
        sum[0] += (double)a[i] * (double)b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

struct products {
    const float *const *v;
    size_t E, n;
    double *out;
};

static void product_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct products *p = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        for (size_t j = i; j < p->E; j++)
            p->out[i * p->E + j] += product(p->v[i], p->v[j], p->n);
}

static void mirror(double *square, size_t E)
{
    for (size_t i = 0; i < E; i++)
        for (size_t j = 0; j < i; j++)
            square[i * E + j] = square[j * E + i];
}

void em_add_products(const float *const *v, size_t E, size_t n, double *products,
                     struct em_pool *pool)
{
    struct products p = {v, E, n, products};
    em_parallel(pool, E, 1, product_rows, &p);
    mirror(products, E);
}

void em_cosines(double *products, size_t E)
{
    for (size_t i = 0; i < E; i++)
        for (size_t j = 0; j < i; j++) {
            const double norm = sqrt(products[i * E + i]) * sqrt(products[j * E + j]);
            const double cosine =
                norm > 0 ? fmin(fmax(products[i * E + j] / norm, -1), 1) : (double)NAN;
            products[i * E + j] = products[j * E + i] = cosine;
        }
    for (size_t i = 0; i < E; i++)
        products[i * E + i] = products[i * E + i] > 0 ? 1 : (double)NAN;
}

// The products of each expert's rows, [E][rows][rows] without the diagonal, and the sums over
// them.
struct grams {
    const float *const *y;
    size_t E, rows, columns;
    double *gram, *sum, *total; // sum [E][rows], total [E]
    double *hsic;               // [E][E]
};

static void gram_of_experts(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct grams *g = arg;
    const size_t n = g->rows;
    (void)thread;
    for (size_t e = begin; e < end; e++) {
        double *gram = g->gram + e * n * n, *sum = g->sum + e * n;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < i; j++) {
                const double v =
                    product(g->y[e] + i * g->columns, g->y[e] + j * g->columns, g->columns);
                gram[i * n + j] = gram[j * n + i] = v;
                sum[i] += v;
                sum[j] += v;
            }
        for (size_t i = 0; i < n; i++)
            g->total[e] += sum[i];
    }
}

// The unbiased estimate of the Hilbert-Schmidt independence criterion, times rows (rows - 3):
//     tr(K L) + (1'K1)(1'L1) / ((n - 1)(n - 2)) - 2 1'K L1 / (n - 2).
// Song et al. 2012, "Feature Selection via Dependence Maximization", eq. 4.
static void independence(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct grams *g = arg;
    const size_t n = g->rows;
    const double rows = (double)n;
    (void)thread;
    for (size_t a = begin; a < end; a++)
        for (size_t b = a; b < g->E; b++) {
            const double *K = g->gram + a * n * n, *L = g->gram + b * n * n;
            double trace = 0, sums = 0;
            for (size_t i = 0; i < n * n; i++)
                trace += K[i] * L[i];
            for (size_t i = 0; i < n; i++)
                sums += g->sum[a * n + i] * g->sum[b * n + i];
            g->hsic[a * g->E + b] = trace + g->total[a] * g->total[b] / ((rows - 1) * (rows - 2)) -
                                    2 * sums / (rows - 2);
        }
}

ember_status em_linear_cka(const float *const *y, size_t E, size_t rows, size_t columns,
                           double *cka, struct em_pool *pool)
{
    struct grams g = {.y = y, .E = E, .rows = rows, .columns = columns, .hsic = cka};
    size_t cells;
    if (rows < EM_CKA_ROWS)
        return em_fail(EMBER_E_RANGE, "CKA needs %d rows, not %zu", EM_CKA_ROWS, rows);
    if (!em_mul_size(rows, rows, &cells) || !em_mul_size(cells, E, &cells))
        return em_fail(EMBER_E_NOMEM, "CKA of %zu experts over %zu rows", E, rows);
    g.gram = em_calloc(cells ? cells : 1, sizeof *g.gram);
    g.sum = em_calloc(E * rows + 1, sizeof *g.sum);
    g.total = em_calloc(E + 1, sizeof *g.total);
    ember_status status = EMBER_E_NOMEM;
    if (g.gram && g.sum && g.total) {
        em_parallel(pool, E, 1, gram_of_experts, &g);
        em_parallel(pool, E, 1, independence, &g);
        mirror(cka, E);
        em_cosines(cka, E); // CKA is the cosine of what HSIC is the inner product of
        status = EMBER_OK;
    }
    em_free(g.gram);
    em_free(g.sum);
    em_free(g.total);
    return status;
}
