// Liquid time-constant networks (Hasani et al. 2021, arXiv:2006.04439) with any wiring: x is scaled
// column by column, moves the neurons, and the motor neurons' potentials are scaled.
#include "nn/sequence_mixing/recurrent/recurrent.h"
#include "tensor/tensor.h"

struct ltc {
    ember_layer base; // param: input_w, input_b [D], output_w, output_b [M]
    size_t units, outputs, wiring_seed, ode_unfolds, output_size;
    const char *wiring;
    float epsilon;
    bool implicit_param_constraints, mixed_memory, projection;
    struct em_wiring wires;
    ember_ltc_parameters parameters;
    struct em_readout readout;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct ltc, units, 32, 1, 8192, "neurons, where the wiring does not say it"),
    EMBER_OPT_SIZE(struct ltc, outputs, 0, 0, 8192,
                   "motor neurons, where the wiring does not say it; 0: all"),
    EMBER_OPT_STRING(struct ltc, wiring,
                     "full, random:SPARSITY, auto:UNITS,OUTPUTS[,SPARSITY], ncp:.., or a wiring "
                     "file's text; empty: full"),
    EMBER_OPT_SIZE(struct ltc, wiring_seed, 22222, 0, 1e15, "of a wiring that is drawn"),
    EMBER_OPT_SIZE(struct ltc, ode_unfolds, 6, 1, EMBER_LTC_UNFOLDS_MAX,
                   "steps of the solver a token"),
    EMBER_OPT_FLOAT(struct ltc, epsilon, 1e-8, 0, 1, "added to denominators"),
    EMBER_OPT_BOOL(
        struct ltc, implicit_param_constraints, true,
        "weights, capacities and leaks are positive by softplus; otherwise training sets "
        "negative ones to 0"),
    EMBER_OPT_BOOL(struct ltc, mixed_memory, false, "an LSTM before each step (arXiv:2006.04418)"),
    EM_READOUT_OPTIONS(struct ltc),
    {0},
};

static void fill_potentials(const int8_t *table, ember_tensor *param, bool mask)
{
    for (size_t i = 0; i < ember_tensor_count(param); i++)
        em_f32(param)[i] = mask ? (float)(table[i] != 0) : (float)table[i];
}

static void fill_erev(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    fill_potentials(((const struct ltc *)context)->wires.synapse, param, false);
}

static void fill_mask(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    fill_potentials(((const struct ltc *)context)->wires.synapse, param, true);
}

static void fill_sensory_erev(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    fill_potentials(((const struct ltc *)context)->wires.sensory, param, false);
}

static void fill_sensory_mask(const void *context, ember_random *random, ember_tensor *param)
{
    (void)random;
    fill_potentials(((const struct ltc *)context)->wires.sensory, param, true);
}

static const struct em_range w_range = {0.001, 1}, sigma_range = {3, 8}, mu_range = {0.3, 0.8},
                             vleak_range = {-0.2, 0.2}, cm_range = {0.4, 0.6};

static ember_status ranged(ember_build *b, ember_tensor **param, const char *name,
                           const size_t *dim, unsigned ndim, const struct em_range *range)
{
    return em_filled_param(
        b, param, name, dim, ndim,
        &(ember_filling){.fill = em_fill_range, .context = range, .no_decay = true});
}

// Weights that have to stay positive, by training where not by softplus.
static ember_status positive(ember_build *b, const struct ltc *l, ember_tensor **param,
                             const char *name, const size_t *dim, unsigned ndim,
                             const struct em_range *range)
{
    EMBER_TRY(ranged(b, param, name, dim, ndim, range));
    if (!l->implicit_param_constraints) em_param_keep_positive(b, *param);
    return EMBER_OK;
}

static ember_status build_neurons(struct ltc *l, ember_build *b, size_t I)
{
    ember_ltc_parameters *p = &l->parameters;
    const size_t U = l->wires.units, square[] = {U, U}, sensory[] = {I, U};
    EMBER_TRY(positive(b, l, &p->gleak, "gleak", &U, 1, &w_range));
    EMBER_TRY(ranged(b, &p->vleak, "vleak", &U, 1, &vleak_range));
    EMBER_TRY(positive(b, l, &p->cm, "cm", &U, 1, &cm_range));
    EMBER_TRY(ranged(b, &p->sigma, "sigma", square, 2, &sigma_range));
    EMBER_TRY(ranged(b, &p->mu, "mu", square, 2, &mu_range));
    EMBER_TRY(positive(b, l, &p->w, "w", square, 2, &w_range));
    EMBER_TRY(em_filled_param(b, &p->erev, "erev", square, 2,
                              &(ember_filling){.fill = fill_erev, .context = l, .no_decay = true}));
    EMBER_TRY(ranged(b, &p->sensory.sigma, "sensory_sigma", sensory, 2, &sigma_range));
    EMBER_TRY(ranged(b, &p->sensory.mu, "sensory_mu", sensory, 2, &mu_range));
    EMBER_TRY(positive(b, l, &p->sensory.w, "sensory_w", sensory, 2, &w_range));
    EMBER_TRY(em_filled_param(
        b, &p->sensory.erev, "sensory_erev", sensory, 2,
        &(ember_filling){.fill = fill_sensory_erev, .context = l, .no_decay = true}));
    EMBER_TRY(
        ember_param(b, &p->mask, "sparsity_mask", EMBER_INIT_BUFFER, EMBER_ROLE_OTHER, square, 2));
    ember_param_fill(b, p->mask, &(ember_filling){.fill = fill_mask, .context = l});
    EMBER_TRY(ember_param(b, &p->sensory.mask, "sensory_sparsity_mask", EMBER_INIT_BUFFER,
                          EMBER_ROLE_OTHER, sensory, 2));
    ember_param_fill(b, p->sensory.mask, &(ember_filling){.fill = fill_sensory_mask, .context = l});
    return EMBER_OK;
}

static ember_status build(ember_layer *layer, ember_build *b)
{
    struct ltc *l = (struct ltc *)layer;
    const size_t I = ember_build_width(b);
    EMBER_TRY(em_wiring_of(b, l->wiring, I, l->units, l->outputs, l->wiring_seed, &l->wires));
    const size_t M = l->wires.outputs;
    EMBER_TRY(build_neurons(l, b, I));
    EMBER_TRY(
        ember_param(b, &layer->param[0], "input_w", EMBER_INIT_ONES, EMBER_ROLE_OTHER, &I, 1));
    EMBER_TRY(
        ember_param(b, &layer->param[1], "input_b", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER, &I, 1));
    EMBER_TRY(
        ember_param(b, &layer->param[2], "output_w", EMBER_INIT_ONES, EMBER_ROLE_OTHER, &M, 1));
    EMBER_TRY(
        ember_param(b, &layer->param[3], "output_b", EMBER_INIT_ZEROS, EMBER_ROLE_OTHER, &M, 1));
    if (l->mixed_memory)
        EMBER_TRY(em_memory_params(b, "", I, l->wires.units, &l->parameters.memory));
    return em_readout_build(b, l->projection, M, l->output_size, &l->readout);
}

static ember_status forward(const ember_layer *layer, ember_flow *f, ember_tensor *x,
                            ember_tensor **y)
{
    const struct ltc *l = (const struct ltc *)layer;
    const ember_ltc_options o = {.unfolds = l->ode_unfolds,
                                 .outputs = l->wires.outputs,
                                 .epsilon = l->epsilon,
                                 .implicit_constraints = l->implicit_param_constraints};
    ember_tensor *v;
    // With a memory, the LSTM sees the inputs as they are: so it is in ncps.
    ember_ltc_parameters p = l->parameters;
    p.input_w = layer->param[0];
    p.input_b = layer->param[1];
    EMBER_TRY(ember_ltc(f, x, &p, &o, &v));
    EMBER_TRY(ember_column_affine(f, v, layer->param[2], layer->param[3], &v));
    return em_readout_forward(&l->readout, f, v, y);
}

extern const ember_layer_type em_layer_ltc;
const ember_layer_type em_layer_ltc = {
    .name = "ltc",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct ltc),
    .options = options,
    .help = "liquid time-constant network. Hasani et al. 2021, arXiv:2006.04439",
    .build = build,
    .forward = forward,
};
