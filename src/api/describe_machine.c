// ember info: the build and the machine.
#include <ember/describe.h>
#include <stdlib.h>
#include <string.h>

#include <ember/version.h>

#include "api/describe.h"
#include "api/library.h"
#include "base/cpu.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "kernels/roof.h"

static ember_status add_build(json_t *root)
{
    EM_TRY(em_put_text(root, "version", EMBER_VERSION));
    EM_TRY(em_put_text(root, "build", ember_build_info()));
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
    const struct em_kernels *k;
    EM_TRY(em_put_text(root, "cpu", cpu->model));
    EM_TRY(em_put_size(root, "l1d_bytes", cpu->l1d));
    EM_TRY(em_put_size(root, "l2_bytes", cpu->l2));
    EM_TRY(em_put_size(root, "l3_bytes", cpu->l3));
    json_t *list;
    EM_TRY(em_put_list(root, "isa_found", &list));
    for (size_t i = 0; (k = em_kernels_at(i)); i++)
        EM_TRY(em_push(list, json_string(k->isa)));
    char text[64];
    enum em_isa isa = EM_ISA_SCALAR;
    while (isa < EM_ISA_COUNT - 1 && strcmp(em_isa_name(isa), em_kernels()->isa) != 0)
        isa++;
    const enum em_isa widest = em_isa_widest();
    EM_TRY(em_put_text(root, "isa_widest", em_isa_text(widest, em_isa_extras(widest), text)));
    EM_TRY(em_put_text(root, "isa_used", em_isa_text(isa, em_kernels_extras(), text)));
    const char *asked = getenv("EMBER_ISA");
    return em_put(root, "isa_asked", asked && *asked ? json_string(asked) : json_null());
}

static ember_status add_threads(json_t *root, const struct em_runtime *runtime)
{
    struct em_threads_found found;
    em_threads_find("", &found);
    EM_TRY(em_put_size(root, "threads", em_pool_threads(runtime->pool)));
    EM_TRY(em_put_size(root, "threads_available", found.threads));
    EM_TRY(em_put_size(root, "threads_affinity", found.affinity));
    EM_TRY(em_put(root, "threads_quota", found.quota > 0 ? json_real(found.quota) : json_null()));
    return found.quota > 0 ? em_put_text(root, "threads_quota_file", found.quota_file) : EMBER_OK;
}

static ember_status add_speed(json_t *root, const struct em_runtime *runtime)
{
    double bytes;
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

// The number, and where it comes from.
static ember_status print_threads(const json_t *root, struct em_buf *out)
{
    const size_t affinity = em_size_of(root, "threads_affinity");
    const json_t *quota = json_object_get(root, "threads_quota");
    EM_TRY(em_buf_printf(out, "threads            %zu of %zu: affinity allows %zu",
                         em_size_of(root, "threads"), em_size_of(root, "threads_available"),
                         affinity));
    if (json_is_real(quota))
        EM_TRY(em_buf_printf(out, ", the quota in %s pays for %.4g",
                             em_text_of(root, "threads_quota_file"), json_real_value(quota)));
    else
        EM_TRY(em_buf_puts(out, ", there is no cgroup quota"));
    return em_buf_putc(out, '\n');
}

static ember_status print(const json_t *root, struct em_buf *out)
{
    char l1[32], l2[32], l3[32];
    const bool native = json_is_true(json_object_get(root, "bf16_native"));
    EM_TRY(em_buf_printf(out, "ember %s, %s\n", em_text_of(root, "version"),
                         em_text_of(root, "build")));
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
    const char *asked = json_string_value(json_object_get(root, "isa_asked"));
    EM_TRY(em_buf_printf(out, "; widest: %s; used: %s%s%s%s\n", em_text_of(root, "isa_widest"),
                         em_text_of(root, "isa_used"), asked ? " (EMBER_ISA=" : "",
                         asked ? asked : "", asked ? ")" : ""));
    EM_TRY(print_threads(root, out));
    EM_TRY(em_buf_printf(out, "f32                %.1f GFLOP/s (%s)\n",
                         json_real_value(json_object_get(root, "f32_gflops")),
                         em_text_of(root, "f32_kernel")));
    EM_TRY(em_buf_printf(out, "bf16               %.1f GFLOP/s (%s%s)\n",
                         json_real_value(json_object_get(root, "bf16_gflops")),
                         em_text_of(root, "bf16_kernel"),
                         native ? "" : "; no bf16 instructions: --dtype bf16 computes in f32"));
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
    if (status == EMBER_OK) status = add_threads(root, &runtime);
    if (status == EMBER_OK) status = add_speed(root, &runtime);
    em_runtime_close(&runtime);
    return em_describe(status, root, json, print, text);
}
