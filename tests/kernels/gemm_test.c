// Every way of multiplying matrices that this machine has, against sums in double; and what must be
// equal to the bit: thread counts, rows that share a call, dense and grouped products.
#include "base/threads.h"
#include "kernels/check.h"
#include "kernels/gemm.h"
#include "kernels/half.h"

static const enum em_gemm_type types[] = {EM_GEMM_F32, EM_GEMM_BF16};

#define FOR_EACH_WAY(type)                                                                         \
    for (size_t ty_ = 0; ty_ < 2; ty_++)                                                           \
        for (size_t way_ = 0; em_gemm_use_at((type) = types[ty_], way_); way_++)

static float *floats(size_t n, uint64_t seed)
{
    float *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    fill_random(p, n, seed);
    return p;
}

static void *bytes64(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64 + 64);
    assert_non_null(p);
    memset(p, 0xff, n); // NaN, where something is read that nobody wrote
    return p;
}

static struct em_gemm_scratch new_scratch(size_t bytes)
{
    assert_true(bytes < SIZE_MAX);
    return (struct em_gemm_scratch){bytes64(bytes), bytes};
}

// [rows, cols] as it lies or transposed, on exactly the memory it needs.
static struct em_matrix view(const float *data, size_t rows, size_t cols, bool transposed)
{
    return transposed ? (struct em_matrix){data, 1, rows} : (struct em_matrix){data, cols, 1};
}

static size_t extent(size_t rows, size_t cols, size_t pad)
{
    return rows == 0 ? 0 : (rows - 1) * (cols + pad) + cols;
}

static double at(struct em_matrix m, size_t i, size_t j, enum em_gemm_type type)
{
    const float x = m.data[i * m.row_stride + j * m.col_stride];
    return (double)(type == EM_GEMM_F32 ? x : em_bf16_to_f32(em_bf16_from_f32(x)));
}

// C against double: every sum of K products may be off by K roundings of its largest partial sum.
static void check_product(enum em_gemm_type type, size_t M, size_t N, size_t K, struct em_matrix a,
                          struct em_matrix b, const float *c, size_t c_stride, const char *what)
{
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0, size = 0;
            for (size_t k = 0; k < K; k++) {
                const double x = at(a, i, k, type) * at(b, k, j, type);
                sum += x;
                size += fabs(x);
            }
            const double error = fabs((double)c[i * c_stride + j] - sum);
            if (!(error <= ((double)K + 1) * 0x1p-24 * size)) {
                print_error("%s %s %s %zux%zux%zu: c[%zu][%zu] is %.9g, not %.9g\n", what,
                            type == EM_GEMM_F32 ? "f32" : "bf16", em_gemm_name(type), M, N, K, i, j,
                            (double)c[i * c_stride + j], sum);
                fail();
            }
        }
}

static void check_size(enum em_gemm_type type, size_t M, size_t N, size_t K, bool ta, bool tb)
{
    enum { PAD = 3 };
    float *a = floats(M * K, 1), *b = floats(K * N, 2);
    const size_t n_c = extent(M, N, PAD);
    float *c = floats(n_c, 3), *before = floats(n_c, 3);
    const struct em_matrix va = view(a, M, K, ta), vb = view(b, K, N, tb);
    struct em_gemm_scratch scratch = new_scratch(em_gemm_unpacked_scratch_size(type, N, K, 1));
    em_gemm(type, M, N, K, va, vb, c, N + PAD, NULL, &scratch, NULL);
    check_product(type, M, N, K, va, vb, c, N + PAD, ta ? tb ? "TT" : "TN" : tb ? "NT" : "NN");
    for (size_t i = 0; i < n_c; i++)
        if (i % (N + PAD) >= N) assert_true(c[i] == before[i]);
    free(a);
    free(b);
    free(c);
    free(before);
    free(scratch.data);
}

static void products_equal_sums_in_double(void **state)
{
    (void)state;
    enum em_gemm_type type;
    FOR_EACH_WAY(type) for (int t = 0; t < 4; t++)
    {
        const bool ta = t & 1, tb = t & 2;
        for (size_t n = 1; n <= 70; n++) {
            check_size(type, 1 + n % 7, n, 5 + n % 2, ta, tb);
            if (n % 2 == tb) check_size(type, n, 1 + n % 19, 3, ta, tb);
            check_size(type, 3, 17, n, ta, tb);
        }
        check_size(type, 40, 70, 67, ta, tb);
    }
    em_gemm_use_default();
}

static void sums_go_through_memory_where_k_is_long(void **state)
{
    (void)state;
    enum em_gemm_type type;
    FOR_EACH_WAY(type) for (int t = 0; t < 4; t++)
    {
        if (t % 3 == 0) check_size(type, 96, 21, 1101, t & 1, t & 2);
        if (t % 3) check_size(type, 9, 5, 3500, t & 1, t & 2);
    }
    em_gemm_use_default();
}

static void wide_products_have_several_column_blocks(void **state)
{
    (void)state;
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    {
        check_size(type, 3, 1100, 20, false, true);
        check_size(type, 100, 530, 3, true, false);
    }
    em_gemm_use_default();
}

// v = sum * scale + bias + residual; C = v or C + v: each part on and off, on tiles that end in
// registers and in columns that do not fill a vector, with K in one block and in several.
static void epilogues(void **state)
{
    (void)state;
    enum { M = 96, N = 70, LONG = 1100 };
    enum em_gemm_type type;
    FOR_EACH_WAY(type) for (int which = 0; which < 64; which++)
    {
        if (which > 32 && which % 4) continue; // a few
        const bool in_place = which & 16;
        const size_t K = which & 32 ? LONG : 9;
        float *a = floats(M * K, 1), *b = floats(K * N, 2), *c = floats(M * N, 3);
        float *old = floats(M * N, 3), *sum = floats(M * N, 0), *bias = floats(N, 4);
        float *other = floats(M * N, 5);
        struct em_gemm_scratch scratch = new_scratch(em_gemm_unpacked_scratch_size(type, N, K, 1));
        em_gemm(type, M, N, K, view(a, M, K, false), view(b, K, N, false), sum, N, NULL, &scratch,
                NULL);
        const struct em_gemm_epilogue e = {.bias = which & 1 ? bias : NULL,
                                           .residual = which & 2 ? in_place ? c : other : NULL,
                                           .residual_stride = N,
                                           .scale = which & 4 ? 0.375f : 0.0f,
                                           .accumulate = which & 8};
        em_gemm(type, M, N, K, view(a, M, K, false), view(b, K, N, false), c, N, &e, &scratch,
                NULL);
        for (size_t i = 0; i < M * N; i++) {
            double want = (double)sum[i] * (which & 4 ? 0.375 : 1.0);
            double size = fabs(want);
            if (e.bias) want += (double)bias[i % N];
            if (e.residual) want += (double)(in_place ? old : other)[i];
            if (e.accumulate) want += (double)old[i];
            size += fabs(want) + 3;
            if (!(fabs((double)c[i] - want) <= size * 0x1p-22)) {
                print_error("%s K=%zu case %d: c[%zu] is %.9g, not %.9g\n", em_gemm_name(type), K,
                            which, i, (double)c[i], want);
                fail();
            }
        }
        free(a);
        free(b);
        free(c);
        free(old);
        free(sum);
        free(bias);
        free(other);
        free(scratch.data);
    }
    em_gemm_use_default();
}

static void thread_counts_give_the_same_bits(void **state)
{
    (void)state;
    enum em_gemm_type type;
    static const size_t shapes[][3] = {
        {201, 150, 1100}, {1, 1000, 300}, {32, 700, 70}, {700, 8, 90}};
    FOR_EACH_WAY(type) for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    {
        const size_t M = shapes[s][0], N = shapes[s][1], K = shapes[s][2];
        float *a = floats(M * K, 1), *b = floats(K * N, 2), *want = floats(M * N, 3);
        float *c = floats(M * N, 4);
        for (unsigned threads = 1; threads <= 3; threads++)
            for (int t = 0; t < 2; t++) {
                struct em_pool *pool;
                assert_int_equal(em_pool_create(threads, &pool), EMBER_OK);
                struct em_gemm_scratch scratch =
                    new_scratch(em_gemm_unpacked_scratch_size(type, N, K, threads));
                // A transposed in memory is packed by other code: t = 1 first brings it there.
                float *ta = floats(M * K, 0);
                for (size_t i = 0; i < M * K; i++)
                    ta[t ? i % K * M + i / K : i] = a[i];
                em_gemm(type, M, N, K, view(ta, M, K, t), view(b, K, N, false),
                        threads == 1 && t == 0 ? want : c, N, NULL, &scratch, pool);
                if (threads > 1 || t) assert_memory_equal(c, want, M * N * sizeof *c);
                free(ta);
                free(scratch.data);
                em_pool_destroy(pool);
            }
        free(a);
        free(b);
        free(c);
        free(want);
    }
    em_gemm_use_default();
}

static void a_row_does_not_depend_on_its_company(void **state)
{
    (void)state;
    enum { M = 96, N = 70, K = 1100 };
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    {
        float *a = floats(M * K, 1), *b = floats(K * N, 2), *whole = floats(M * N, 0);
        float *bias = floats(N, 3), *c = floats(M * N, 0);
        const struct em_gemm_epilogue e = {.bias = bias, .scale = 0.7f};
        struct em_gemm_scratch scratch = new_scratch(em_gemm_unpacked_scratch_size(type, N, K, 1));
        em_gemm(type, M, N, K, view(a, M, K, false), view(b, K, N, false), whole, N, &e, &scratch,
                NULL);
        for (size_t rows = 1, m = 0; m < M; m += rows, rows = rows % 13 + 1) {
            if (rows > M - m) rows = M - m;
            em_gemm(type, rows, N, K, view(a + m * K, rows, K, false), view(b, K, N, false), c, N,
                    &e, &scratch, NULL);
            assert_memory_equal(c, whole + m * N, rows * N * sizeof *c);
        }
        free(a);
        free(b);
        free(c);
        free(bias);
        free(whole);
        free(scratch.data);
    }
    em_gemm_use_default();
}

// Groups of all sizes, empty ones at both ends and in the middle.
enum { GROUPS = 9, ROWS = 140, FIRST = 4 };
static const int32_t offsets[GROUPS + 1] = {FIRST,     FIRST,      FIRST + 1,   FIRST + 1,
                                            FIRST + 8, FIRST + 11, FIRST + 110, FIRST + 110,
                                            ROWS,      ROWS};

static void grouped_products_equal_dense_ones(void **state)
{
    (void)state;
    enum { N = 83, K = 37, TOKENS = 50 };
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    for (unsigned threads = 1; threads <= 2; threads++)
        for (int gather = 0; gather < 2; gather++) {
            struct em_pool *pool;
            assert_int_equal(em_pool_create(threads, &pool), EMBER_OK);
            float *a = floats(ROWS * K, 1), *b = floats(GROUPS * K * N, 2),
                  *bias = floats(GROUPS * N, 3);
            float *c = floats(ROWS * N, 4), *want = floats(ROWS * N, 4),
                  *residual = floats(ROWS * N, 5);
            int32_t rows[ROWS];
            for (size_t i = 0; i < ROWS; i++)
                rows[i] = (int32_t)(i * 29 % TOKENS);
            const size_t stride = em_gemm_packed_size(type, K, N);
            assert_true(stride % 64 == 0);
            char *packed = bytes64(GROUPS * stride);
            struct em_gemm_scratch scratch =
                new_scratch(em_gemm_unpacked_scratch_size(type, N, K, threads));
            for (size_t g = 0; g < GROUPS; g++) {
                const struct em_matrix vb = view(b + g * K * N, K, N, true);
                em_gemm_pack(type, K, N, vb, packed + g * stride, pool);
                for (int32_t i = offsets[g]; i < offsets[g + 1]; i++) {
                    const size_t at = (size_t)i * N, row = (size_t)(gather ? rows[i] : i);
                    const struct em_gemm_epilogue e = {
                        .bias = bias + g * N, .residual = residual + at, .residual_stride = N};
                    em_gemm(type, 1, N, K, view(a + row * K, 1, K, false), vb, want + at, N, &e,
                            &scratch, pool);
                }
            }
            const struct em_gemm_epilogue e = {
                .bias = bias, .bias_group_stride = N, .residual = residual, .residual_stride = N};
            em_gemm_grouped(type, GROUPS, offsets, N, K, view(a, ROWS, K, false),
                            gather ? rows : NULL, packed, stride, c, N, &e, &scratch, pool);
            assert_memory_equal(c, want, ROWS * N * sizeof *c); // the rows before offsets[0] too
            free(a);
            free(b);
            free(bias);
            free(c);
            free(want);
            free(residual);
            free(packed);
            free(scratch.data);
            em_pool_destroy(pool);
        }
    em_gemm_use_default();
}

static void grouped_gradients_equal_dense_ones(void **state)
{
    (void)state;
    enum { M = 37, N = 71, PAD = 2, TOKENS = 50 };
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    for (unsigned threads = 1; threads <= 2; threads++)
        for (int which = 0; which < 4; which++) {
            const bool gather = which & 1, accumulate = which & 2;
            struct em_pool *pool;
            assert_int_equal(em_pool_create(threads, &pool), EMBER_OK);
            float *dy = floats(ROWS * M, 1), *x = floats(ROWS * (N + PAD), 2);
            const size_t n_c = GROUPS * M * N;
            float *c = floats(n_c, 3), *want = floats(n_c, 3), *sorted = floats(ROWS * N, 0);
            int32_t rows[ROWS];
            for (size_t i = 0; i < ROWS; i++)
                rows[i] = (int32_t)(i * 29 % TOKENS);
            struct em_gemm_scratch scratch = new_scratch(
                em_gemm_grouped_grad_scratch_size(type, GROUPS, ROWS - FIRST, N, threads));
            struct em_gemm_scratch dense =
                new_scratch(em_gemm_unpacked_scratch_size(type, N, ROWS, threads));
            const struct em_gemm_epilogue e = {.accumulate = accumulate, .scale = 0.5f};
            for (size_t g = 0; g < GROUPS; g++) {
                const size_t at = (size_t)offsets[g], K = (size_t)offsets[g + 1] - at;
                for (size_t i = at; i < at + K; i++)
                    memcpy(sorted + i * N, x + (size_t)(gather ? rows[i] : (int32_t)i) * (N + PAD),
                           N * sizeof *x);
                em_gemm(type, M, N, K, (struct em_matrix){dy + at * M, 1, M},
                        view(sorted + at * N, K, N, false), want + g * M * N, N, &e, &dense, pool);
            }
            em_gemm_grouped_grad(type, GROUPS, offsets, M, N, dy, M, x, N + PAD,
                                 gather ? rows : NULL, c, N, M * N, &e, &scratch, pool);
            assert_memory_equal(c, want, n_c * sizeof *c);
            free(dy);
            free(x);
            free(c);
            free(want);
            free(sorted);
            free(scratch.data);
            free(dense.data);
            em_pool_destroy(pool);
        }
    em_gemm_use_default();
}

// More k than a window has (704 rows of f32, 1056 of bf16): groups that end with a window, that
// span two, and empty ones.
static void long_sums_are_taken_in_windows(void **state)
{
    (void)state;
    enum { M = 2, N = 2050, K = 2100, PARTS = 6 };
    static const int32_t parts[PARTS + 1] = {0, 0, 704, 1056, 1056, K, K};
    float *a = floats(K * M, 1), *b = floats(K * N, 2), *bias = floats(N, 3);
    float *c = floats(PARTS * M * N, 4), *old = floats(PARTS * M * N, 4);
    double *sum = calloc(PARTS * M * N, sizeof *sum);
    assert_non_null(sum);
    const struct em_matrix va = {a, 1, M}, vb = {b, N, 1};
    enum em_gemm_type type, done = (enum em_gemm_type) - 1;
    FOR_EACH_WAY(type)
    {
        if (type != done) {
            memset(sum, 0, PARTS * M * N * sizeof *sum);
            for (size_t p = 0; p < PARTS; p++)
                for (size_t k = (size_t)parts[p]; k < (size_t)parts[p + 1]; k++)
                    for (size_t i = 0; i < M; i++)
                        for (size_t j = 0; j < N; j++)
                            sum[(p * M + i) * N + j] += at(va, i, k, type) * at(vb, k, j, type);
            done = type;
        }
        const size_t whole = em_gemm_packed_size(type, K, N);
        assert_true(em_gemm_grouped_grad_scratch_size(type, PARTS, K, N, 2) -
                        em_gemm_scratch_size(2) <
                    whole);
        struct em_pool *pool;
        assert_int_equal(em_pool_create(2, &pool), EMBER_OK);
        struct em_gemm_scratch scratch =
            new_scratch(em_gemm_grouped_grad_scratch_size(type, PARTS, K, N, 2));
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            const struct em_gemm_epilogue e = {.bias = bias, .accumulate = accumulate};
            memcpy(c, old, PARTS * M * N * sizeof *c);
            em_gemm_grouped_grad(type, PARTS, parts, M, N, a, M, b, N, NULL, c, N, M * N, &e,
                                 &scratch, pool);
            for (size_t i = 0; i < PARTS * M * N; i++)
                CHECK_NEAR(c[i], sum[i] + (double)bias[i % N] + (accumulate ? (double)old[i] : 0.0),
                           2e-4, "%s group %zu", em_gemm_name(type), i / (M * N));
            memcpy(c, old, M * N * sizeof *c);
            em_gemm(type, M, N, K, va, vb, c, N, &e, &scratch, pool);
            for (size_t i = 0; i < M * N; i++) {
                double want = (double)bias[i % N] + (accumulate ? (double)old[i] : 0.0);
                for (size_t p = 0; p < PARTS; p++)
                    want += sum[p * M * N + i];
                CHECK_NEAR(c[i], want, 2e-4, "%s", em_gemm_name(type));
            }
        }
        // The same scratch at the counts where one window becomes two.
        for (size_t rows = 1016; rows < 2000; rows += rows == 1032 ? 944 : 8)
            em_gemm(type, 1, N, rows, va, vb, c, N, NULL, &scratch, NULL);
        em_pool_destroy(pool);
        free(scratch.data);
    }
    em_gemm_use_default();
    free(a);
    free(b);
    free(bias);
    free(c);
    free(old);
    free(sum);
}

static void workspace_for_more_serves_less(void **state)
{
    (void)state;
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    {
        size_t dense = 0, grouped = 0;
        for (size_t K = 1; K < 9000; K += K < 40 ? 1 : 8) {
            const size_t d = em_gemm_unpacked_scratch_size(type, 1500, K, 2);
            const size_t g = em_gemm_grouped_grad_scratch_size(type, 7, K, 1500, 2);
            assert_true(d >= dense && g >= grouped && g >= d);
            dense = d;
            grouped = g;
        }
        assert_true(dense < em_gemm_packed_size(type, 9000, 1500));
        assert_true(em_gemm_unpacked_scratch_size(type, 1500, SIZE_MAX, 2) == dense);
    }
    em_gemm_use_default();
}

static void bf16_operands_are_rounded_to_nearest_even(void **state)
{
    (void)state;
    enum em_gemm_type type;
    // 1 + 2^-8 lies half way between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    static const float x[] = {0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, -0x1.03p0f, INFINITY,
                              3e38f,     NAN};
    static const float y[] = {1, 0x1.04p0f, 0x1.02p0f, -0x1.04p0f, INFINITY, 0x1.c4p127f, NAN};
    enum { N = sizeof x / sizeof *x };
    FOR_EACH_WAY(type) for (int t = 0; t < 4; t++)
    {
        if (type != EM_GEMM_BF16) continue;
        struct em_gemm_scratch scratch = new_scratch(em_gemm_unpacked_scratch_size(type, N, 1, 1));
        const float one = 1;
        float left[N], right[N];
        em_gemm(type, N, 1, 1, view(x, N, 1, t & 1), view(&one, 1, 1, t & 2), left, 1, NULL,
                &scratch, NULL);
        em_gemm(type, 1, N, 1, view(&one, 1, 1, t & 1), view(x, 1, N, t & 2), right, N, NULL,
                &scratch, NULL);
        for (size_t i = 0; i < N; i++) {
            assert_true(left[i] == y[i] || (isnan(left[i]) && isnan(y[i])));
            assert_true(right[i] == y[i] || (isnan(right[i]) && isnan(y[i])));
        }
        free(scratch.data);
    }
    em_gemm_use_default();
}

static void a_sum_of_nothing_is_zero(void **state)
{
    (void)state;
    enum { M = 7, N = 70 };
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    {
        float *c = floats(M * N, 1), *bias = floats(N, 2), *nothing = floats(0, 0);
        struct em_gemm_scratch scratch = new_scratch(em_gemm_unpacked_scratch_size(type, N, 0, 1));
        const struct em_gemm_epilogue e = {.bias = bias};
        const struct em_matrix a = {nothing, 0, 1}, b = {nothing, N, 1};
        em_gemm(type, M, N, 0, a, b, c, N, &e, &scratch, NULL);
        for (size_t i = 0; i < M * N; i++)
            assert_true(c[i] == bias[i % N]);
        em_gemm(type, 0, N, 0, a, b, NULL, N, &e, &scratch, NULL);
        em_gemm(type, M, 0, 0, a, b, NULL, 0, &e, &scratch, NULL);
        free(c);
        free(bias);
        free(nothing);
        free(scratch.data);
    }
    em_gemm_use_default();
}

static void sizes_that_do_not_fit_say_so(void **state)
{
    (void)state;
    enum em_gemm_type type;
    FOR_EACH_WAY(type)
    {
        assert_true(em_gemm_packed_size(type, SIZE_MAX / 2, 3) == SIZE_MAX);
        assert_true(em_gemm_packed_size(type, 1, SIZE_MAX) == SIZE_MAX);
        assert_true(em_gemm_packed_size(type, SIZE_MAX / 4, 1) == SIZE_MAX);
        assert_true(em_gemm_unpacked_scratch_size(type, SIZE_MAX / 3, 5, 2) == SIZE_MAX);
        assert_true(em_gemm_grouped_grad_scratch_size(type, 4, 7, SIZE_MAX - 5, 2) == SIZE_MAX);
    }
    em_gemm_use_default();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_sums_in_double),
        cmocka_unit_test(sums_go_through_memory_where_k_is_long),
        cmocka_unit_test(wide_products_have_several_column_blocks),
        cmocka_unit_test(epilogues),
        cmocka_unit_test(thread_counts_give_the_same_bits),
        cmocka_unit_test(a_row_does_not_depend_on_its_company),
        cmocka_unit_test(grouped_products_equal_dense_ones),
        cmocka_unit_test(grouped_gradients_equal_dense_ones),
        cmocka_unit_test(long_sums_are_taken_in_windows),
        cmocka_unit_test(workspace_for_more_serves_less),
        cmocka_unit_test(bf16_operands_are_rounded_to_nearest_even),
        cmocka_unit_test(a_sum_of_nothing_is_zero),
        cmocka_unit_test(sizes_that_do_not_fit_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
