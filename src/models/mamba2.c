// Mamba-2 as transformers writes it: one mixer and its norm in every block.
#include "models/mamba.h"

static const struct em_name names[] = {
    EM_MAMBA_NAMES,
    {"blocks.#.sequence.dt_bias", "backbone.layers.#.mixer.dt_bias", false},
    {"blocks.#.sequence.norm.weight", "backbone.layers.#.mixer.norm.weight", false},
    {0},
};

static const char *const keys[] = {EM_MAMBA_KEYS, "n_groups", "num_heads", "time_step_limit",
                                   "chunk_size",  "rms_norm", NULL};

static const struct em_hf_shape preset = {.width = 4096,
                                          .vocabulary = 32768,
                                          .layers = 64,
                                          .heads = 1,
                                          .context = 1u << 20,
                                          .head_dim = 64,
                                          .norm_eps = 1e-5,
                                          .norm_key = "layer_norm_epsilon",
                                          .padding = -2};

struct layers {
    size_t states, kernel, heads, head_dim, groups, depth;
    bool bias, conv_bias;
    double dt_min, dt_max, dt_floor, limit[2];
};

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    (void)i;
    const struct layers *l = own;
    *sequence = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "type", "mamba2",
                          "d_state", (json_int_t)l->states, "d_conv", (json_int_t)l->kernel,
                          "d_inner", (json_int_t)(l->heads * l->head_dim), "head_dim",
                          (json_int_t)l->head_dim, "groups", (json_int_t)l->groups, "depth",
                          (json_int_t)l->depth, "bias", l->bias, "conv_bias", l->conv_bias);
    *channel = json_null();
    em_form_set(r, *sequence, "dt_min", json_real(l->dt_min));
    em_form_set(r, *sequence, "dt_max", json_real(l->dt_max));
    em_form_set(r, *sequence, "dt_init_floor", json_real(l->dt_floor));
    em_form_set(r, *sequence, "dt_limit_min", json_real(l->limit[0]));
    em_form_set(r, *sequence, "dt_limit_max", json_real(l->limit[1]));
    em_form_set(r, *sequence, "norm_eps", json_real(s->norm_eps));
    return r->status;
}

// No limit as transformers writes it (an object, or the bare word Infinity, which is a string
// here), or as a number that no step reaches.
static bool is_no_limit(const json_t *v)
{
    return json_is_object(v) ||
           (json_is_string(v) && strcmp(json_string_value(v), "Infinity") == 0) ||
           (json_is_number(v) && json_number_value(v) >= 1e9);
}

static ember_status read_limits(const struct em_reader *r, double *limit)
{
    const json_t *v = json_object_get(r->config, "time_step_limit");
    const json_t *low = json_array_get(v, 0), *high = json_array_get(v, 1);
    char found[96];
    limit[0] = limit[1] = 0;
    if (!v || json_is_null(v)) return EMBER_OK;
    if (json_array_size(v) != 2 || !json_is_number(low) ||
        !(json_is_number(high) || is_no_limit(high)))
        return em_fail(EMBER_E_CONFIG, "%s: time_step_limit has to be two numbers, found %s",
                       r->where, em_json_text(v, found, sizeof found));
    limit[0] = json_number_value(low);
    if (!is_no_limit(high)) limit[1] = json_number_value(high);
    if (limit[0] < 0 || (!is_no_limit(high) && limit[1] <= 0))
        return em_fail(EMBER_E_CONFIG, "%s: time_step_limit has to be above 0, found %s", r->where,
                       em_json_text(v, found, sizeof found));
    return EMBER_OK;
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    struct em_hf_shape s = em_hf_read_shape(&r, &preset);
    struct layers layers = {
        .states = em_read_size(&r, "state_size", 128, 1, 4096),
        .kernel = em_read_size(&r, "conv_kernel", 4, 1, 4096),
        .heads = em_read_size(&r, "num_heads", 128, 1, 1u << 16),
        .head_dim = em_read_size(&r, "head_dim", 64, 1, 1u << 16),
        .groups = em_read_size(&r, "n_groups", 8, 1, 4096),
        .depth = em_read_bool(&r, "rescale_prenorm_residual", false) ? s.layers : 0,
        .bias = em_read_bool(&r, "use_bias", false),
        .conv_bias = em_read_bool(&r, "use_conv_bias", true),
        .dt_min = em_read_double(&r, "time_step_min", 0.001, 1e-9, 1e3),
        .dt_max = em_read_double(&r, "time_step_max", 0.1, 1e-9, 1e3),
        .dt_floor = em_read_double(&r, "time_step_floor", 1e-4, 0, 1e3),
    };
    const size_t expand = em_read_size(&r, "expand", 2, 1, 64);
    EM_TRY(r.status);
    EM_TRY(read_limits(&r, layers.limit));
    if (s.width * expand != layers.heads * layers.head_dim)
        return em_fail(EMBER_E_CONFIG,
                       "%s: hidden_size * expand is %zu * %zu, num_heads * head_dim is %zu * %zu; "
                       "the products have to be equal",
                       where, s.width, expand, layers.heads, layers.head_dim);
    EM_TRY(em_mamba_activation(&r, "mamba2"));
    return em_hf_layers(&r, &s, "pre_norm", layer, &layers, form);
}

extern const struct em_family em_family_mamba2;
const struct em_family em_family_mamba2 = {
    .name = "mamba2",
    .help = "Mamba-2: state space duality alone",
    .architecture = "Mamba2ForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
};
