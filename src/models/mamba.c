// Mamba as transformers writes it: one mixer and its norm in every block.
#include "models/mamba.h"

static const struct em_name names[] = {
    EM_MAMBA_NAMES,
    {"blocks.#.sequence.x_proj.weight", "backbone.layers.#.mixer.x_proj.weight", false},
    {"blocks.#.sequence.dt_proj.weight", "backbone.layers.#.mixer.dt_proj.weight", false},
    {"blocks.#.sequence.dt_proj.bias", "backbone.layers.#.mixer.dt_proj.bias", false},
    {0},
};

// use_mambapy, use_associative_scan and residual_in_fp32 change nothing here: residuals are f32.
static const char *const keys[] = {EM_MAMBA_KEYS, "time_step_scale",      "time_step_init_scheme",
                                   "use_mambapy", "use_associative_scan", NULL};

static const struct em_hf_shape preset = {.width = 768,
                                          .vocabulary = 50280,
                                          .layers = 32,
                                          .heads = 1,
                                          .context = 1u << 20,
                                          .head_dim = 1,
                                          .norm_eps = 1e-5,
                                          .norm_key = "layer_norm_epsilon",
                                          .tied = true,
                                          .padding = -2};

struct layers {
    size_t states, kernel, inner, rank, depth;
    bool bias, conv_bias;
    double dt_min, dt_max, dt_floor, dt_scale;
    const char *dt_init;
};

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    (void)s, (void)i;
    const struct layers *l = own;
    *sequence = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "type", "mamba", "d_state",
                          (json_int_t)l->states, "d_conv", (json_int_t)l->kernel, "d_inner",
                          (json_int_t)l->inner, "dt_rank", (json_int_t)l->rank, "depth",
                          (json_int_t)l->depth, "bias", l->bias, "conv_bias", l->conv_bias);
    *channel = json_null();
    em_form_set(r, *sequence, "dt_min", json_real(l->dt_min));
    em_form_set(r, *sequence, "dt_max", json_real(l->dt_max));
    em_form_set(r, *sequence, "dt_init_floor", json_real(l->dt_floor));
    em_form_set(r, *sequence, "dt_scale", json_real(l->dt_scale));
    em_form_set(r, *sequence, "dt_init", json_string(l->dt_init));
    return r->status;
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    const struct em_hf_shape s = em_hf_read_shape(&r, &preset);
    const char *rank = json_string_value(json_object_get(config, "time_step_rank"));
    const bool automatic = rank && strcmp(rank, "auto") == 0;
    const size_t expand = em_read_size(&r, "expand", 2, 1, 64);
    const struct layers layers = {
        .states = em_read_size(&r, "state_size", 16, 1, 256),
        .kernel = em_read_size(&r, "conv_kernel", 4, 1, 4096),
        .inner = em_read_size(&r, "intermediate_size", expand * s.width, 1, 1u << 20),
        .rank = automatic ? (s.width + 15) / 16
                          : em_read_size(&r, "time_step_rank", (s.width + 15) / 16, 1, 1u << 20),
        .depth = em_read_bool(&r, "rescale_prenorm_residual", false) ? s.layers : 0,
        .bias = em_read_bool(&r, "use_bias", false),
        .conv_bias = em_read_bool(&r, "use_conv_bias", true),
        .dt_min = em_read_double(&r, "time_step_min", 0.001, 1e-9, 1e3),
        .dt_max = em_read_double(&r, "time_step_max", 0.1, 1e-9, 1e3),
        .dt_floor = em_read_double(&r, "time_step_floor", 1e-4, 0, 1e3),
        .dt_scale = em_read_double(&r, "time_step_scale", 1, 0, 1e3),
        .dt_init = em_read_string(&r, "time_step_init_scheme", "random"),
    };
    EM_TRY(em_mamba_activation(&r, "mamba"));
    return em_hf_layers(&r, &s, "pre_norm", layer, &layers, form);
}

// What transformers and llama.cpp have no defaults for, or others.
static ember_status complete(json_t *config, const json_t *form)
{
    struct em_reader r = {config, "config.json", EMBER_OK};
    const json_t *block = json_array_get(json_object_get(form, "blocks"), 0);
    const json_t *mixer = json_object_get(block, "sequence");
    static const char *const key[][2] = {{"intermediate_size", "d_inner"},
                                         {"time_step_rank", "dt_rank"},
                                         {"state_size", "d_state"},
                                         {"conv_kernel", "d_conv"}};
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        em_form_set(&r, config, key[i][0], json_deep_copy(json_object_get(mixer, key[i][1])));
    const size_t width = em_read_size(&r, "hidden_size", preset.width, 1, 1u << 20);
    const json_int_t inner = json_integer_value(json_object_get(mixer, "d_inner"));
    // transformers takes the product, whatever intermediate_size says.
    if (inner % (json_int_t)width == 0)
        em_form_set(&r, config, "expand", json_integer(inner / (json_int_t)width));
    em_form_set(
        &r, config, "vocab_size",
        json_integer((json_int_t)em_read_size(&r, "vocab_size", preset.vocabulary, 1, 1u << 24)));
    em_form_set(&r, config, "layer_norm_epsilon",
                json_real(em_read_double(&r, "layer_norm_epsilon", preset.norm_eps, 0, 1)));
    em_form_set(&r, config, "tie_word_embeddings",
                json_boolean(em_read_bool(&r, "tie_word_embeddings", preset.tied)));
    return r.status;
}

extern const struct em_family em_family_mamba;
const struct em_family em_family_mamba = {
    .name = "mamba",
    .help = "Mamba: selective state spaces alone",
    .architecture = "MambaForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
    .complete = complete,
};
