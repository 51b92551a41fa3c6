// How alike experts are: cosines and CKA of matrices whose likeness is known.
#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "report/similarity.h"
#include "support/check.h"

enum { ROWS = 96, COLUMNS = 48, SETS = 5 };

static float *noise(uint64_t seed)
{
    float *y = em_calloc((size_t)ROWS * COLUMNS, sizeof *y);
    struct em_rng rng;
    assert_non_null(y);
    em_rng_seed(&rng, seed, 0);
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        y[i] = (float)em_rng_below(&rng, 20001) / 10000 - 1;
    return y;
}

static void cosines_of_vectors_by_hand(void **state)
{
    (void)state;
    // In two parts, as the parameters of an expert are.
    const float first[4][2] = {{3, 0}, {0, 2}, {-6, 0}, {0, 0}},
                second[4][1] = {{4}, {0}, {-8}, {0}};
    const float *a[4], *b[4];
    double p[16] = {0};
    for (size_t e = 0; e < 4; e++) {
        a[e] = first[e];
        b[e] = second[e];
    }
    em_add_products(a, 4, 2, p, NULL);
    em_add_products(b, 4, 1, p, NULL);
    CHECK_NEAR(p[0], 25, 0, "squared norm");
    em_cosines(p, 4);
    CHECK_NEAR(p[0 * 4 + 0], 1, 0, "itself");
    CHECK_NEAR(p[0 * 4 + 1], 0, 0, "orthogonal");
    CHECK_NEAR(p[0 * 4 + 2], -1, 1e-15, "opposite");
    CHECK_NEAR(p[2 * 4 + 0], -1, 1e-15, "opposite, mirrored");
    assert_true(isnan(p[0 * 4 + 3]) && isnan(p[3 * 4 + 3])); // no direction
}

// The same up to a rotation, a scale and a shift is 1; unrelated is 0 within sampling error, also
// with half as many columns as rows, where the plain figure is far above; a mix is between.
static void cka_knows_the_same_and_the_unrelated(void **state)
{
    (void)state;
    float *own[SETS];
    const float *y[SETS];
    double cka[SETS * SETS];
    for (size_t s = 0; s < SETS; s++)
        y[s] = own[s] = noise(s == 4 ? 2 : s); // 4 begins as 2
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLUMNS; c++) {
            // 1: set 0 with columns turned by pairs, scaled and shifted.
            const float *x = own[0] + r * COLUMNS;
            const float turned =
                c % 2 ? 0.6f * x[c] + 0.8f * x[c - 1] : 0.6f * x[c] - 0.8f * x[c + 1];
            own[1][r * COLUMNS + c] = 7 * turned + 3;
            // 4: half of it is set 0's.
            own[4][r * COLUMNS + c] += x[c];
        }
    CHECK_OK(em_linear_cka(y, SETS, ROWS, COLUMNS, cka, NULL));
    for (size_t s = 0; s < SETS; s++)
        CHECK_NEAR(cka[s * SETS + s], 1, 1e-12, "set %zu with itself", s);
    CHECK_NEAR(cka[0 * SETS + 1], 1, 1e-4, "turned, scaled and shifted");
    CHECK_NEAR(cka[0 * SETS + 2], 0, 0.06, "unrelated");
    CHECK_NEAR(cka[2 * SETS + 3], 0, 0.06, "unrelated");
    CHECK_NEAR(cka[0 * SETS + 4], 0.5, 0.12, "half of each");
    CHECK_NEAR(cka[4 * SETS + 0], cka[0 * SETS + 4], 0, "both ways");
    CHECK_FAILS(em_linear_cka(y, SETS, 3, COLUMNS, cka, NULL), EMBER_E_RANGE, "4 rows");
    // What never varies is like nothing.
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        own[3][i] = 0;
    CHECK_OK(em_linear_cka(y, SETS, ROWS, COLUMNS, cka, NULL));
    assert_true(isnan(cka[0 * SETS + 3]) && isnan(cka[3 * SETS + 3]));
    for (size_t s = 0; s < SETS; s++)
        em_free(own[s]);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    struct em_pool *pool;
    float *own[SETS];
    const float *y[SETS];
    double one[SETS * SETS], three[SETS * SETS];
    for (size_t s = 0; s < SETS; s++)
        y[s] = own[s] = noise(10 + s);
    CHECK_OK(em_pool_create(3, &pool));
    CHECK_OK(em_linear_cka(y, SETS, ROWS, COLUMNS, one, NULL));
    CHECK_OK(em_linear_cka(y, SETS, ROWS, COLUMNS, three, pool));
    assert_memory_equal(one, three, sizeof one);
    em_pool_destroy(pool);
    for (size_t s = 0; s < SETS; s++)
        em_free(own[s]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cosines_of_vectors_by_hand),
                                       cmocka_unit_test(cka_knows_the_same_and_the_unrelated),
                                       cmocka_unit_test(threads_change_no_bit)};
    return cmocka_run_group_tests_name("report/similarity", tests, NULL, NULL);
}
