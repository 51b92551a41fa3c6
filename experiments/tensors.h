// Writing float sequences for `data.tensors`: a safetensors file of F32 and I32 tensors.
#ifndef TENSORS_H
#define TENSORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tensor {
    const char *name, *dtype; // F32 or I32
    size_t shape[4], rank;
    const void *data;
};

static size_t tensor_bytes(const struct tensor *t)
{
    size_t n = 4;
    for (size_t i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

static void write_tensors(const char *path, const struct tensor *tensors, size_t count)
{
    static char header[4096];
    size_t used = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct tensor *t = &tensors[i];
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t->name,
                                 t->dtype);
        for (size_t d = 0; d < t->rank; d++)
            used += (size_t)snprintf(header + used, sizeof header - used, "%s%zu", d ? "," : "",
                                     t->shape[d]);
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "],\"data_offsets\":[%zu,%zu]}", at, at + tensor_bytes(t));
        at += tensor_bytes(t);
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    while (used % 8)
        header[used++] = ' ';
    const uint64_t length = used;
    FILE *f = fopen(path, "wb");
    int good = f && fwrite(&length, 8, 1, f) == 1 && fwrite(header, used, 1, f) == 1;
    for (size_t i = 0; good && i < count; i++)
        good = fwrite(tensors[i].data, tensor_bytes(&tensors[i]), 1, f) == 1;
    if (!f || fclose(f) || !good) {
        perror(path);
        exit(1);
    }
}

#endif
