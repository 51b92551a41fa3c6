// An implicit filter's options and parameters, for the layers that have one.
#ifndef EM_NN_FFTCONV_IMPLICIT_FILTER_H
#define EM_NN_FFTCONV_IMPLICIT_FILTER_H

#include <ember/ops.h>

struct em_implicit_filter {
    size_t filter_length, filter_width, emb_dim, inner_layers;
    bool train_frequency, train_positions, normalise, skip;
    float frequency, filter_shift, fast_decay, slow_decay, decay_target;
    size_t channels;
    ember_filter_network network;
};

// Options of a layer's struct whose member `filter` this is.
#define EM_FILTER_OPTION(type, kind, field, ...)                                                   \
    {                                                                                              \
#field, EMBER_OPTION_##kind, offsetof(type, filter.field), __VA_ARGS__                     \
    }
#define EM_FILTER_OPTIONS(type)                                                                    \
    EM_FILTER_OPTION(type, SIZE, filter_length, 1024, 1, 1 << 24, 0, 0,                            \
                     "lags that the filter has; positions count from 0 to this - 1"),              \
        EM_FILTER_OPTION(type, SIZE, filter_width, 64, 1, 4096, 0, 0,                              \
                         "width of the filter's network"),                                         \
        EM_FILTER_OPTION(type, SIZE, emb_dim, 3, 3, 1025, 0, 0,                                    \
                         "what stands for a position: its time, and cosines and sines; odd"),      \
        EM_FILTER_OPTION(type, SIZE, inner_layers, 2, 0, EMBER_FILTER_HIDDEN - 1, 0, 0,            \
                         "layers of sines after the first"),                                       \
        EM_FILTER_OPTION(type, FLOAT, frequency, 1, 0, 1e4, 0, 0, "of all sines, at the start"),   \
        EM_FILTER_OPTION(type, BOOL, train_frequency, 1, 0, 1, 0, 0,                               \
                         "the frequencies are a parameter, one for each unit"),                    \
        EM_FILTER_OPTION(type, BOOL, train_positions, 0, 0, 1, 0, 0,                               \
                         "what stands for the positions is a parameter"),                          \
        EM_FILTER_OPTION(type, FLOAT, filter_shift, 0, -10, 10, 0, 0,                              \
                         "added to the decaying window"),                                          \
        EM_FILTER_OPTION(type, FLOAT, fast_decay, 0.3, 1e-3, 1e3, 0, 0,                            \
                         "share of the filter at which the fastest channel has decayed"),          \
        EM_FILTER_OPTION(type, FLOAT, slow_decay, 1.5, 1e-3, 1e3, 0, 0, "and the slowest one"),    \
        EM_FILTER_OPTION(type, FLOAT, decay_target, 0.01, 1e-6, 0.99, 0, 0,                        \
                         "what a window has decayed to by then"),                                  \
        EM_FILTER_OPTION(type, BOOL, normalise, 0, 0, 1, 0, 0,                                     \
                         "each row of the filter is divided by the sum of its magnitudes"),        \
        EM_FILTER_OPTION(type, BOOL, skip, 1, 0, 1, 0, 0,                                          \
                         "a channel's input times a factor is added to its convolution")

// Declares the parameters of a filter of f->channels channels, `prefix` before each name. `f` is
// part of the layer.
ember_status em_implicit_filter_build(struct em_implicit_filter *f, ember_build *b,
                                      const char *prefix) EMBER_CHECKED;

#endif
