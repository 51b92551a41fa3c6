// Convolutions of images as patches are embedded, against sums over windows in double.
#include <string.h>

#include "ops/program.h"
#include "support/check.h"

enum { I = 3, O = 5, MOST = 4096 };

struct form {
    size_t rows, columns, k, stride, padding;
};

static void check(enum em_backend backend, const struct form *g)
{
    static float x[MOST], w[MOST], b[O];
    struct em_program *p;
    ember_tensor weight, bias, *in, *y;
    const size_t pixels = g->rows * g->columns, images = 2;
    const size_t rows = (g->rows + 2 * g->padding - g->k) / g->stride + 1,
                 columns = (g->columns + 2 * g->padding - g->k) / g->stride + 1;
    assert_true(images * pixels * I <= MOST && O * I * g->k * g->k <= MOST);
    fill_random(x, MOST, 1);
    fill_random(w, MOST, 2);
    fill_random(b, O, 3);
    CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){O, I, g->k, g->k}, 4, w));
    CHECK_OK(em_tensor_init(&bias, EMBER_F32, (size_t[]){O}, 1, b));
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = backend,
                                                            .max_tokens = images * pixels,
                                                            .max_sequences = images},
                               &p));
    CHECK_OK(ember_inputs(em_program_flow(p), I, &in));
    const ember_conv2d_options o = {g->rows, g->columns, g->stride, g->padding};
    CHECK_OK(ember_conv2d(em_program_flow(p), in, &weight, &bias, &o, &y));
    em_program_output(p, y);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = images * pixels,
                               .n_sequences = images,
                               .offset = (size_t[]){0, pixels, 2 * pixels},
                               .inputs = x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    assert_int_equal(y->dim[0], images * rows * columns);
    for (size_t at = 0; at < images * rows * columns * O; at++) {
        const size_t out = at % O, column = at / O % columns, row = at / O / columns % rows,
                     image = at / O / columns / rows;
        double sum = (double)b[out];
        for (size_t i = 0; i < I * g->k * g->k; i++) {
            const size_t dr = i / g->k % g->k, dc = i % g->k, channel = i / g->k / g->k;
            const size_t r = row * g->stride + dr, c = column * g->stride + dc;
            if (r < g->padding || c < g->padding) continue;
            if (r - g->padding >= g->rows || c - g->padding >= g->columns) continue;
            const size_t pixel = image * pixels + (r - g->padding) * g->columns + c - g->padding;
            sum += (double)w[out * I * g->k * g->k + i] * (double)x[pixel * I + channel];
        }
        CHECK_NEAR(em_f32(y)[at], sum, 1e-5, "backend %d, %zu x %zu by %zu / %zu: %zu", backend,
                   g->rows, g->columns, g->k, g->stride, at);
    }
    em_program_destroy(p);
}

static void patches_are_windows(void **state)
{
    (void)state;
    static const struct form forms[] = {
        {8, 12, 4, 4, 0}, // the first published embedding
        {9, 14, 3, 2, 1}, // the later one's, and the merging after it
        {7, 5, 2, 2, 0},  // merging by windows without overlap, on odd grids
        {16, 16, 4, 4, 0}, {1, 1, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        for (int backend = 0; backend < EM_BACKENDS; backend++)
            check((enum em_backend)backend, &forms[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(patches_are_windows)};
    return cmocka_run_group_tests_name("ops/image_conv", tests, NULL, NULL);
}
