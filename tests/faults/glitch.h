// A layer that goes wrong when it is told to: a channel mixer of one matrix, after which an
// operation writes a number that is none, in one step. Registered with glitch_register().
#ifndef EMBER_TESTS_FAULTS_GLITCH_H
#define EMBER_TESTS_FAULTS_GLITCH_H

#include <math.h>

#include <ember/layer.h>

#include "ops/elementwise.h"
#include "registry/registry.h"
#include "support/check.h"

enum glitch_kind {
    GLITCH_NONE,
    GLITCH_FORWARD,  // in every pass of the step, on every backend
    GLITCH_KERNEL,   // but not on the reference backend
    GLITCH_ONCE,     // in the first pass of the step alone
    GLITCH_GRADIENT, // in backward
    GLITCH_WEIGHT    // the layer's weight is struck, after it has been used
};

static struct glitch {
    enum glitch_kind kind;
    uint64_t step; // from 0
    float value;
    bool done;
} glitch;

static ember_tensor *glitch_weight;

static inline bool glitch_strikes(const struct em_call *c, enum glitch_kind kind)
{
    return glitch.kind == kind && c->exec->step == glitch.step && c->exec->training;
}

static inline bool glitch_forward_strikes(const struct em_call *c)
{
    if (glitch_strikes(c, GLITCH_ONCE) && !glitch.done) {
        glitch.done = true;
        return true;
    }
    return glitch_strikes(c, GLITCH_FORWARD) ||
           (glitch_strikes(c, GLITCH_KERNEL) && c->exec->backend == EM_CPU);
}

static inline void glitch_forward(const struct em_call *c, float *y, const float *const *x,
                                  size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[0][i];
    if (first == 0 && glitch_forward_strikes(c)) y[0] = glitch.value;
}

static inline void glitch_backward(const struct em_call *c, float *const *d, const bool *set,
                                   const float *dy, const float *const *x, size_t first, size_t n)
{
    (void)x;
    for (size_t i = 0; d[0] && i < n; i++)
        d[0][i] = set[0] ? dy[i] : d[0][i] + dy[i];
    if (d[0] && first == 0 && glitch_strikes(c, GLITCH_GRADIENT)) d[0][0] = glitch.value;
    if (first == 0 && glitch_strikes(c, GLITCH_WEIGHT)) em_f32(glitch_weight)[1] = glitch.value;
}

static inline double glitch_reference(const struct em_call *c, const double *x, size_t index,
                                      double *slope)
{
    slope[0] = 1;
    return index == 0 && glitch_forward_strikes(c) ? (double)glitch.value : x[0];
}

static inline ember_status glitch_build(ember_layer *l, ember_build *b)
{
    const size_t D = ember_build_width(b);
    return ember_param(b, &l->param[0], "weight", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                       (size_t[]){D, D}, 2);
}

static inline ember_status glitch_record(const ember_layer *l, ember_flow *f, ember_tensor *x,
                                         ember_tensor **y)
{
    static const struct em_elementwise frame = {.inputs = 1,
                                                .what = {"x"},
                                                .flops = 1,
                                                .backward_flops = 1,
                                                .forward = glitch_forward,
                                                .backward = glitch_backward,
                                                .reference = glitch_reference};
    static const struct em_op op = {.name = "glitch", EM_ELEMENTWISE(&frame)};
    ember_tensor *h;
    glitch_weight = l->param[0];
    EMBER_TRY(ember_linear(f, x, l->param[0], NULL, NULL, &h));
    struct em_call *c = em_call_new(f, &op, 1);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = h;
    EMBER_TRY(em_record(f, c));
    *y = c->out[0];
    return EMBER_OK;
}

static inline void glitch_register(void)
{
    static const ember_layer_type type = {.name = "glitch",
                                          .kind = EMBER_CHANNEL_MIXER,
                                          .size = sizeof(ember_layer),
                                          .help = "goes wrong when it is told to",
                                          .build = glitch_build,
                                          .forward = glitch_record};
    static const struct em_component component = {.kind = EMBER_CHANNEL_MIXER,
                                                  .name = "glitch",
                                                  .help = "goes wrong when it is told to",
                                                  .size = sizeof(ember_layer),
                                                  .impl = &type};
    CHECK_OK(em_registry_add(&component, 1));
}

#endif
