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

enum em_isa em_isa_widest(void)
{
    int isa = EM_ISA_COUNT - 1;
    while (isa > 0 && !em_isa_runs((enum em_isa)isa))
        isa--;
    return (enum em_isa)isa;
}

static const struct {
    const char *name;
    unsigned bit;
} extra_names[] = {
    {"bf16", EM_ISA_BF16},
    {"vnni", EM_ISA_VNNI},
    {"dotprod", EM_ISA_DOTPROD},
    {"i8mm", EM_ISA_I8MM},
};
enum { EXTRAS = sizeof extra_names / sizeof *extra_names };

unsigned em_isa_extras(enum em_isa isa)
{
    const struct em_cpu *c = em_cpu();
    if (!em_isa_runs(isa)) return 0;
    if (isa == EM_ISA_AVX512)
        return (c->avx512_bf16 ? EM_ISA_BF16 : 0u) | (c->avx512_vnni ? EM_ISA_VNNI : 0u);
    if (isa == EM_ISA_NEON)
        return (c->bf16 ? EM_ISA_BF16 : 0u) | (c->dotprod ? EM_ISA_DOTPROD : 0u) |
               (c->i8mm ? EM_ISA_I8MM : 0u);
    return 0;
}

bool em_isa_runs_with(const char *name, unsigned extras)
{
    for (int i = 0; i < EM_ISA_COUNT; i++)
        if (strcmp(em_isa_name((enum em_isa)i), name) == 0)
            return em_isa_runs((enum em_isa)i) && !(extras & ~em_isa_extras((enum em_isa)i));
    return false;
}

const char *em_isa_text(enum em_isa isa, unsigned extras, char text[64])
{
    size_t used = (size_t)snprintf(text, 64, "%s", em_isa_name(isa));
    for (size_t i = 0; i < EXTRAS; i++)
        if (extras & extra_names[i].bit)
            used += (size_t)snprintf(text + used, 64 - used, "+%s", extra_names[i].name);
    if (!extras && em_isa_extras(isa)) snprintf(text + used, 64 - used, "+none");
    return text;
}

static ember_status refuse(const char *name, const char *why)
{
    char runs[128] = "", one[64];
    for (int i = 0; i < EM_ISA_COUNT; i++)
        if (em_isa_runs((enum em_isa)i)) {
            const size_t used = strlen(runs);
            snprintf(runs + used, sizeof runs - used, "%s%s", used ? ", " : "",
                     em_isa_text((enum em_isa)i, em_isa_extras((enum em_isa)i), one));
        }
    return em_fail(EMBER_E_USAGE, "EMBER_ISA=%.64s: %s; this machine runs %s", name, why, runs);
}

// "+bf16+vnni" or "+none", after the set's name; "" is all that the machine has.
static ember_status read_extras(const char *name, const char *words, enum em_isa isa,
                                unsigned *extras)
{
    unsigned found = 0;
    if (!*words || strcmp(words, "+none") == 0) {
        *extras = *words ? 0 : em_isa_extras(isa);
        return EMBER_OK;
    }
    while (*words) {
        const size_t n = strcspn(++words, "+");
        unsigned bit = 0;
        for (size_t i = 0; i < EXTRAS; i++)
            if (strlen(extra_names[i].name) == n && memcmp(extra_names[i].name, words, n) == 0)
                bit = extra_names[i].bit;
        if (!bit) return refuse(name, "what follows + is none, bf16, vnni, dotprod or i8mm");
        if (!(em_isa_extras(isa) & bit))
            return refuse(name, "this machine lacks what follows the set's name");
        found |= bit;
        words += n;
    }
    *extras = found;
    return EMBER_OK;
}

ember_status em_isa_choose(enum em_isa *isa, unsigned *extras)
{
    const char *name = getenv("EMBER_ISA");
    enum em_isa chosen = em_isa_widest();
    unsigned with = em_isa_extras(chosen);
    if (name && *name) {
        const size_t n = strcspn(name, "+");
        int i = 0;
        while (i < EM_ISA_COUNT && (strlen(em_isa_name((enum em_isa)i)) != n ||
                                    memcmp(em_isa_name((enum em_isa)i), name, n) != 0))
            i++;
        if (i == EM_ISA_COUNT) return refuse(name, "no such instruction set");
        chosen = (enum em_isa)i;
        if (!em_isa_runs(chosen)) return refuse(name, "this machine lacks that instruction set");
        EM_TRY(read_extras(name, name + n, chosen, &with));
    }
    *isa = chosen;
    if (extras) *extras = with;
    return EMBER_OK;
}
