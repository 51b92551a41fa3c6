// The share of labels that logits get right: recall_score DATA LOGITS, files of recall_data with 0
// slices and of `ember forward`. Reads the rows of labelled places alone, so their length is free.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file {
    FILE *f;
    const char *path;
    long begin; // of the tensor's values
    size_t shape[3];
};

static void fail(const char *path, const char *fault)
{
    fprintf(stderr, "%s: %s\n", path, fault);
    exit(1);
}

static struct file tensor(const char *path, const char *name)
{
    struct file t = {.f = fopen(path, "rb"), .path = path};
    uint64_t length;
    if (!t.f) fail(path, "cannot be opened");
    if (fread(&length, 8, 1, t.f) != 1 || length > 1u << 20) fail(path, "no header");
    char *header = calloc(length + 1, 1);
    if (!header || fread(header, length, 1, t.f) != 1) fail(path, "no header");
    const char *at = strstr(header, name);
    const char *shape = at ? strstr(at, "\"shape\":[") : NULL;
    const char *offsets = at ? strstr(at, "\"data_offsets\":[") : NULL;
    if (!shape || !offsets) fail(path, name);
    char *end = (char *)shape + strlen("\"shape\":[") - 1;
    for (size_t d = 0; d < 3 && *end != ']'; d++)
        t.shape[d] = strtoul(end + 1, &end, 10);
    t.begin = 8 + (long)length + strtol(offsets + strlen("\"data_offsets\":["), NULL, 10);
    free(header);
    return t;
}

static void values(const struct file *t, size_t first, size_t n, void *out)
{
    if (fseek(t->f, t->begin + 4 * (long)first, SEEK_SET) || fread(out, 4, n, t->f) != n)
        fail(t->path, "is too short");
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    const struct file labels = tensor(argv[1], "\"labels\""),
                      logits = tensor(argv[2], "\"logits\"");
    const size_t length = labels.shape[1], vocabulary = logits.shape[2];
    if (labels.shape[0] != logits.shape[0] || length != logits.shape[1] || !vocabulary)
        fail(argv[2], "is not of these sequences");
    int32_t *label = malloc(length * sizeof *label);
    float *row = malloc(vocabulary * sizeof *row);
    size_t scored = 0, right = 0;
    if (!label || !row) return 1;
    for (size_t r = 0; r < labels.shape[0]; r++) {
        values(&labels, r * length, length, label);
        for (size_t t = 0; t < length; t++) {
            if (label[t] < 0) continue;
            size_t best = 0;
            values(&logits, (r * length + t) * vocabulary, vocabulary, row);
            for (size_t v = 1; v < vocabulary; v++)
                if (row[v] > row[best]) best = v;
            scored++;
            right += best == (size_t)label[t];
        }
    }
    printf("%zu %zu\n", right, scored);
    free(label);
    free(row);
    return 0;
}
