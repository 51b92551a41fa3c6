// Event XOR (Lechner and Hasani 2020, arXiv:2006.04418): the parity of random bit strings of length
// 2 to 31, which are told as events: a run of equal bits is one event, its bit and its length. The
// time since the last event is the run's length over 32. Usage: event_xor_data FILE STEPS BATCH SEED
#include "tensors.h"

enum { LONGEST = 31, PLACES = 32 };

static uint64_t state;

// splitmix64
static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    const size_t steps = strtoul(argv[2], NULL, 10), batch = strtoul(argv[3], NULL, 10);
    const size_t rows = steps * batch;
    state = strtoull(argv[4], NULL, 10);
    float *in = calloc(rows * PLACES, sizeof *in), *span = malloc(rows * PLACES * sizeof *span);
    int32_t *label = calloc(rows, sizeof *label), *length = calloc(rows, sizeof *length);
    if (!in || !span || !label || !length) return 1;
    for (size_t r = 0; r < rows; r++) {
        const int bits = 2 + (int)(draw() % (LONGEST - 1));
        const uint64_t word = draw();
        int parity = 0, n = 0;
        for (int i = 0; i < PLACES; i++)
            span[r * PLACES + i] = 1;
        for (int i = 0; i < bits;) {
            const int bit = (int)(word >> i & 1);
            int run = 1;
            while (i + run < bits && (int)(word >> (i + run) & 1) == bit)
                run++;
            parity ^= bit & run & 1;
            in[r * PLACES + n] = (float)bit;
            span[r * PLACES + n++] = (float)run / 32;
            i += run;
        }
        label[r] = parity;
        length[r] = n;
    }
    const struct tensor tensors[] = {{"inputs", "F32", {steps, batch, PLACES, 1}, 4, in},
                                     {"timespans", "F32", {steps, batch, PLACES}, 3, span},
                                     {"lengths", "I32", {steps, batch}, 2, length},
                                     {"labels", "I32", {steps, batch}, 2, label}};
    write_tensors(argv[1], tensors, 4);
    return 0;
}
