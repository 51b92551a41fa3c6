// Measuring the roofs. Every figure is the best of several short bursts: a neighbour can only slow
// one down.
#include "kernels/roof.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/threads.h"
#include "kernels/gemm_i8.h"
#include "kernels/gemm_set.h"
#include "kernels/kernels.h"

enum { BURSTS = 8, PIECES_PER_THREAD = 4, MIB = 1 << 20 };

static const double piece_seconds = 0.0005;

struct burst {
    float (*floats)(size_t iterations); // or
    int32_t (*integers)(size_t iterations);
    size_t iterations;
    _Atomic float sink; // so that nothing is computed in vain
};

static void compute(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct burst *b = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        atomic_store_explicit(
            &b->sink, b->floats ? b->floats(b->iterations) : (float)b->integers(b->iterations),
            memory_order_relaxed);
}

// Operations per second, where an iteration has so many.
static double best_rate(struct burst b, size_t operations, struct em_pool *pool)
{
    b.iterations = 256;
    // As many iterations as make a piece long enough for the clock, and for the pool to be beside
    // it.
    for (;;) {
        const double start = em_clock_seconds();
        compute(&b, 0, 1, 0);
        if (em_clock_seconds() - start >= piece_seconds || b.iterations > SIZE_MAX / 4) break;
        b.iterations *= 2;
    }
    const size_t pieces = (size_t)em_pool_threads(pool) * PIECES_PER_THREAD;
    const double work = (double)operations * (double)b.iterations * (double)pieces;
    double best = 0;
    for (int i = 0; i < BURSTS; i++) {
        const double start = em_clock_seconds();
        em_parallel(pool, pieces, 1, compute, &b);
        const double seconds = em_clock_seconds() - start;
        if (seconds > 0 && work / seconds > best) best = work / seconds;
    }
    return best;
}

double em_roof_flops_now(enum em_gemm_type type, struct em_pool *pool)
{
    const struct em_gemm_set *set = em_gemm_set(type);
    return best_rate((struct burst){.floats = set->roof},
                     (size_t)2 * set->mr * set->nr * set->k_per_step, pool);
}

double em_roof_i8_now(struct em_pool *pool)
{
    const struct em_i8_set *set = em_gemm_i8_set();
    return best_rate((struct burst){.integers = set->roof}, set->roof_operations, pool);
}

struct reading {
    const struct em_kernels *kernels;
    float *data;
    size_t part; // floats
    _Atomic float sink;
};

static void touch(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct reading *r = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        r->kernels->fill_f32(r->data + i * r->part, 1.0f, r->part);
}

static void read_part(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct reading *r = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        atomic_store_explicit(&r->sink, r->kernels->read_f32(r->data + i * r->part, r->part),
                              memory_order_relaxed);
}

ember_status em_roof_read_now(struct em_pool *pool, double *bytes_per_second)
{
    size_t bytes = 4 * em_cpu()->l3;
    if (bytes < (size_t)64 * MIB) bytes = (size_t)64 * MIB;
    if (bytes > (size_t)256 * MIB) bytes = (size_t)256 * MIB;
    // Contiguous for each thread (the pool deals out ranges), in pieces that one can take over.
    const size_t parts = (size_t)em_pool_threads(pool) * 16;
    struct reading r = {.kernels = em_kernels(), .part = bytes / sizeof(float) / parts};
    r.data = em_block_alloc(bytes);
    if (!r.data) return EMBER_E_NOMEM;
    em_parallel(pool, parts, 1, touch, &r);
    double best = 0;
    for (int i = 0; i < BURSTS; i++) {
        const double start = em_clock_seconds();
        em_parallel(pool, parts, 1, read_part, &r);
        const double seconds = em_clock_seconds() - start;
        const double rate = (double)(parts * r.part * sizeof(float)) / seconds;
        if (seconds > 0 && rate > best) best = rate;
    }
    em_block_free(r.data, bytes);
    *bytes_per_second = best;
    return EMBER_OK;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned threads;
    const struct em_gemm_set *set;
    double value;
} known[3]; // by em_gemm_type; reading

double em_roof_flops(enum em_gemm_type type, struct em_pool *pool)
{
    const unsigned threads = em_pool_threads(pool);
    pthread_mutex_lock(&mutex);
    if (known[type].threads != threads || known[type].set != em_gemm_set(type)) {
        known[type].value = em_roof_flops_now(type, pool);
        known[type].set = em_gemm_set(type);
        known[type].threads = threads;
    }
    const double value = known[type].value;
    pthread_mutex_unlock(&mutex);
    return value;
}

ember_status em_roof_read(struct em_pool *pool, double *bytes_per_second)
{
    const unsigned threads = em_pool_threads(pool);
    ember_status status = EMBER_OK;
    pthread_mutex_lock(&mutex);
    if (known[2].threads != threads) {
        status = em_roof_read_now(pool, &known[2].value);
        if (status == EMBER_OK) known[2].threads = threads;
    }
    if (status == EMBER_OK) *bytes_per_second = known[2].value;
    pthread_mutex_unlock(&mutex);
    return status;
}
