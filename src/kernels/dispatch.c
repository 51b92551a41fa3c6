// The tables of kernels and which one is in force. Compiled without any instruction set's flags.
#include <pthread.h>

#include "base/cpu.h"
#include "base/log.h"
#include "kernels/kernels.h"

#define EM_ISA scalar
#include "kernels/dispatch_table.h"
#undef EM_ISA

#if defined(__x86_64__)
#define EM_ISA avx2
#include "kernels/dispatch_table.h"
#undef EM_ISA
#define EM_ISA avx512
#include "kernels/dispatch_table.h"
#undef EM_ISA
#elif defined(__aarch64__)
#define EM_ISA neon
#include "kernels/dispatch_table.h"
#undef EM_ISA
#endif

static const struct built {
    enum em_isa isa;
    const struct em_kernels *table;
} built[] = {
    {EM_ISA_SCALAR, &table_scalar},
#if defined(__x86_64__)
    {EM_ISA_AVX2, &table_avx2},
    {EM_ISA_AVX512, &table_avx512},
#elif defined(__aarch64__)
    {EM_ISA_NEON, &table_neon},
#endif
};

const struct em_kernels *em_kernels_at(size_t i)
{
    for (size_t b = 0; b < sizeof built / sizeof *built; b++)
        if (em_isa_runs(built[b].isa) && i-- == 0) return built[b].table;
    return NULL;
}

static const struct em_kernels *chosen = &table_scalar;
static unsigned chosen_extras;

// What em_isa_choose refuses is reported by callers who can fail (library initialisation). Whoever
// comes here without them gets a line and what would have been used without the wish.
static void choose(void)
{
    enum em_isa wanted;
    if (em_isa_choose(&wanted, &chosen_extras) != EMBER_OK) {
        wanted = em_isa_widest();
        chosen_extras = em_isa_extras(wanted);
        em_warn("%s; using %s", ember_last_error(), em_isa_name(wanted));
    }
    for (size_t b = 0; b < sizeof built / sizeof *built; b++)
        if (built[b].isa == wanted) chosen = built[b].table;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

const struct em_kernels *em_kernels(void)
{
    pthread_once(&once, choose);
    return chosen;
}

unsigned em_kernels_extras(void)
{
    pthread_once(&once, choose);
    return chosen_extras;
}
