// Everything here is integer arithmetic, or additions, multiplications and square roots, which IEEE
// 754 fixes to the bit: no logarithm or cosine of the C library, whose last bit differs between
// machines.
#include "base/rng.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

// The output function of splitmix64: a bijection (Steele, Lea and Flood 2014, variant 13 of
// Stafford).
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);

uint64_t em_hash64(uint64_t seed, uint64_t a, uint64_t b)
{
    return mix(mix(mix(seed + golden) + a + golden) + b + golden);
}

void em_rng_seed(struct em_rng *rng, uint64_t seed, uint64_t stream)
{
    uint64_t x = em_hash64(seed, stream, 0);
    for (int i = 0; i < 4; i++)
        rng->s[i] = mix(
            x += golden); // four different words: never all zero, where the generator would stay
}

uint64_t em_rng_u64(struct em_rng *rng)
{
    uint64_t *s = rng->s;
    const uint64_t result = rotate(s[1] * 5, 7) * 9, shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t em_rng_below(struct em_rng *rng, uint64_t n)
{
    assert(n >= 1);
    if (n <= 1) return 0;
    const uint64_t excess = (0 - n) % n; // 2^64 mod n: the first so many values would count twice
    uint64_t x;
    do
        x = em_rng_u64(rng);
    while (x < excess);
    return x % n;
}

double em_rng_uniform(struct em_rng *rng)
{
    return (double)(em_rng_u64(rng) >> 11) * 0x1p-53;
}

// Natural logarithm of x in (0, 1]: x = m 2^e with m near 1, log m = 2 artanh((m - 1) / (m + 1)).
static double log_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3ff0000000000000);
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    const double f = (m - 1) / (m + 1),
                 q = f * f; // |f| < 0.172: the term after the last is below 1e-18
    double sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * q + 1.0 / k;
    return e * 0.6931471805599453 + 2 * f * sum;
}

// cos(2 pi u), u in [0, 1): u is brought to an eighth of a turn around the nearest quarter,
// exactly.
static double cos_turn(double u)
{
    const int quarter = (int)(4 * u + 0.5);
    const double x = (u - 0.25 * quarter) * 6.283185307179586, q = x * x;
    const int odd = quarter & 1;
    double sum = 0;
    for (int k = 18; k >= 1; k -= 2) // Taylor: x <= pi / 4, the term after the last is below 1e-19
        sum = (1 + sum) * (-q / ((double)(k - 1 + odd) * (k + odd)));
    const double value = odd ? -x * (1 + sum) : 1 + sum; // cos(x + pi / 2) = -sin x
    return quarter == 2 || quarter == 3 ? -value : value;
}

double em_rng_normal(struct em_rng *rng)
{
    const double radius = 1 - em_rng_uniform(rng),
                 turn = em_rng_uniform(rng); // Box and Muller 1958
    return sqrt(-2 * log_of(radius)) * cos_turn(turn);
}

uint64_t em_permute(uint64_t i, uint64_t n, uint64_t seed)
{
    assert(i < n);
    if (n <= 1) return 0;
    // A Feistel network permutes [0, 4^half), which is less than 4 n; values past n are sent
    // through again.
    unsigned half = 1;
    while (half < 32 && (n - 1) >> (2 * half))
        half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            const uint64_t mixed = left ^ (em_hash64(seed, round, right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
