// Handwritten digits, 8 x 8 pixels of 0 to 16, from a CSV file with an image a line and its digit
// last. A fifth is held out. What is trained on goes through them in epochs of a random order, each
// image moved by up to a pixel. Usage: digits_data CSV TRAIN HELD_OUT STEPS BATCH SEED
#include "tensors.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE, MOST = 4096 };

struct digit {
    float pixel[PIXELS];
    int32_t label;
};

static struct digit digit[MOST];
static uint64_t state;

// splitmix64
static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void shuffle(size_t *order, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t other = (size_t)(draw() % i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

static size_t read_digits(const char *path)
{
    FILE *f = fopen(path, "r");
    size_t n = 0;
    if (!f) perror(path), exit(1);
    for (double v; n < MOST; n++) {
        for (int i = 0; i < PIXELS; i++) {
            if (fscanf(f, "%lf,", &v) != 1) return fclose(f), n;
            digit[n].pixel[i] = (float)(v / 8 - 1);
        }
        if (fscanf(f, "%d", &digit[n].label) != 1) return fclose(f), n;
    }
    fclose(f);
    return n;
}

static void move(float *to, const float *from, int down, int right)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const int a = y - down, b = x - right;
            to[y * SIDE + x] = a < 0 || b < 0 || a >= SIDE || b >= SIDE ? -1 : from[a * SIDE + b];
        }
}

static void write_digits(const char *path, const size_t *which, size_t steps, size_t batch,
                         int moves)
{
    const size_t rows = steps * batch;
    float *in = malloc(rows * PIXELS * sizeof *in);
    int32_t *label = malloc(rows * sizeof *label);
    if (!in || !label) exit(1);
    for (size_t r = 0; r < rows; r++) {
        const struct digit *d = &digit[which[r]];
        const int down = moves ? (int)(draw() % 3) - 1 : 0,
                  right = moves ? (int)(draw() % 3) - 1 : 0;
        move(in + r * PIXELS, d->pixel, down, right);
        label[r] = d->label;
    }
    const struct tensor tensors[] = {{"inputs", "F32", {steps, batch, PIXELS, 1}, 4, in},
                                     {"labels", "I32", {steps, batch}, 2, label}};
    write_tensors(path, tensors, 2);
    free(in);
    free(label);
}

int main(int argc, char **argv)
{
    static size_t order[MOST];
    if (argc != 7) return 2;
    const size_t n = read_digits(argv[1]), held = n / 5, kept = n - held,
                 steps = strtoul(argv[4], NULL, 10), batch = strtoul(argv[5], NULL, 10);
    size_t *which = malloc(steps * batch * sizeof *which);
    if (!held || !which) return 1;
    state = strtoull(argv[6], NULL, 10);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    shuffle(order, n);
    write_digits(argv[3], order + kept, 1, held, 0);
    for (size_t r = 0; r < steps * batch; r++) {
        if (r % kept == 0) shuffle(order, kept);
        which[r] = order[r % kept];
    }
    write_digits(argv[2], which, steps, batch, 1);
    free(which);
    return 0;
}
