// Parameters of implicit filters, and how they start.
#include "nn/sequence_mixing/fftconv/implicit_filter.h"

#include <math.h>
#include <stdio.h>

static double linspace(double first, double last, size_t n, size_t i)
{
    return n > 1 ? first + (last - first) * (double)i / (double)(n - 1) : first;
}

// z_i = [t_i, cos(f w_i), -sin(f w_i)], t_i = i / (L - 1), w_i = 2 pi i / L, f from 1e-4 to
// bands - 1.
static void fill_positions(const void *context, ember_random *random, ember_tensor *z)
{
    (void)context, (void)random;
    const double pi = 3.14159265358979323846;
    const size_t L = z->dim[0], bands = (z->dim[1] - 1) / 2;
    for (size_t i = 0; i < L; i++) {
        float *row = (float *)z->data + i * z->dim[1];
        const double w = 2 * pi * (double)i / (double)L;
        row[0] = (float)linspace(0, 1, L, i);
        for (size_t b = 0; b < bands; b++) {
            const double f = linspace(1e-4, (double)bands - 1, bands, b);
            row[1 + b] = (float)cos(f * w);
            row[1 + bands + b] = (float)-sin(f * w);
        }
    }
}

static void fill_times(const void *context, ember_random *random, ember_tensor *t)
{
    (void)context, (void)random;
    for (size_t i = 0; i < t->dim[0]; i++)
        ((float *)t->data)[i] = (float)linspace(0, 1, t->dim[0], i);
}

static void fill_deltas(const void *context, ember_random *random, ember_tensor *deltas)
{
    (void)random;
    const struct em_implicit_filter *f = context;
    const double target = log((double)f->decay_target);
    for (size_t i = 0; i < deltas->dim[0]; i++)
        ((float *)deltas->data)[i] = (float)linspace(
            target / (double)f->slow_decay, target / (double)f->fast_decay, deltas->dim[0], i);
}

static void fill_frequency(const void *context, ember_random *random, ember_tensor *frequency)
{
    (void)random;
    for (size_t i = 0; i < frequency->dim[0]; i++)
        ((float *)frequency->data)[i] = ((const struct em_implicit_filter *)context)->frequency;
}

static void fill_skip(const void *context, ember_random *random, ember_tensor *skip)
{
    (void)context;
    for (size_t i = 0; i < skip->dim[0]; i++)
        ((float *)skip->data)[i] = (float)ember_random_normal(random);
}

typedef void fill_function(const void *context, ember_random *random, ember_tensor *param);

static ember_status declare(struct em_implicit_filter *f, ember_build *b, const char *prefix,
                            const char *name, ember_init init, fill_function *fill,
                            const size_t *dim, unsigned ndim, ember_tensor **param)
{
    char path[64];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    EMBER_TRY(ember_param(b, param, path, init, EMBER_ROLE_CONVOLUTION, dim, ndim));
    // The original trains what stands for positions at 1e-5, beside 6e-4 of the rest.
    const float factor = fill == fill_positions ? 1.0f / 60 : 1;
    ember_param_fill(
        b, *param,
        &(ember_filling){.fill = fill, .context = f, .no_decay = true, .lr_factor = factor});
    return EMBER_OK;
}

ember_status em_implicit_filter_build(struct em_implicit_filter *f, ember_build *b,
                                      const char *prefix)
{
    const size_t L = f->filter_length, E = f->emb_dim, W = f->filter_width, C = f->channels;
    ember_filter_network *n = &f->network;
    if (E % 2 == 0)
        return ember_build_refuse(b, "emb_dim",
                                  "%zu is not odd: a time, and as many cosines as sines", E);
    n->hidden = f->inner_layers + 1;
    n->shift = f->filter_shift;
    n->normalise = f->normalise;
    if (f->skip)
        EMBER_TRY(declare(f, b, prefix, "skip", EMBER_INIT_NORMAL, fill_skip, &C, 1, &n->skip));
    EMBER_TRY(declare(f, b, prefix, "positions",
                      f->train_positions ? EMBER_INIT_NORMAL : EMBER_INIT_BUFFER, fill_positions,
                      (size_t[]){L, E}, 2, &n->z));
    EMBER_TRY(
        declare(f, b, prefix, "times", EMBER_INIT_BUFFER, fill_times, (size_t[]){L, 1}, 2, &n->t));
    for (size_t i = 0; i <= n->hidden; i++) {
        char name[32];
        const size_t rows = i < n->hidden ? W : C, columns = i ? W : E;
        snprintf(name, sizeof name, "layers.%zu.weight", i);
        EMBER_TRY(declare(f, b, prefix, name, EMBER_INIT_NORMAL, NULL, (size_t[]){rows, columns}, 2,
                          &n->weight[i]));
        if (i == n->hidden) break;
        snprintf(name, sizeof name, "layers.%zu.bias", i);
        EMBER_TRY(declare(f, b, prefix, name, EMBER_INIT_ZEROS, NULL, &W, 1, &n->bias[i]));
        if (i == 0)
            EMBER_TRY(declare(f, b, prefix, "frequency",
                              f->train_frequency ? EMBER_INIT_ONES : EMBER_INIT_BUFFER,
                              fill_frequency, &W, 1, &n->frequency));
    }
    return declare(f, b, prefix, "deltas", EMBER_INIT_BUFFER, fill_deltas, &C, 1, &n->deltas);
}
