// Every table of this machine against attention in double, forward and backward: heads and groups,
// head dimensions of every remainder, windows, keys of the past, lengths around the block sizes.
#include "base/cpu.h"
#include "kernels/check.h"

// The kernels of a number format in one table.
struct format {
    const char *isa, *name;
    size_t (*scratch)(const struct em_attention *a);
    void (*forward)(const struct em_attention *a, size_t g, size_t g_end, size_t begin, size_t end,
                    void *scratch);
    size_t (*backward_scratch)(const struct em_attention *a);
    void (*backward)(const struct em_attention *a, const struct em_attention_gradient *d, size_t g,
                     void *scratch);
    bool rounds; // operands, to bf16
};

// Format i of this machine's tables; false past the last.
static bool format_at(size_t i, struct format *f)
{
    const struct em_kernels *k = em_kernels_at(i / 2);
    if (!k) return false;
    if (i % 2 == 0) {
        *f = (struct format){k->isa,
                             "f32",
                             k->attention_scratch,
                             k->attention_f32,
                             k->attention_backward_scratch,
                             k->attention_backward_f32,
                             false};
        return true;
    }
    const bool pairs = em_isa_runs_with(k->isa, EM_ISA_BF16);
    *f = (struct format){k->isa,
                         "bf16",
                         k->attention_bf16_scratch,
                         k->attention_bf16,
                         k->attention_backward_bf16_scratch,
                         k->attention_backward_bf16,
                         pairs};
    // Without the instructions a set that has them may not be asked; it is the last.
    return pairs || (strcmp(k->isa, "avx512") != 0 && strcmp(k->isa, "neon") != 0);
}

struct problem {
    struct em_attention a;
    struct em_attention_gradient d;
    float *q, *k, *v, *o, *lse, *d_o, *dq, *dk, *dv;
    double *p, *want_o, *want_lse, *dq_want, *dk_want, *dv_want;
};

enum { EXTRA = 3 }; // floats between the rows of different tokens

static double *zeros(size_t n)
{
    double *x = calloc(n ? n : 1, sizeof *x);
    assert_non_null(x);
    return x;
}

static bool sees(const struct em_attention *a, size_t t, size_t s)
{
    const size_t position = a->past + t;
    if (s > position) return a->bidirectional && (!a->window || s - position < a->window);
    return !a->window || position - s < a->window;
}

static double dot(const float *a, const float *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

// o, lse and all gradients in double; p [S] is scratch for one row of probabilities.
static void solve(struct problem *x)
{
    const struct em_attention *a = &x->a;
    const size_t S = a->past + a->T, K = a->K;
    for (size_t h = 0; h < a->H; h++)
        for (size_t t = 0; t < a->T; t++) {
            const size_t g = h / (a->H / a->G);
            const float *q = a->q + t * a->q_stride + h * K;
            double m = -INFINITY, sum = 0, delta = 0;
            for (size_t s = 0; s < S; s++)
                if (sees(a, t, s)) {
                    x->p[s] = (double)a->scale * dot(q, a->k + s * a->k_stride + g * K, K);
                    m = fmax(m, x->p[s]);
                }
            for (size_t s = 0; s < S; s++)
                if (sees(a, t, s)) sum += exp(x->p[s] - m);
            x->want_lse[t * a->H + h] = m + log(sum);
            double *o = x->want_o + (t * a->H + h) * K;
            const float *d_o = x->d.d_o + t * x->d.do_stride + h * K;
            for (size_t s = 0; s < S; s++) {
                if (!sees(a, t, s)) continue;
                x->p[s] = exp(x->p[s] - m) / sum;
                const float *v = a->v + s * a->v_stride + g * K;
                for (size_t i = 0; i < K; i++)
                    o[i] += x->p[s] * (double)v[i];
                delta += x->p[s] * dot(d_o, v, K);
            }
            for (size_t s = 0; s < S; s++) {
                if (!sees(a, t, s)) continue;
                const float *k = a->k + s * a->k_stride + g * K;
                const double dp = dot(d_o, a->v + s * a->v_stride + g * K, K);
                const double ds = (double)a->scale * x->p[s] * (dp - delta);
                for (size_t i = 0; i < K; i++) {
                    x->dq_want[(t * a->H + h) * K + i] += ds * (double)k[i];
                    x->dk_want[(s * a->G + g) * K + i] += ds * (double)q[i];
                    x->dv_want[(s * a->G + g) * K + i] += x->p[s] * (double)d_o[i];
                }
            }
        }
}

// Exactly as many floats as [rows, width] with `stride` needs, so that a sanitizer sees what is
// read or written past the last row.
static float *strided(size_t rows, size_t width, size_t stride, uint64_t seed)
{
    return new_row(rows ? (rows - 1) * stride + width : 0, seed);
}

static struct problem new_problem(size_t T, size_t past, size_t H, size_t G, size_t K,
                                  size_t window, bool bidirectional)
{
    const size_t S = past + T, q = H * K + EXTRA, kv = G * K + EXTRA;
    struct problem x = {.q = strided(T, H * K, q, 1),
                        .k = strided(S, G * K, kv, 2),
                        .v = strided(S, G * K, kv, 3),
                        .o = strided(T, H * K, q, 4),
                        .lse = new_row(T * H, 5),
                        .d_o = strided(T, H * K, q, 6),
                        .dq = strided(T, H * K, q, 7),
                        .dk = strided(T, G * K, kv, 8),
                        .dv = strided(T, G * K, kv, 9),
                        .p = zeros(S),
                        .want_o = zeros(T * H * K),
                        .want_lse = zeros(T * H),
                        .dq_want = zeros(T * H * K),
                        .dk_want = zeros(S * G * K),
                        .dv_want = zeros(S * G * K)};
    x.a = (struct em_attention){.T = T,
                                .past = past,
                                .H = H,
                                .G = G,
                                .K = K,
                                .window = window,
                                .bidirectional = bidirectional,
                                .scale = 3.0f / sqrtf((float)K),
                                .q_stride = q,
                                .k_stride = kv,
                                .v_stride = kv,
                                .o_stride = q,
                                .q = x.q,
                                .k = x.k,
                                .v = x.v,
                                .o = x.o,
                                .lse = x.lse};
    x.d = (struct em_attention_gradient){.do_stride = q,
                                         .dq_stride = q,
                                         .dk_stride = kv,
                                         .dv_stride = kv,
                                         .d_o = x.d_o,
                                         .dq = x.dq,
                                         .dk = x.dk,
                                         .dv = x.dv};
    solve(&x);
    return x;
}

static void free_problem(struct problem *x)
{
    float *rows[] = {x->q, x->k, x->v, x->o, x->lse, x->d_o, x->dq, x->dk, x->dv};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        free_row(rows[i]);
    double *doubles[] = {x->p, x->want_o, x->want_lse, x->dq_want, x->dk_want, x->dv_want};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        free(doubles[i]);
}

static void *scratch(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, 0xff, bytes); // NaN: what a kernel reads before it writes shows
    return p;
}

static void run_forward(const struct format *k, const struct problem *x)
{
    const size_t most = em_attention_queries(&x->a);
    void *memory = scratch(k->scratch(&x->a));
    for (size_t g = 0; g < x->a.G; g++)
        for (size_t t = 0; t < x->a.T; t += most)
            k->forward(&x->a, g, g + 1, t, t + most < x->a.T ? t + most : x->a.T, memory);
    free(memory);
}

// got [rows, width] of `stride` against want [rows, width], on top of `before` (NULL: 0): each
// number in f32, the whole in bf16, whose operands are off by 2^-9.
static void check(const char *what, const struct format *f, const struct em_attention *a,
                  const float *got, const float *before, const double *want, size_t rows,
                  size_t width, size_t stride)
{
    double errors = 0, squares = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < width; i++) {
            const double old = before ? (double)before[r * stride + i] : 0,
                         wanted = want[r * width + i],
                         error = (double)got[r * stride + i] - old - wanted;
            errors += error * error;
            squares += wanted * wanted;
            if (!f->rounds)
                CHECK_NEAR(got[r * stride + i], old + wanted, 2e-5,
                           "%s %s T=%zu past=%zu H=%zu G=%zu K=%zu window=%zu at %zu,%zu", f->isa,
                           what, a->T, a->past, a->H, a->G, a->K, a->window, r, i);
        }
    if (!(sqrt(errors) <= 3e-2 * sqrt(squares) + 1e-6 * sqrt((double)(rows * width))))
        fail_msg(
            "%s %s %s T=%zu past=%zu H=%zu G=%zu K=%zu window=%zu: errors of %g, numbers of %g",
            f->isa, f->name, what, a->T, a->past, a->H, a->G, a->K, a->window, sqrt(errors),
            sqrt(squares));
    for (size_t r = 0; before && r + 1 < rows; r++)
        assert_memory_equal(got + r * stride + width, before + r * stride + width,
                            EXTRA * sizeof *got);
}

static void check_problem(struct problem *x)
{
    const struct em_attention *a = &x->a;
    const size_t T = a->T, wide = a->H * a->K, narrow = a->G * a->K;
    const size_t q = wide + EXTRA, kv = narrow + EXTRA;
    const size_t q_size = (T - 1) * q + wide, kv_size = (T - 1) * kv + narrow;
    float *dq = copy_row(x->dq, q_size), *dk = copy_row(x->dk, kv_size);
    float *dv = copy_row(x->dv, kv_size);
    struct format k;
    for (size_t i = 0; format_at(i, &k); i++) {
        run_forward(&k, x);
        check("o", &k, a, x->o, NULL, x->want_o, T, wide, q);
        check("lse", &k, a, x->lse, NULL, x->want_lse, T, a->H, a->H);
        memcpy(x->dq, dq, q_size * sizeof *dq);
        memcpy(x->dk, dk, kv_size * sizeof *dk);
        memcpy(x->dv, dv, kv_size * sizeof *dv);
        void *memory = scratch(k.backward_scratch(a));
        for (size_t g = 0; g < a->G; g++)
            k.backward(a, &x->d, g, memory);
        free(memory);
        check("dq", &k, a, x->dq, dq, x->dq_want, T, wide, q);
        check("dk", &k, a, x->dk, dk, x->dk_want + a->past * narrow, T, narrow, kv);
        check("dv", &k, a, x->dv, dv, x->dv_want + a->past * narrow, T, narrow, kv);
    }
    free_row(dq);
    free_row(dk);
    free_row(dv);
    free_problem(x);
}

static void head_dimensions_of_every_remainder(void **state)
{
    (void)state;
    for (size_t K = 1; K <= 256; K += K < 36 ? 1 : K == 36 ? 28 : 48) {
        struct problem x = new_problem(7, 2, 2, 1, K, 0, false);
        check_problem(&x);
    }
}

static void lengths_around_the_blocks(void **state)
{
    (void)state;
    static const size_t lengths[] = {1,  2,  3,  5,  6,  7,   15,  16, 17,
                                     63, 64, 65, 95, 97, 130, 193, 200};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t past = 0; past <= 70; past += 35) {
            struct problem x = new_problem(lengths[i], past, 1, 1, 20, 0, false);
            check_problem(&x);
        }
}

static void heads_and_groups(void **state)
{
    (void)state;
    static const size_t heads[][2] = {{1, 1}, {2, 1}, {3, 3},  {6, 2},
                                      {7, 1}, {4, 4}, {40, 2}, {200, 1}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct problem x = new_problem(i < 6 ? 70 : 9, 5, heads[i][0], heads[i][1], 16, 0, false);
        check_problem(&x);
    }
}

static void windows_and_both_directions(void **state)
{
    (void)state;
    static const size_t windows[] = {0, 1, 2, 30, 64, 100, 1000};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        for (int both = 0; both < 2; both++)
            for (size_t past = 0; past <= 80; past += 80) {
                struct problem x = new_problem(150, past, 2, 1, 12, windows[i], both);
                check_problem(&x);
            }
}

// Scores far from each other: what has no weight is exactly absent, and nothing overflows.
static void large_scores_stay_finite(void **state)
{
    (void)state;
    struct problem x = new_problem(80, 0, 2, 2, 8, 0, false);
    x.a.scale = 200.0f;
    const size_t n = x.a.T * x.a.H;
    memset(x.want_o, 0, n * x.a.K * sizeof *x.want_o);
    solve(&x);
    struct format k;
    for (size_t f = 0; format_at(f, &k); f++) {
        run_forward(&k, &x);
        for (size_t i = 0; i < n; i++) {
            CHECK_NEAR(x.lse[i], x.want_lse[i], k.rounds ? 2e-2 : 1e-6, "%s %zu", k.isa, i);
            for (size_t c = 0; c < x.a.K; c++) {
                const float o = x.o[i / x.a.H * x.a.o_stride + i % x.a.H * x.a.K + c];
                assert_true(fabsf(o) <= 1); // a mean of values
                if (k.rounds) continue;
                CHECK_NEAR(o, x.want_o[i * x.a.K + c], 2e-3, "%s %zu", k.isa,
                           i); // score errors, e^1e-4
            }
        }
    }
    free_problem(&x);
}

// A gradient that nobody wants is NULL; the others keep their bits. lse may be absent in inference.
static void outputs_may_be_absent(void **state)
{
    (void)state;
    struct problem x = new_problem(70, 3, 4, 2, 24, 0, false);
    const size_t q_size = (x.a.T - 1) * x.a.q_stride + x.a.H * x.a.K;
    const size_t kv_size = (x.a.T - 1) * x.a.k_stride + x.a.G * x.a.K;
    struct format k;
    for (size_t f = 0; format_at(f, &k); f++) {
        run_forward(&k, &x);
        float *o = copy_row(x.o, q_size);
        x.a.lse = NULL;
        memset(x.o, 0, q_size * sizeof *o);
        run_forward(&k, &x);
        for (size_t t = 0; t < x.a.T; t++)
            assert_memory_equal(o + t * x.a.o_stride, x.o + t * x.a.o_stride,
                                x.a.H * x.a.K * sizeof *o);
        x.a.lse = x.lse;
        void *memory = scratch(k.backward_scratch(&x.a));
        float *all[3] = {new_row(q_size, 1), new_row(kv_size, 2), new_row(kv_size, 3)};
        float *one[3] = {new_row(q_size, 1), new_row(kv_size, 2), new_row(kv_size, 3)};
        struct em_attention_gradient d = x.d;
        for (size_t g = 0; g < x.a.G; g++) {
            d.dq = all[0], d.dk = all[1], d.dv = all[2];
            k.backward(&x.a, &d, g, memory);
            for (int which = 0; which < 3; which++) {
                d.dq = which == 0 ? one[0] : NULL;
                d.dk = which == 1 ? one[1] : NULL;
                d.dv = which == 2 ? one[2] : NULL;
                k.backward(&x.a, &d, g, memory);
            }
        }
        assert_memory_equal(all[0], one[0], q_size * sizeof *o);
        assert_memory_equal(all[1], one[1], kv_size * sizeof *o);
        assert_memory_equal(all[2], one[2], kv_size * sizeof *o);
        for (int i = 0; i < 3; i++) {
            free_row(all[i]);
            free_row(one[i]);
        }
        free_row(o);
        free(memory);
    }
    free_problem(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_dimensions_of_every_remainder),
        cmocka_unit_test(lengths_around_the_blocks),
        cmocka_unit_test(heads_and_groups),
        cmocka_unit_test(windows_and_both_directions),
        cmocka_unit_test(large_scores_stay_finite),
        cmocka_unit_test(outputs_may_be_absent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
