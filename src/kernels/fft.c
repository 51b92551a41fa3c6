#include "kernels/fft.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

// Transforms of up to 2^21 numbers end in nodes at this depth. Static memory: what is not used
// takes no page.
enum { DEPTHS = 19, FACTORS = 8 };

static float table[((size_t)1 << DEPTHS) * FACTORS];
static atomic_bool ready[DEPTHS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

// In a heap whose node k has children 2k and 2k+1, with x^N - i as node 2, the factor of node k is
// exp(i pi r(k)), where r(k) reads the bits of k backwards as a fraction.
static double turned(size_t k)
{
    double r = 0, half = 0.5;
    for (; k; k >>= 1, half /= 2)
        if (k & 1) r += half;
    return r;
}

void em_fft_factors(unsigned depth, size_t node, float factors[FACTORS])
{
    const size_t k = ((size_t)2 << depth) + node, of[] = {k, 2 * k, 4 * k, 4 * k + 2};
    for (size_t i = 0; i < 4; i++) {
        const double angle = 3.14159265358979323846 * turned(of[i]);
        factors[2 * i] = (float)cos(angle);
        factors[2 * i + 1] = (float)sin(angle);
    }
}

const float *em_fft_level(unsigned depth)
{
    if (depth >= DEPTHS) return NULL;
    const size_t nodes = (size_t)1 << depth;
    float *level = table + (nodes - 1) * FACTORS;
    if (atomic_load_explicit(&ready[depth], memory_order_acquire)) return level;
    pthread_mutex_lock(&mutex);
    if (!atomic_load_explicit(&ready[depth], memory_order_relaxed)) {
        for (size_t i = 0; i < nodes; i++)
            em_fft_factors(depth, i, level + i * FACTORS);
        atomic_store_explicit(&ready[depth], true, memory_order_release);
    }
    pthread_mutex_unlock(&mutex);
    return level;
}
