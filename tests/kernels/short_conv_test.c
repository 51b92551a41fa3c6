// Every table of this machine against loops in double; gradients against central differences of
// them.
#include "kernels/check.h"

struct problem {
    bool gated;
    size_t T, D, L, parts; // B, C, X, or X alone
    float *bcx, *taps, *bias, *history;
};

static struct problem new_problem(bool gated, size_t T, size_t D, size_t L, bool bias, bool history)
{
    const size_t parts = gated ? 3 : 1;
    return (struct problem){gated,
                            T,
                            D,
                            L,
                            parts,
                            new_row(T * parts * D, 1),
                            new_row(L * D, 2),
                            bias ? new_row(D, 3) : NULL,
                            history ? new_row((L - 1) * D, 4) : NULL};
}

static void free_problem(struct problem *p)
{
    free_row(p->bcx);
    free_row(p->taps);
    free_row(p->bias);
    free_row(p->history);
}

static struct em_short_conv as_kernel(const struct problem *p, size_t first)
{
    const float *row = p->bcx + first * p->parts * p->D;
    return (struct em_short_conv){.x = row + (p->parts - 1) * p->D,
                                  .b = p->gated ? row : NULL,
                                  .c = p->gated ? row + p->D : NULL,
                                  .stride = p->parts * p->D,
                                  .taps = p->taps,
                                  .bias = p->bias,
                                  .history = p->history,
                                  .D = p->D,
                                  .L = p->L};
}

// Where the gradients of a problem's rows go.
static void into(struct em_short_conv_gradient *g, const struct problem *p, float *rows)
{
    g->dx = rows ? rows + (p->parts - 1) * p->D : NULL;
    g->db = rows && p->gated ? rows : NULL;
    g->dc = rows && p->gated ? rows + p->D : NULL;
    g->dx_stride = p->parts * p->D;
}

static double gate(const struct problem *p, ptrdiff_t t, size_t c)
{
    if (t < 0)
        return p->history ? (double)p->history[((size_t)(t + (ptrdiff_t)p->L - 1)) * p->D + c] : 0;
    const float *row = p->bcx + (size_t)t * p->parts * p->D;
    return p->gated ? (double)row[c] * (double)row[2 * p->D + c] : (double)row[c];
}

static double reference(const struct problem *p, size_t t, size_t c)
{
    double v = p->bias ? (double)p->bias[c] : 0;
    for (size_t j = 0; j < p->L; j++)
        v += (double)p->taps[j * p->D + c] * gate(p, (ptrdiff_t)(t + j) - (ptrdiff_t)(p->L - 1), c);
    return p->gated ? v * (double)p->bcx[t * 3 * p->D + p->D + c] : v;
}

static void forward_matches_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t D = 1; D <= 67; D += D < 34 ? 1 : 11)
            for (size_t L = 1; L <= 11; L += L < 5 ? 1 : 3) // 1 .. 5, 8, 11
                for (unsigned with = 0; with < 8; with++) {
                    const size_t T = 9;
                    struct problem p = new_problem(with & 4, T, D, L, with & 1, with & 2);
                    const struct em_short_conv c = as_kernel(&p, 0);
                    float *y = new_row(T * (D + 2), 5), *y0 = copy_row(y, T * (D + 2));
                    k->short_conv_f32(&c, y, D + 2, 0, 3); // in two parts, with a wider stride
                    k->short_conv_f32(&c, y + 3 * (D + 2), D + 2, 3, T);
                    for (size_t t = 0; t < T; t++) {
                        for (size_t i = 0; i < D; i++)
                            CHECK_NEAR(y[t * (D + 2) + i], reference(&p, t, i), 2e-6,
                                       "%s D=%zu L=%zu t=%zu", k->isa, D, L, t);
                        assert_memory_equal(y + t * (D + 2) + D, y0 + t * (D + 2) + D, 8);
                    }
                    free_row(y);
                    free_row(y0);
                    free_problem(&p);
                }
}

// One token at a time with the history carried gives the same bits as all at once.
static void chunks_equal_the_whole(void **state)
{
    (void)state;
    const struct em_kernels *k;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t L = 1; L <= 9; L++)
            for (size_t step = 1; step <= 4; step++) {
                const size_t T = 11, D = 19;
                struct problem p = new_problem(step & 1, T, D, L, true, true);
                const struct em_short_conv whole = as_kernel(&p, 0);
                float *y = new_row(T * D, 5), *part = new_row(T * D, 6);
                k->short_conv_f32(&whole, y, D, 0, T);
                for (size_t t = 0; t < T; t += step) {
                    const size_t n = T - t < step ? T - t : step;
                    const struct em_short_conv c = as_kernel(&p, t);
                    k->short_conv_f32(&c, part + t * D, D, 0, n);
                    k->short_conv_history_f32(&c, p.history, n);
                }
                assert_memory_equal(y, part, T * D * sizeof *y);
                free_row(y);
                free_row(part);
                free_problem(&p);
            }
}

static double objective(const struct problem *p, const float *dy)
{
    double total = 0;
    for (size_t t = 0; t < p->T; t++)
        for (size_t c = 0; c < p->D; c++)
            total += (double)dy[t * p->D + c] * reference(p, t, c);
    return total;
}

// The objective is quadratic in each bcx value at most, linear in the rest: a difference over an
// exactly representable step has no error of its own.
static double difference(const struct problem *p, const float *dy, float *value)
{
    const float kept = *value;
    *value = kept + 0.25f;
    const double high = (double)*value, up = objective(p, dy);
    *value = kept - 0.25f;
    const double low = (double)*value, down = objective(p, dy);
    *value = kept;
    return (up - down) / (high - low);
}

static void backward_adds_differences(void **state)
{
    (void)state;
    const struct em_kernels *k;
    static const size_t sizes[] = {1, 3, 17, 21};
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t d = 0; d < sizeof sizes / sizeof *sizes; d++)
            for (size_t L = 1; L <= 10; L += L < 4 ? 1 : 3) // 1 .. 4, 7, 10
                for (unsigned with = 0; with < 8; with++) {
                    const size_t T = 6, D = sizes[d];
                    struct problem p = new_problem(with & 4, T, D, L, with & 1, with & 2);
                    const struct em_short_conv c = as_kernel(&p, 0);
                    const size_t wide = p.parts * D;
                    float *dy = new_row(T * D, 5), *dbcx = new_row(T * wide, 6);
                    float *dtaps = new_row(L * D, 7), *dbias = new_row(D, 8);
                    float *dbcx0 = copy_row(dbcx, T * wide), *dtaps0 = copy_row(dtaps, L * D);
                    float *dbias0 = copy_row(dbias, D);
                    struct em_short_conv_gradient g = {.dy = dy,
                                                       .dy_stride = D,
                                                       .T = T,
                                                       .dtaps = dtaps,
                                                       .dbias = p.bias ? dbias : NULL};
                    into(&g, &p, dbcx);
                    // in two parts, the first without the rows before it
                    struct em_short_conv_gradient late = g;
                    late.dy_first = 2;
                    late.dy = dy + 2 * D;
                    k->short_conv_backward_f32(&c, &late, 2, T);
                    k->short_conv_backward_f32(&c, &g, 0, 2);
                    for (size_t i = 0; i < T * wide; i++)
                        CHECK_NEAR(dbcx[i], (double)dbcx0[i] + difference(&p, dy, p.bcx + i), 3e-6,
                                   "%s D=%zu L=%zu i=%zu", k->isa, D, L, i);
                    for (size_t i = 0; i < L * D; i++)
                        CHECK_NEAR(dtaps[i], (double)dtaps0[i] + difference(&p, dy, p.taps + i),
                                   3e-6, "%s D=%zu L=%zu i=%zu", k->isa, D, L, i);
                    for (size_t i = 0; p.bias && i < D; i++)
                        CHECK_NEAR(dbias[i], (double)dbias0[i] + difference(&p, dy, p.bias + i),
                                   3e-6, "%s D=%zu L=%zu i=%zu", k->isa, D, L, i);
                    // Each gradient alone equals what it was beside the others.
                    float *alone = copy_row(dbcx0, T * wide), *taps = copy_row(dtaps0, L * D);
                    g.dtaps = g.dbias = NULL;
                    into(&g, &p, alone);
                    k->short_conv_backward_f32(&c, &g, 0, T);
                    into(&g, &p, NULL);
                    g.dtaps = taps;
                    k->short_conv_backward_f32(&c, &g, 0, T);
                    for (size_t i = 0; i < T * wide; i++)
                        CHECK_NEAR(alone[i], dbcx[i], 1e-6, "%s D=%zu L=%zu", k->isa, D, L);
                    for (size_t i = 0; i < L * D; i++)
                        CHECK_NEAR(taps[i], dtaps[i], 1e-6, "%s D=%zu L=%zu", k->isa, D, L);
                    // Set instead of added to, whatever was there.
                    float *fresh = new_row(T * wide, 9);
                    for (size_t i = 0; i < T * wide; i++)
                        fresh[i] = NAN;
                    g.dtaps = NULL;
                    into(&g, &p, fresh);
                    g.set = true;
                    k->short_conv_backward_f32(&c, &g, 0, T);
                    for (size_t i = 0; i < T * wide; i++)
                        CHECK_NEAR((double)dbcx0[i] + (double)fresh[i], alone[i], 1e-6,
                                   "%s D=%zu L=%zu", k->isa, D, L);
                    float *rows[] = {dy,     dbcx,   dtaps, dbias, dbcx0,
                                     dtaps0, dbias0, alone, taps,  fresh};
                    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                        free_row(rows[i]);
                    free_problem(&p);
                }
}

// More channels than one pass takes, against the reference.
static void wide_rows(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const size_t T = 5, D = 2100, L = 3;
    struct problem p = new_problem(true, T, D, L, true, true);
    const struct em_short_conv c = as_kernel(&p, 0);
    float *y = new_row(T * D, 5), *dy = new_row(T * D, 6), *dbcx = new_row(T * 3 * D, 7);
    float *dtaps = new_row(L * D, 8);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        k->short_conv_f32(&c, y, D, 0, T);
        for (size_t i = 0; i < T * D; i++)
            CHECK_NEAR(y[i], reference(&p, i / D, i % D), 2e-6, "%s %zu", k->isa, i);
        memset(dbcx, 0, T * 3 * D * sizeof *dbcx);
        memset(dtaps, 0, L * D * sizeof *dtaps);
        struct em_short_conv_gradient g = {.dy = dy, .dy_stride = D, .T = T, .dtaps = dtaps};
        into(&g, &p, dbcx);
        k->short_conv_backward_f32(&c, &g, 0, T);
        for (size_t i = 0; i < L * D; i++) {
            double want = 0;
            for (size_t t = 0; t < T; t++) {
                const ptrdiff_t at = (ptrdiff_t)(t + i / D) - (ptrdiff_t)(L - 1);
                want += (double)dy[t * D + i % D] * (double)p.bcx[t * 3 * D + D + i % D] *
                        gate(&p, at, i % D);
            }
            CHECK_NEAR(dtaps[i], want, 2e-6, "%s %zu", k->isa, i);
        }
        for (size_t t = 0; t < T; t++) // dC C = dy y
            for (size_t i = 0; i < D; i++)
                CHECK_NEAR(dbcx[t * 3 * D + D + i] * p.bcx[t * 3 * D + D + i],
                           (double)dy[t * D + i] * reference(&p, t, i), 2e-6, "%s %zu", k->isa, i);
    }
    float *rows[] = {y, dy, dbcx, dtaps};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        free_row(rows[i]);
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_reference),
        cmocka_unit_test(chunks_equal_the_whole),
        cmocka_unit_test(wide_rows),
        cmocka_unit_test(backward_adds_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
