// Compiled without flags of any instruction set, or it would fault on the machines that it
// protects.
#include "base/cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "base/io_priv.h"

static struct em_cpu cpu;

#if defined(__x86_64__)

struct registers {
    unsigned a, b, c, d;
};

static struct registers leaf(unsigned number, unsigned sub)
{
    struct registers r = {0};
    if (__get_cpuid_max(number & 0x80000000u, NULL) >= number)
        __cpuid_count(number, sub, r.a, r.b, r.c, r.d);
    return r;
}

// Which registers the operating system saves when it switches threads: without that, no use of
// them.
static unsigned saved_registers(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool bit(unsigned word, int n)
{
    return word >> n & 1;
}

static void detect(void)
{
    const struct registers one = leaf(1, 0), seven = leaf(7, 0), seven_one = leaf(7, 1);
    const unsigned saved = bit(one.c, 27) ? saved_registers() : 0;
    const bool ymm = (saved & 0x06) == 0x06 && bit(one.c, 28);
    const bool zmm = ymm && (saved & 0xe6) == 0xe6;
    cpu.avx2 = ymm && bit(seven.b, 5);
    cpu.fma = ymm && bit(one.c, 12);
    cpu.f16c = ymm && bit(one.c, 29);
    cpu.avx512 =
        zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) && bit(seven.b, 31);
    cpu.avx512_vnni = cpu.avx512 && bit(seven.c, 11);
    cpu.avx512_bf16 = cpu.avx512 && bit(seven_one.a, 5);
    char brand[49] = "";
    for (unsigned i = 0; i < 3; i++) {
        const struct registers r = leaf(0x80000002u + i, 0);
        memcpy(brand + 16 * i, &r, sizeof r);
    }
    const char *start = brand + strspn(brand, " ");
    snprintf(cpu.model, sizeof cpu.model, "%s", *start ? start : "x86-64");
}

#elif defined(__aarch64__)

static void detect(void)
{
    const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    cpu.neon = one & HWCAP_ASIMD;
    cpu.dotprod = one & HWCAP_ASIMDDP;
    cpu.i8mm = two & HWCAP2_I8MM;
    cpu.bf16 = two & HWCAP2_BF16;
    char text[4096];
    unsigned implementer = 0, part = 0;
    if (em_io_read_small("/proc/cpuinfo", text, sizeof text)) {
        const char *i = strstr(text, "CPU implementer"), *p = strstr(text, "CPU part");
        if (i && (i = strchr(i, ':'))) implementer = (unsigned)strtoul(i + 1, NULL, 0);
        if (p && (p = strchr(p, ':'))) part = (unsigned)strtoul(p + 1, NULL, 0);
    }
    snprintf(cpu.model, sizeof cpu.model,
             implementer ? "aarch64, implementer 0x%02x, part 0x%03x" : "aarch64", implementer,
             part);
}

#else

static void detect(void)
{
    snprintf(cpu.model, sizeof cpu.model, "unknown");
}

#endif

static size_t cache_bytes(int level, int name)
{
    for (int index = 0; index < 8; index++) {
        char path[96], text[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", index);
        if (!em_io_read_small(path, text, sizeof text)) break;
        if (strtol(text, NULL, 10) != level) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", index);
        if (!em_io_read_small(path, text, sizeof text) || strncmp(text, "Instruction", 11) == 0)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        if (!em_io_read_small(path, text, sizeof text)) continue;
        char *unit;
        const size_t size = strtoul(text, &unit, 10);
        return *unit == 'K' ? size << 10 : *unit == 'M' ? size << 20 : size;
    }
    const long bytes = sysconf(name); // some virtual machines hide the folder
    return bytes > 0 ? (size_t)bytes : 0;
}

static void detect_all(void)
{
    detect();
    cpu.l1d = cache_bytes(1, _SC_LEVEL1_DCACHE_SIZE);
    cpu.l2 = cache_bytes(2, _SC_LEVEL2_CACHE_SIZE);
    cpu.l3 = cache_bytes(3, _SC_LEVEL3_CACHE_SIZE);
}

const struct em_cpu *em_cpu(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, detect_all);
    return &cpu;
}

bool em_isa_runs(enum em_isa isa)
{
    const struct em_cpu *c = em_cpu();
    switch (isa) {
    case EM_ISA_SCALAR: return true;
    case EM_ISA_NEON: return c->neon;
    case EM_ISA_AVX2: return c->avx2 && c->fma && c->f16c;
    case EM_ISA_AVX512:
        return c->avx512 && c->avx2 && c->fma && c->f16c; // its table is compiled with all of them
    case EM_ISA_COUNT: break;
    }
    return false;
}

const char *em_isa_name(enum em_isa isa)
{
    static const char *const names[EM_ISA_COUNT] = {"scalar", "neon", "avx2", "avx512"};
    return (size_t)isa < EM_ISA_COUNT ? names[isa] : "?";
}

static ember_status refuse(const char *name, const char *why)
{
    char runs[64] = "";
    for (int i = 0; i < EM_ISA_COUNT; i++)
        if (em_isa_runs((enum em_isa)i)) {
            const size_t used = strlen(runs);
            snprintf(runs + used, sizeof runs - used, "%s%s", used ? ", " : "",
                     em_isa_name((enum em_isa)i));
        }
    return em_fail(EMBER_E_USAGE, "EMBER_ISA=%s: %s; this machine runs %s", name, why, runs);
}

ember_status em_isa_choose(enum em_isa *isa)
{
    const char *name = getenv("EMBER_ISA");
    for (int i = EM_ISA_COUNT - 1; i >= 0; i--) {
        const enum em_isa candidate = (enum em_isa)i;
        if (name && *name && strcmp(name, em_isa_name(candidate)) != 0) continue;
        if (em_isa_runs(candidate)) {
            *isa = candidate;
            return EMBER_OK;
        }
        if (name && *name) return refuse(name, "this machine lacks that instruction set");
    }
    return refuse(name ? name : "", "no such instruction set");
}
