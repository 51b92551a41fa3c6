// Every table of this machine against loops in double; gradients against central differences of
// them.
#include "kernels/check.h"

enum { N = 67 }; // past four vectors of 16 lanes

// sum_i dy_i y_i of the norm in double, x_j moved by h.
static double objective(bool layer, const float *dy, const float *x, const float *w, const float *b,
                        size_t n, double eps, size_t j, double h)
{
    double mean = 0, square = 0, total = 0;
    for (size_t i = 0; layer && i < n; i++)
        mean += ((double)x[i] + (i == j ? h : 0)) / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] + (i == j ? h : 0) - mean;
        square += d * d / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        const double z = ((double)x[i] + (i == j ? h : 0) - mean) / sqrt(square + eps);
        total += (double)dy[i] * (z * (double)w[i] + (b ? (double)b[i] : 0));
    }
    return total;
}

static void forward_matches_reference(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const float eps = 1e-3f;
    float x[N + 1], w[N + 1], b[N + 1], y[N + 2], mean;
    fill_random(w, N + 1, 2);
    fill_random(b, N + 1, 3);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n++)
            for (int kind = 0; kind < 3; kind++) { // rms, layer with and without bias
                fill_random(x, N + 1, n);
                const float *shift = kind == 1 ? b : NULL;
                for (size_t i = 0; kind && i < n; i++)
                    x[i] += 3.0f;
                float *out = y + 1;
                out[n] = 42;
                double mu = 0, square = 0;
                for (size_t i = 0; kind && i < n; i++)
                    mu += (double)x[i] / (double)n;
                for (size_t i = 0; i < n; i++)
                    square += ((double)x[i] - mu) * ((double)x[i] - mu) / (double)n;
                const double want = 1 / sqrt(square + (double)eps);
                const float rstd = kind ? k->layernorm_f32(out, x, w, shift, n, eps, &mean)
                                        : k->rmsnorm_f32(out, x, w, n, eps);
                CHECK_NEAR(rstd, want, 1e-5, "%s kind=%d n=%zu", k->isa, kind, n);
                if (kind) CHECK_NEAR(mean, mu, 1e-6, "%s n=%zu", k->isa, n);
                for (size_t i = 0; i < n; i++)
                    CHECK_NEAR(out[i],
                               ((double)x[i] - mu) * want * (double)w[i] +
                                   (shift ? (double)shift[i] : 0),
                               1e-5, "%s kind=%d n=%zu i=%zu", k->isa, kind, n, i);
                assert_true(out[n] == 42);
                // In place gives the same values.
                if (kind)
                    k->layernorm_f32(x, x, w, shift, n, eps, &mean);
                else
                    k->rmsnorm_f32(x, x, w, n, eps);
                assert_memory_equal(x, out, n * sizeof *x);
            }
}

static void backward_adds_central_differences(void **state)
{
    (void)state;
    const struct em_kernels *k;
    const float eps = 1e-2f;
    const double h = 1e-5;
    float mean = 0;
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (size_t n = 1; n <= N; n += n < 35 ? 1 : 8)
            for (int layer = 0; layer < 2; layer++) {
                float *x = new_row(n, 1), *w = new_row(n, 2), *b = new_row(n, 3);
                float *dy = new_row(n, 4), *y = new_row(n, 0);
                float *dx = new_row(n, 5), *dw = new_row(n, 6), *db = new_row(n, 7);
                float *dx0 = copy_row(dx, n), *dw0 = copy_row(dw, n), *db0 = copy_row(db, n);
                if (layer) {
                    const float rstd = k->layernorm_f32(y, x, w, b, n, eps, &mean);
                    k->layernorm_backward_f32(dx, false, dw, db, dy, x, w, mean, rstd, n);
                } else {
                    const float rstd = k->rmsnorm_f32(y, x, w, n, eps);
                    k->rmsnorm_backward_f32(dx, false, dw, dy, x, w, rstd, n);
                }
                for (size_t i = 0; i < n; i++) {
                    const double up = objective(layer, dy, x, w, b, n, (double)eps, i, h);
                    const double down = objective(layer, dy, x, w, b, n, (double)eps, i, -h);
                    CHECK_NEAR(dx[i], (double)dx0[i] + (up - down) / (2 * h), 2e-5,
                               "%s layer=%d n=%zu i=%zu", k->isa, layer, n, i);
                    // y - b = z w, so z = (y - b) / w without dividing: dw w = dy (y - b).
                    const double z_w = (double)y[i] - (layer ? (double)b[i] : 0);
                    CHECK_NEAR(((double)dw[i] - (double)dw0[i]) * (double)w[i], (double)dy[i] * z_w,
                               2e-5, "%s layer=%d n=%zu", k->isa, layer, n);
                    if (layer)
                        CHECK_NEAR(db[i], (double)db0[i] + (double)dy[i], 1e-6, "%s n=%zu", k->isa,
                                   n);
                }
                float *rows[] = {x, w, b, dy, y, dx, dw, db, dx0, dw0, db0};
                for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                    free_row(rows[i]);
            }
}

// A gradient that nobody wants is NULL, and the others are as they were with it.
static void each_gradient_may_be_absent(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float x[N], w[N], dy[N], dx[2][N], dw[2][N], db[2][N];
    fill_random(x, N, 1);
    fill_random(w, N, 2);
    fill_random(dy, N, 3);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++) {
        memset(dx, 0, sizeof dx);
        memset(dw, 0, sizeof dw);
        memset(db, 0, sizeof db);
        k->rmsnorm_backward_f32(dx[0], false, dw[0], dy, x, w, 1.5f, N);
        k->rmsnorm_backward_f32(dx[1], false, NULL, dy, x, w, 1.5f, N);
        k->rmsnorm_backward_f32(NULL, false, dw[1], dy, x, w, 1.5f, N);
        k->layernorm_backward_f32(dx[0], false, dw[0], db[0], dy, x, w, 0.1f, 1.5f, N);
        k->layernorm_backward_f32(dx[1], false, NULL, NULL, dy, x, w, 0.1f, 1.5f, N);
        k->layernorm_backward_f32(NULL, false, dw[1], NULL, dy, x, w, 0.1f, 1.5f, N);
        k->layernorm_backward_f32(NULL, false, NULL, db[1], dy, x, w, 0.1f, 1.5f, N);
        assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
        assert_memory_equal(dw[0], dw[1], sizeof dw[0]);
        assert_memory_equal(db[0], db[1], sizeof db[0]);
    }
}

// What holds garbage is set to what zeros would have become.
static void a_gradient_may_be_set(void **state)
{
    (void)state;
    const struct em_kernels *k;
    float x[N], w[N], dy[N], added[N], set[N];
    fill_random(x, N, 1);
    fill_random(w, N, 2);
    fill_random(dy, N, 3);
    for (size_t isa = 0; (k = em_kernels_at(isa)); isa++)
        for (int layer = 0; layer < 2; layer++) {
            memset(added, 0, sizeof added);
            for (size_t i = 0; i < N; i++)
                set[i] = NAN;
            if (layer) {
                k->layernorm_backward_f32(added, false, NULL, NULL, dy, x, w, 0.1f, 1.5f, N);
                k->layernorm_backward_f32(set, true, NULL, NULL, dy, x, w, 0.1f, 1.5f, N);
            } else {
                k->rmsnorm_backward_f32(added, false, NULL, dy, x, w, 1.5f, N);
                k->rmsnorm_backward_f32(set, true, NULL, dy, x, w, 1.5f, N);
            }
            assert_memory_equal(added, set, sizeof set);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_reference),
        cmocka_unit_test(backward_adds_central_differences),
        cmocka_unit_test(each_gradient_may_be_absent),
        cmocka_unit_test(a_gradient_may_be_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
