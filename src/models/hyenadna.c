// HyenaDNA: Hyena and an MLP in every block, over single nucleotides. Nguyen et al. 2023,
// arXiv:2306.15794. Names are those of the published Hugging Face folders; the first releases'
// lack the "hyena." in front.
#include <string.h>

#include <ember/ops.h>

#include "models/family.h"

#define BLOCK "hyena.backbone.layers.#."
#define FILTER BLOCK "mixer.filter_fn."

static const struct em_name names[] = {
    {"embedding.weight", "hyena.backbone.embeddings.word_embeddings.weight", EM_AS_IT_IS},
    {"final_norm.weight", "hyena.backbone.ln_f.weight", EM_AS_IT_IS},
    {"final_norm.bias", "hyena.backbone.ln_f.bias", EM_AS_IT_IS},
    {"head.weight", "lm_head.weight", EM_AS_IT_IS},
    {"blocks.#.sequence_norm.weight", BLOCK "norm1.weight", EM_AS_IT_IS},
    {"blocks.#.sequence_norm.bias", BLOCK "norm1.bias", EM_AS_IT_IS},
    {"blocks.#.channel_norm.weight", BLOCK "norm2.weight", EM_AS_IT_IS},
    {"blocks.#.channel_norm.bias", BLOCK "norm2.bias", EM_AS_IT_IS},
    {"blocks.#.channel.up.weight", BLOCK "mlp.fc1.weight", EM_AS_IT_IS},
    {"blocks.#.channel.up.bias", BLOCK "mlp.fc1.bias", EM_AS_IT_IS},
    {"blocks.#.channel.down.weight", BLOCK "mlp.fc2.weight", EM_AS_IT_IS},
    {"blocks.#.channel.down.bias", BLOCK "mlp.fc2.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.in_proj.weight", BLOCK "mixer.in_proj.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.in_proj.bias", BLOCK "mixer.in_proj.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.out_proj.weight", BLOCK "mixer.out_proj.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.out_proj.bias", BLOCK "mixer.out_proj.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.short_conv.weight", BLOCK "mixer.short_filter.weight", EM_DEPTHWISE},
    {"blocks.#.sequence.short_conv.bias", BLOCK "mixer.short_filter.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.skip", FILTER "bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.positions", FILTER "pos_emb.z", EM_ONE_IN_FRONT},
    {"blocks.#.sequence.filter.times", FILTER "pos_emb.t", EM_ONE_IN_FRONT},
    {"blocks.#.sequence.filter.frequency", FILTER "implicit_filter.1.freq", EM_ONE_IN_FRONT},
    {"blocks.#.sequence.filter.layers.0.weight", FILTER "implicit_filter.0.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.0.bias", FILTER "implicit_filter.0.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.1.weight", FILTER "implicit_filter.2.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.1.bias", FILTER "implicit_filter.2.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.2.weight", FILTER "implicit_filter.4.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.2.bias", FILTER "implicit_filter.4.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.3.weight", FILTER "implicit_filter.6.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.3.bias", FILTER "implicit_filter.6.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.4.weight", FILTER "implicit_filter.8.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.4.bias", FILTER "implicit_filter.8.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.5.weight", FILTER "implicit_filter.10.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.5.bias", FILTER "implicit_filter.10.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.6.weight", FILTER "implicit_filter.12.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.6.bias", FILTER "implicit_filter.12.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.7.weight", FILTER "implicit_filter.14.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.7.bias", FILTER "implicit_filter.14.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.8.weight", FILTER "implicit_filter.16.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.8.bias", FILTER "implicit_filter.16.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.9.weight", FILTER "implicit_filter.18.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.9.bias", FILTER "implicit_filter.18.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.10.weight", FILTER "implicit_filter.20.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.10.bias", FILTER "implicit_filter.20.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.11.weight", FILTER "implicit_filter.22.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.11.bias", FILTER "implicit_filter.22.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.12.weight", FILTER "implicit_filter.24.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.12.bias", FILTER "implicit_filter.24.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.13.weight", FILTER "implicit_filter.26.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.13.bias", FILTER "implicit_filter.26.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.14.weight", FILTER "implicit_filter.28.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.14.bias", FILTER "implicit_filter.28.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.15.weight", FILTER "implicit_filter.30.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.15.bias", FILTER "implicit_filter.30.bias", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.layers.16.weight", FILTER "implicit_filter.32.weight", EM_AS_IT_IS},
    {"blocks.#.sequence.filter.deltas", FILTER "modulation.deltas", EM_TWO_IN_FRONT},
    {0},
};

// All sines of a filter share their frequencies, which files may hold once for each, or under any
// of these names.
static const struct em_name copies[] = {
    {FILTER "implicit_filter.@.freq", FILTER "implicit_filter.1.freq", EM_AS_IT_IS},
    {0},
};

// A filter has a sine behind each linear layer but the last, at 1, 3, 5, ...; the first is no copy.
// A frequency that is not trained is no parameter there, so that its files have none.
static size_t copy_number(const json_t *form, size_t block, size_t i)
{
    const json_t *hyena =
        json_object_get(json_array_get(json_object_get(form, "blocks"), block), "sequence");
    const size_t inner = (size_t)json_integer_value(json_object_get(hyena, "inner_layers"));
    return i < inner && json_is_true(json_object_get(hyena, "train_frequency")) ? 2 * i + 3 : 0;
}

enum { MOST_INNER = EMBER_FILTER_HIDDEN - 1, MOST_ORDER = 256 };

static const char *const keys[] = {"architectures",
                                   "model_type",
                                   "transformers_version",
                                   "torch_dtype",
                                   "dtype",
                                   "use_cache",
                                   "bos_token_id",
                                   "eos_token_id",
                                   "pad_token_id",
                                   "vocab_size",
                                   "initializer_range",
                                   "tie_word_embeddings",
                                   "return_dict",
                                   "output_hidden_states",
                                   "output_attentions",
                                   "_name_or_path",
                                   "auto_map",
                                   "problem_type",
                                   "id2label",
                                   "label2id",
                                   "ember",
                                   "d_model",
                                   "d_inner",
                                   "n_layer",
                                   "max_seq_len",
                                   "emb_dim",
                                   "filter_order",
                                   "num_inner_mlps",
                                   "hyena_order",
                                   "short_filter_order",
                                   "use_bias",
                                   "train_freq",
                                   "activation_freq",
                                   "pad_vocab_size_multiple",
                                   "layer_norm_epsilon",
                                   "embed_dropout",
                                   "resid_dropout",
                                   "hyena_dropout",
                                   "hyena_filter_dropout",
                                   "filter_shift",
                                   "num_labels",
                                   "pooling_mode",
                                   NULL};

static void set_size(struct em_reader *r, json_t *object, const char *key, size_t value)
{
    em_form_set(r, object, key, json_integer((json_int_t)value));
}

static json_t *norm_of(double eps)
{
    return json_pack("{s:s, s:f}", "type", "layernorm", "eps", eps);
}

// The filter's dropout is left out: the original has none either, whatever its config says.
static json_t *mixer_of(struct em_reader *r, size_t layers)
{
    json_t *hyena = json_pack("{s:s}", "type", "hyena");
    set_size(r, hyena, "order", em_read_size(r, "hyena_order", 2, 2, MOST_ORDER));
    set_size(r, hyena, "filter_length", em_read_size(r, "max_seq_len", 1024, 1, 1u << 23) + 2);
    set_size(r, hyena, "filter_width", em_read_size(r, "filter_order", 64, 1, 4096));
    set_size(r, hyena, "emb_dim", em_read_size(r, "emb_dim", 3, 3, 1025));
    set_size(r, hyena, "inner_layers", em_read_size(r, "num_inner_mlps", 2, 0, MOST_INNER));
    set_size(r, hyena, "short_width", em_read_size(r, "short_filter_order", 3, 1, 4096));
    set_size(r, hyena, "residual_blocks", layers);
    em_form_set(r, hyena, "frequency", json_real(em_read_double(r, "activation_freq", 1, 0, 1e4)));
    em_form_set(r, hyena, "filter_shift",
                json_real(em_read_double(r, "filter_shift", 0.05, -10, 10)));
    em_form_set(r, hyena, "dropout", json_real(em_read_double(r, "hyena_dropout", 0, 0, 0.999)));
    em_form_set(r, hyena, "train_frequency", json_boolean(em_read_bool(r, "train_freq", true)));
    em_form_set(r, hyena, "train_positions", json_true());
    em_form_set(r, hyena, "skip", json_boolean(em_read_bool(r, "use_bias", true)));
    return hyena;
}

static json_t *block_of(struct em_reader *r, size_t width, size_t layers, double eps)
{
    json_t *block = json_pack("{s:s}", "type", "pre_norm"),
           *mlp = json_pack("{s:s, s:s, s:b}", "type", "mlp", "activation", "gelu_tanh", "bias", 1);
    set_size(r, mlp, "hidden", em_read_size(r, "d_inner", 4 * width, 1, 1u << 20));
    set_size(r, mlp, "residual_blocks", layers);
    em_form_set(r, block, "norm", norm_of(eps));
    em_form_set(r, block, "dropout", json_real(em_read_double(r, "resid_dropout", 0, 0, 0.999)));
    em_form_set(r, block, "sequence", mixer_of(r, layers));
    em_form_set(r, block, "channel", mlp);
    return block;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), e = strlen(end);
    return n >= e && strcmp(text + n - e, end) == 0;
}

// The published classes: a language model; one that gives a sequence labels (or, with one label, a
// number); and the blocks alone, whose rows are embeddings. The original's decoder pools in four
// ways, that of the published folders takes the last token.
static void set_outputs(struct em_reader *r, const struct em_weights *weights, json_t *form)
{
    static const char *const modes[][2] = {
        {"last", "last"}, {"first", "first"}, {"pool", "mean"}, {"sum", "sum"}};
    const char *class =
        json_string_value(json_array_get(json_object_get(r->config, "architectures"), 0));
    const bool labels = class && ends_with(class, "ForSequenceClassification"),
               rows = class && strcmp(class, "HyenaDNAModel") == 0;
    const char *pool = NULL, *mode = em_read_string(r, "pooling_mode", labels ? "last" : NULL);
    if (!labels && !rows) return;
    for (size_t i = 0; mode && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(mode, modes[i][0]) == 0) pool = modes[i][1];
    if (mode && !pool && r->status == EMBER_OK)
        r->status = em_fail(EMBER_E_CONFIG,
                            "%s: pooling_mode has to be last, first, pool (the mean) or sum, not "
                            "\"%.40s\"",
                            r->where, mode);
    em_form_set(r, form, "language_model", json_false());
    em_form_set(r, form, "tie_word_embeddings", json_false());
    if (pool) em_form_set(r, form, "pool", json_string(pool));
    if (!labels) return;
    const size_t named = json_object_size(json_object_get(r->config, "id2label"));
    set_size(r, form, "output_size", em_read_size(r, "num_labels", named ? named : 2, 1, 1 << 20));
    const bool bias = weights && em_weights_find(weights, "score.bias");
    em_form_set(r, form, "head_bias", json_boolean(bias));
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    const size_t width = em_read_size(&r, "d_model", 256, 1, 1u << 18),
                 layers = em_read_size(&r, "n_layer", 12, 1, 4096),
                 multiple = em_read_size(&r, "pad_vocab_size_multiple", 8, 1, 1u << 16),
                 tokens = em_read_size(&r, "vocab_size", 12, 1, 1u << 23);
    const double eps = em_read_double(&r, "layer_norm_epsilon", 1e-5, 0, 1);
    const bool tied = em_read_bool(&r, "tie_word_embeddings", true);
    json_t *result =
        em_form_new(&r, width, (tokens + multiple - 1) / multiple * multiple, tied, eps, -1);
    set_outputs(&r, weights, result);
    set_size(&r, result, "max_position_embeddings",
             em_read_size(&r, "max_seq_len", 1024, 1, 1u << 23));
    em_form_set(&r, result, "final_norm", norm_of(eps));
    em_form_set(&r, result, "embedding_dropout",
                json_real(em_read_double(&r, "embed_dropout", 0.1, 0, 0.999)));
    for (size_t i = 0; i < layers && r.status == EMBER_OK; i++)
        em_form_add_block(&r, result, block_of(&r, width, layers, eps));
    if (r.status != EMBER_OK) {
        json_decref(result);
        return r.status;
    }
    *form = result;
    return EMBER_OK;
}

extern const struct em_family em_family_hyenadna;
const struct em_family em_family_hyenadna = {
    .name = "hyenadna",
    .help = "HyenaDNA: long convolutions over single nucleotides",
    .architecture = "HyenaDNAForCausalLM",
    .names = names,
    .prefix = "hyena.",
    .copies = copies,
    .copy_number = copy_number,
    .keys = keys,
    .translate = translate,
};
