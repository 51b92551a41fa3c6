// The two halves of the operation cfc: on lanes (cfc.c), and its reference (cfc_reference.c).
#ifndef EM_OPS_CFC_H
#define EM_OPS_CFC_H

#include <math.h>

#include "ops/activation.h"
#include "ops/recurrent.h"

// Inputs of the call: x, the memory's three, then each layer's.
enum { CFC_X, CFC_MEMORY, CFC_LAYERS = CFC_MEMORY + 3 };

struct em_cfc_attr {
    struct em_recurrent_attr base;
    enum em_cfc_mode mode;
    int activation; // ember_cfc_activation
    unsigned layers, backbone;
    float dropout;
    size_t units; // of all layers
};

// A layer's inputs: its backbone's weights and biases, those of its heads (4, pure: 1, and then
// w_tau and A), its mask.
struct em_cfc_layer {
    unsigned backbone, heads, tau, mask; // first of each
    unsigned n_heads;
    size_t I, H, K, in, first; // read, made, the backbone's width, I + H; its units' place in h
    size_t into_heads;         // K, without a backbone `in`
};

static inline const struct em_cfc_attr *em_cfc_attr_of(const struct em_call *c)
{
    return em_attr_const(c, struct em_cfc_attr);
}

static inline unsigned em_cfc_heads_of(const struct em_call *c)
{
    return em_cfc_attr_of(c)->mode == EM_CFC_PURE ? 1 : 4;
}

// Inputs that every layer has.
static inline unsigned em_cfc_layer_inputs(const struct em_cfc_attr *a)
{
    return 2 * a->backbone + (a->mode == EM_CFC_PURE ? 4 : 8) + 1;
}

static inline unsigned em_cfc_layer_at(const struct em_call *c, unsigned l)
{
    return CFC_LAYERS + l * em_cfc_layer_inputs(em_cfc_attr_of(c));
}

static inline struct em_cfc_layer em_cfc_layer_of(const struct em_call *c, unsigned l)
{
    const struct em_cfc_attr *a = em_cfc_attr_of(c);
    struct em_cfc_layer y = {.backbone = em_cfc_layer_at(c, l), .n_heads = em_cfc_heads_of(c)};
    y.heads = y.backbone + 2 * a->backbone;
    y.tau = y.heads + 2;
    y.mask = y.backbone + em_cfc_layer_inputs(a) - 1;
    y.H = c->in[y.heads]->dim[0];
    y.I = c->in[CFC_X]->dim[1];
    for (unsigned i = 0; i < l; i++) {
        y.I = c->in[em_cfc_layer_at(c, i) + 2 * a->backbone]->dim[0];
        y.first += y.I;
    }
    y.in = y.I + y.H;
    y.K = a->backbone ? c->in[y.backbone]->dim[0] : 0;
    y.into_heads = a->backbone ? y.K : y.in;
    return y;
}

static inline struct em_memory em_cfc_memory_of(const struct em_call *c)
{
    return (struct em_memory){CFC_MEMORY, c->in[CFC_X]->dim[1], em_cfc_attr_of(c)->units};
}

static inline bool em_cfc_has_memory(const struct em_call *c)
{
    return c->in[CFC_MEMORY] != NULL;
}

// Of the backbone's layers after the first, in training: 0 or 1 / (1 - p), by a hash of the token
// and unit, so that backward makes it again.
float em_cfc_dropout(const struct em_call *c, unsigned layer, unsigned depth, size_t token,
                     size_t unit);
static inline bool em_cfc_drops(const struct em_call *c, unsigned depth)
{
    return depth > 0 && c->exec->training && em_cfc_attr_of(c)->dropout > 0;
}

size_t em_cfc_reference_work(const struct em_call *c);
void em_cfc_reference(const struct em_reference_step *s);
void em_cfc_reference_back(const struct em_reference_step *s);

#endif
