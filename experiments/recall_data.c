// Tasks of recall, as token ids with labels at the places that are asked. Usage:
// recall_data TASK FILE SLICES BATCH LENGTH SEED
//   induction  random words, among them once the sign followed by a word; after the sign at the end
//              that word is to come (Olsson et al. 2022)
//   copying    16 words among LENGTH - 16 blanks, then 16 signs: the words in their order (Gu and
//              Dao 2023)
//   mqar       LENGTH / 8 pairs of key and value, then keys again at random places: their values
//              (Arora et al. 2023)
// With 0 slices the file holds one batch, [BATCH, LENGTH], for `ember forward`.
// All have the vocabulary of WORDS ids; mqar has keys in its lower half and values in the upper.
#include "tensors.h"

enum { WORDS = 64, SIGN = 1, BLANK = 0, FIRST = 2, COPIED = 16, ALPHABET = 16 };

static uint64_t state;

// splitmix64
static size_t below(size_t n)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (size_t)((z ^ (z >> 31)) % n);
}

static void induction(int32_t *id, int32_t *label, size_t n)
{
    for (size_t t = 0; t < n; t++)
        id[t] = (int32_t)(FIRST + below(ALPHABET));
    const size_t at = below(n - 2);
    id[at] = id[n - 1] = SIGN;
    label[n - 1] = id[at + 1];
}

static void copying(int32_t *id, int32_t *label, size_t n)
{
    const size_t blanks = n - COPIED;
    size_t taken = 0;
    for (size_t t = 0; t < n; t++)
        id[t] = t < blanks ? BLANK : SIGN;
    // Every place is as likely: so many are still to be had, and so many places are left.
    for (size_t t = 0; t < blanks; t++)
        if (below(blanks - t) < COPIED - taken) {
            id[t] = (int32_t)(FIRST + below(ALPHABET - FIRST));
            label[blanks + taken++] = id[t];
        }
}

static void mqar(int32_t *id, int32_t *label, size_t n)
{
    int32_t key[WORDS / 2];
    const size_t pairs = n / 8, asked = n - 2 * pairs;
    for (size_t i = 0; i < WORDS / 2; i++)
        key[i] = (int32_t)i;
    for (size_t i = 0; i < pairs; i++) { // keys are different
        const size_t j = FIRST + i + below(WORDS / 2 - FIRST - i);
        const int32_t kept = key[FIRST + i];
        key[FIRST + i] = key[j], key[j] = kept;
        id[2 * i] = key[FIRST + i];
        id[2 * i + 1] = (int32_t)(WORDS / 2 + below(WORDS / 2));
    }
    for (size_t t = 2 * pairs; t < n; t++)
        id[t] = BLANK;
    for (size_t i = 0; i < pairs; i++) {
        size_t t = 2 * pairs + below(asked);
        while (id[t] != BLANK)
            t = 2 * pairs + (t + 1 - 2 * pairs) % asked;
        id[t] = id[2 * i];
        label[t] = id[2 * i + 1];
    }
}

int main(int argc, char **argv)
{
    void (*task)(int32_t *, int32_t *, size_t) = NULL;
    if (argc != 7) return 2;
    if (!strcmp(argv[1], "induction")) task = induction;
    if (!strcmp(argv[1], "copying")) task = copying;
    if (!strcmp(argv[1], "mqar")) task = mqar;
    const size_t sliced = strtoul(argv[3], NULL, 10), slices = sliced ? sliced : 1,
                 batch = strtoul(argv[4], NULL, 10), n = strtoul(argv[5], NULL, 10),
                 all = slices * batch * n;
    state = strtoull(argv[6], NULL, 10);
    if (!task || !all || n < 2 * COPIED || (task == mqar && n / 8 > WORDS / 2 - FIRST)) return 2;
    int32_t *id = malloc(all * sizeof *id), *label = malloc(all * sizeof *label);
    if (!id || !label) return 1;
    for (size_t i = 0; i < all; i++)
        label[i] = -100;
    for (size_t r = 0; r < slices * batch; r++)
        task(id + r * n, label + r * n, n);
    struct tensor tensors[] = {{"input_ids", "I32", {slices, batch, n}, 3, id},
                               {"labels", "I32", {slices, batch, n}, 3, label}};
    for (size_t i = 0; i < 2 && !sliced; i++)
        tensors[i].rank = 2, tensors[i].shape[0] = batch, tensors[i].shape[1] = n;
    write_tensors(argv[2], tensors, 2);
    free(id);
    free(label);
    return 0;
}
