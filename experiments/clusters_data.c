// Clusters: points of 16 Gaussian clusters in 16 dimensions, each with a teacher of its own (two
// random layers with ReLU) that says the 4 targets. Centres are N(2, 1), points lie 0.6 around them.
// Usage: clusters_data FILE STEPS BATCH SEED; centres and teachers are the same for every seed.
#include <math.h>

#include "tensors.h"

enum { CLUSTERS = 16, IN = 16, OUT = 4 };

static uint64_t state;

// splitmix64
static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double normal(void)
{
    const double u = ((double)(draw() >> 11) + 0.5) * 0x1p-53,
                 v = (double)(draw() >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

struct cluster {
    double centre[IN], first[IN][IN], second[OUT][IN];
};

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    static struct cluster cluster[CLUSTERS];
    const size_t steps = strtoul(argv[2], NULL, 10), batch = strtoul(argv[3], NULL, 10),
                 rows = steps * batch;
    state = 77;
    for (size_t k = 0; k < CLUSTERS; k++) {
        for (size_t i = 0; i < IN; i++)
            cluster[k].centre[i] = 2 + normal();
        for (size_t i = 0; i < IN * IN; i++)
            cluster[k].first[i / IN][i % IN] = normal() / 4;
        for (size_t i = 0; i < OUT * IN; i++)
            cluster[k].second[i / IN][i % IN] = normal() / 4;
    }
    state = strtoull(argv[4], NULL, 10);
    float *in = malloc(rows * IN * sizeof *in), *target = malloc(rows * OUT * sizeof *target);
    if (!in || !target) return 1;
    for (size_t r = 0; r < rows; r++) {
        const struct cluster *c = &cluster[draw() % CLUSTERS];
        double hidden[IN] = {0};
        for (size_t i = 0; i < IN; i++)
            in[r * IN + i] = (float)(c->centre[i] + 0.6 * normal());
        for (size_t j = 0; j < IN; j++) {
            for (size_t i = 0; i < IN; i++)
                hidden[j] += c->first[j][i] * (double)in[r * IN + i];
            hidden[j] = hidden[j] > 0 ? hidden[j] : 0;
        }
        for (size_t o = 0; o < OUT; o++) {
            double sum = 0;
            for (size_t j = 0; j < IN; j++)
                sum += c->second[o][j] * hidden[j];
            target[r * OUT + o] = (float)sum;
        }
    }
    // One sequence a step, whose places are the points: a mixture sees the whole batch.
    const struct tensor tensors[] = {{"inputs", "F32", {steps, 1, batch, IN}, 4, in},
                                     {"targets", "F32", {steps, 1, batch, OUT}, 4, target}};
    write_tensors(argv[1], tensors, 2);
    return 0;
}
