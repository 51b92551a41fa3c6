// The parameters of CfC cells.
#include <stdio.h>

#include "nn/sequence_mixing/recurrent/recurrent.h"

struct maker {
    ember_build *build;
    const char *prefix; // of the cell
    char name[80];
};

// "prefix" "layer_N." "what", the middle in wired cells.
static const char *named(struct maker *m, bool wired, size_t layer, const char *what)
{
    if (wired)
        snprintf(m->name, sizeof m->name, "%slayer_%zu.%s", m->prefix, layer, what);
    else
        snprintf(m->name, sizeof m->name, "%s%s", m->prefix, what);
    return m->name;
}

// Where torch's sequence of modules has layer i: an activation stands behind each, and a dropout
// behind all but the first.
static size_t module_of(size_t i, bool dropout)
{
    return dropout && i ? 3 * i - 1 : 2 * i;
}

static ember_status make_backbone(struct maker *m, const struct em_cfc_options *o, size_t in,
                                  ember_cfc_layer *l)
{
    for (size_t i = 0; i < o->backbone_layers; i++) {
        char what[40];
        snprintf(what, sizeof what, "backbone.%zu", module_of(i, o->backbone_dropout > 0));
        EMBER_TRY(em_product_params(m->build, named(m, false, 0, what), o->backbone_units,
                                    i ? o->backbone_units : in, true, &l->backbone[i].weight,
                                    &l->backbone[i].bias));
    }
    return EMBER_OK;
}

static ember_status make_heads(struct maker *m, const struct em_cfc_options *o, bool wired,
                               size_t index, size_t H, size_t K, ember_cfc_layer *l)
{
    const ember_filling xavier = {.fill = em_fill_xavier, .no_decay = true};
    EMBER_TRY(em_product_params(m->build, named(m, wired, index, "ff1"), H, K, true, &l->ff1.weight,
                                &l->ff1.bias));
    if (o->mode == EMBER_CFC_PURE) {
        EMBER_TRY(em_filled_param(m->build, &l->w_tau, named(m, wired, index, "w_tau"),
                                  (size_t[]){1, H}, 2, &xavier));
        return em_filled_param(m->build, &l->a, named(m, wired, index, "A"), (size_t[]){1, H}, 2,
                               &xavier);
    }
    EMBER_TRY(em_product_params(m->build, named(m, wired, index, "ff2"), H, K, true, &l->ff2.weight,
                                &l->ff2.bias));
    EMBER_TRY(em_product_params(m->build, named(m, wired, index, "time_a"), H, K, true,
                                &l->time_a.weight, &l->time_a.bias));
    return em_product_params(m->build, named(m, wired, index, "time_b"), H, K, true,
                             &l->time_b.weight, &l->time_b.bias);
}

// What a mask starts from: a layer of the wiring.
struct mask_source {
    const struct em_wiring *wiring;
    size_t layer;
};

// [H, I + H]: synapses from the layer before, and all among itself.
static void fill_mask(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    const struct mask_source *s = context;
    const struct em_wiring *w = s->wiring;
    const size_t l = s->layer, H = param->dim[0], in = param->dim[1], I = in - H;
    const size_t from = l ? em_wiring_first(w, l - 1) : 0, to = em_wiring_first(w, l);
    const int8_t *table = l ? w->synapse : w->sensory;
    float *mask = param->data;
    for (size_t i = 0; i < H; i++)
        for (size_t k = 0; k < in; k++)
            mask[i * in + k] = k >= I || table[(from + k) * w->units + to + i] ? 1 : 0;
}

static ember_status make_mask(struct maker *m, const struct em_wiring *wiring, size_t index,
                              size_t I, ember_cfc_layer *l)
{
    const size_t H = wiring->layer[index];
    struct em_wiring *kept = em_arena_alloc(m->build->arena, sizeof *kept);
    struct mask_source *source = em_arena_alloc(m->build->arena, sizeof *source);
    if (!kept || !source) return EMBER_E_NOMEM;
    *kept = *wiring;
    *source = (struct mask_source){kept, index};
    EMBER_TRY(ember_param(m->build, &l->mask, named(m, true, index, "sparsity_mask"),
                          EMBER_INIT_BUFFER, EMBER_ROLE_OTHER, (size_t[]){H, I + H}, 2));
    ember_param_fill(m->build, l->mask, &(ember_filling){.fill = fill_mask, .context = source});
    return EMBER_OK;
}

ember_status em_cfc_cell_build(ember_build *b, const char *prefix, size_t inputs, size_t units,
                               const struct em_wiring *wiring, const struct em_cfc_options *o,
                               struct em_cfc_cell *cell)
{
    struct maker m = {.build = b, .prefix = prefix};
    size_t I = inputs, all = 0;
    cell->layers = wiring ? wiring->layers : 1;
    for (size_t i = 0; i < cell->layers; i++) {
        ember_cfc_layer *l = &cell->layer[i];
        const size_t H = wiring ? wiring->layer[i] : units;
        if (wiring) EMBER_TRY(make_mask(&m, wiring, i, I, l));
        if (!wiring) EMBER_TRY(make_backbone(&m, o, I + H, l));
        EMBER_TRY(make_heads(&m, o, wiring, i, H,
                             !wiring && o->backbone_layers ? o->backbone_units : I + H, l));
        all += H;
        I = H;
    }
    cell->outputs = I;
    cell->options = (ember_cfc_options){.mode = (ember_cfc_mode)o->mode,
                                        .activation = (ember_cfc_activation)o->activation,
                                        .backbone_layers = wiring ? 0 : o->backbone_layers,
                                        .dropout = o->backbone_dropout};
    if (!o->mixed_memory) return EMBER_OK;
    return em_memory_params(b, prefix, inputs, all, &cell->options.memory);
}
