// ember info: the build and the machine.
#include <ember/describe.h>
#include <string.h>

#include "api/describe.h"
#include "api/library.h"
#include "base/cpu.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "kernels/roof.h"

static ember_status add_build(json_t *root)
{
    EM_TRY(em_put_text(root, "version", EMBER_VERSION));
#if defined(__clang__)
    EM_TRY(em_put_text(root, "compiler", "clang " __clang_version__));
#else
    EM_TRY(em_put_text(root, "compiler", "gcc " __VERSION__));
#endif
    json_t *list;
    EM_TRY(em_put_list(root, "backends", &list));
    EM_TRY(em_push(list, json_string("cpu")));
    EM_TRY(em_push(list, json_string("reference")));
    EM_TRY(em_put_list(root, "libraries", &list));
#ifdef EMBER_HAVE_ZLIB
    EM_TRY(em_push(list, json_string("zlib")));
#endif
#ifdef EMBER_HAVE_ZSTD
    EM_TRY(em_push(list, json_string("zstd")));
#endif
#ifdef EMBER_HAVE_LZMA
    EM_TRY(em_push(list, json_string("lzma")));
#endif
    return EMBER_OK;
}

static ember_status add_cpu(json_t *root)
{
    const struct em_cpu *cpu = em_cpu();
    const struct {
        const char *name;
        bool has;
    } features[] = {
        {"avx512_bf16", cpu->avx512_bf16},
        {"avx512_vnni", cpu->avx512_vnni},
        {"dotprod", cpu->dotprod},
        {"bf16", cpu->bf16},
        {"i8mm", cpu->i8mm},
    };
    const struct em_kernels *k;
    EM_TRY(em_put_text(root, "cpu", cpu->model));
    EM_TRY(em_put_size(root, "l1d_bytes", cpu->l1d));
    EM_TRY(em_put_size(root, "l2_bytes", cpu->l2));
    EM_TRY(em_put_size(root, "l3_bytes", cpu->l3));
    json_t *list;
    EM_TRY(em_put_list(root, "isa_found", &list));
    for (size_t i = 0; (k = em_kernels_at(i)); i++)
        EM_TRY(em_push(list, json_string(k->isa)));
    EM_TRY(em_put_list(root, "isa_features", &list));
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (features[i].has) EM_TRY(em_push(list, json_string(features[i].name)));
    return em_put_text(root, "isa_used", em_kernels()->isa);
}

static ember_status add_speed(json_t *root, const struct em_runtime *runtime)
{
    double bytes;
    EM_TRY(em_put_size(root, "threads", em_pool_threads(runtime->pool)));
    EM_TRY(em_put_size(root, "threads_available", em_threads_available()));
    EM_TRY(em_put_text(root, "f32_kernel", em_gemm_name(EM_GEMM_F32)));
    EM_TRY(em_put(root, "f32_gflops", json_real(em_roof_flops(EM_GEMM_F32, runtime->pool) / 1e9)));
    EM_TRY(em_put_text(root, "bf16_kernel", em_gemm_name(EM_GEMM_BF16)));
    EM_TRY(em_put(root, "bf16_native", json_boolean(em_gemm_native(EM_GEMM_BF16))));
    EM_TRY(
        em_put(root, "bf16_gflops", json_real(em_roof_flops(EM_GEMM_BF16, runtime->pool) / 1e9)));
    EM_TRY(em_roof_read(runtime->pool, &bytes));
    return em_put(root, "read_gbytes_per_s", json_real(bytes / 1e9));
}

static ember_status print_words(const json_t *root, const char *key, struct em_buf *out)
{
    const json_t *list = json_object_get(root, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        EM_TRY(em_buf_printf(out, " %s", json_string_value(json_array_get(list, i))));
    return EMBER_OK;
}

static ember_status print(const json_t *root, struct em_buf *out)
{
    char l1[32], l2[32], l3[32];
    const bool native = json_is_true(json_object_get(root, "bf16_native"));
    EM_TRY(em_buf_printf(out, "ember %s, built with %s\n", em_text_of(root, "version"),
                         em_text_of(root, "compiler")));
    EM_TRY(em_buf_puts(out, "backends          "));
    EM_TRY(print_words(root, "backends", out));
    EM_TRY(em_buf_puts(out, "\nlibraries         "));
    EM_TRY(print_words(root, "libraries", out));
    EM_TRY(em_buf_printf(out, "\nprocessor          %s\n", em_text_of(root, "cpu")));
    EM_TRY(em_buf_printf(out, "caches             L1 %s, L2 %s, L3 %s\n",
                         em_bytes_text((double)em_size_of(root, "l1d_bytes"), l1),
                         em_bytes_text((double)em_size_of(root, "l2_bytes"), l2),
                         em_bytes_text((double)em_size_of(root, "l3_bytes"), l3)));
    EM_TRY(em_buf_puts(out, "instruction sets  "));
    EM_TRY(print_words(root, "isa_found", out));
    EM_TRY(print_words(root, "isa_features", out));
    EM_TRY(em_buf_printf(out, "; used: %s\n", em_text_of(root, "isa_used")));
    EM_TRY(em_buf_printf(out, "threads            %zu of %zu\n", em_size_of(root, "threads"),
                         em_size_of(root, "threads_available")));
    EM_TRY(em_buf_printf(out, "f32                %.1f GFLOP/s (%s)\n",
                         json_real_value(json_object_get(root, "f32_gflops")),
                         em_text_of(root, "f32_kernel")));
    EM_TRY(em_buf_printf(out, "bf16               %.1f GFLOP/s (%s%s)\n",
                         json_real_value(json_object_get(root, "bf16_gflops")),
                         em_text_of(root, "bf16_kernel"),
                         native ? "" : "; not native: --dtype bf16 computes in f32"));
    return em_buf_printf(out, "memory             %.1f GB/s read\n",
                         json_real_value(json_object_get(root, "read_gbytes_per_s")));
}

ember_status ember_machine_describe(const ember_runtime *options, bool json, char **text)
{
    struct em_runtime runtime;
    EM_TRY(em_runtime_open(options, false, &runtime));
    json_t *root = json_object();
    ember_status status = root ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory: the machine");
    if (status == EMBER_OK) status = add_build(root);
    if (status == EMBER_OK) status = add_cpu(root);
    if (status == EMBER_OK) status = add_speed(root, &runtime);
    em_runtime_close(&runtime);
    return em_describe(status, root, json, print, text);
}
