// Random numbers that are the same on every machine, at any thread count, for ever (states store
// them).
#ifndef EM_BASE_RNG_H
#define EM_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

// xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64.
struct em_rng {
    uint64_t s[4];
};

void em_rng_seed(struct em_rng *rng, uint64_t seed,
                 uint64_t stream); // streams of a seed are independent
uint64_t em_rng_u64(struct em_rng *rng);
uint64_t em_rng_below(struct em_rng *rng, uint64_t n); // uniform in [0, n), unbiased; n >= 1
double em_rng_uniform(struct em_rng *rng);             // [0, 1), 53 bits
double em_rng_normal(struct em_rng *rng); // mean 0, variance 1; two uniforms a call, no cache

// Stateless: a 64-bit mix of (seed, a, b), for values that must not depend on the order of calls
// (dropout masks, shuffles by index).
uint64_t em_hash64(uint64_t seed, uint64_t a, uint64_t b);

// A keyed permutation of [0, n): position i of the shuffle `seed`, without a table (Feistel,
// cycle-walking).
uint64_t em_permute(uint64_t i, uint64_t n, uint64_t seed);

#endif
