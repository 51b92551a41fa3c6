// ember plan: what training and running a model take.
#include <ember/describe.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/describe.h"
#include "api/library.h"
#include "base/alloc.h"
#include "base/io.h"
#include "data/dataset.h"
#include "formats/hash.h"
#include "infer/engine.h"
#include "models/model.h"
#include "text/tokenizer.h"
#include "train/parameters.h"
#include "train/presets.h"
#include "train/recipe.h"
#include "train/step.h"

// What is resident of the program itself and its libraries, once they have run. Measured, and fixed
// so that a plan is the same every time.
enum { PROGRAM = 3 << 20 };

struct plan {
    const char *subject;
    const ember_plan_options *options;
    struct em_runtime runtime;
    struct em_recipe recipe; // with json NULL: there is none
    const char *folder;      // where weights and tokenizer are; NULL: none
    json_t *config;
    const char *name; // of the config, in messages
    struct em_train_settings train;
    const struct em_optimizer *optimizer;
};

// ---- what the subject is ----

static bool names_data(const json_t *recipe)
{
    const json_t *data = json_object_get(recipe, "data");
    return json_object_get(data, "sources") || json_object_get(data, "ids") ||
           json_object_get(data, "tensors");
}

// A recipe is read as training reads it; data it does not name are not needed here.
static ember_status open_recipe(struct plan *p, const json_t *json, const char *file,
                                const char *preset)
{
    static const char *const any[] = {"."};
    const struct em_recipe_request request = {
        .file = file, .preset = preset, .data = any, .data_count = names_data(json) ? 0 : 1};
    EM_TRY(em_recipe_open(&request, &p->recipe));
    p->train = p->recipe.train;
    p->optimizer = p->recipe.optimizer;
    p->name = p->recipe.name;
    p->folder = p->recipe.model_folder;
    if (p->folder) return em_model_read_config(p->folder, &p->config);
    p->config = json_deep_copy(p->recipe.model);
    return p->config ? EMBER_OK : em_fail(EMBER_E_NOMEM, "%s: out of memory", p->name);
}

static ember_status default_training(struct plan *p)
{
    const struct em_component *adamw;
    EM_TRY(em_registry_need(EMBER_OPTIMIZER, "adamw", p->subject, &adamw));
    p->optimizer = adamw->impl;
    return em_options_read(em_train_settings_table, NULL, p->subject, NULL, &p->train);
}

static ember_status unknown_subject(const char *subject)
{
    char list[256] = "";
    for (const struct em_preset *s = em_presets; s->name; s++)
        if (strlen(list) + strlen(s->name) + 3 < sizeof list) {
            strcat(list, *list ? ", " : "");
            strcat(list, s->name);
        }
    return em_fail(EMBER_E_CONFIG, "%s: no such file or folder, and no preset of that name (%s)",
                   subject, list);
}

static ember_status open_subject(struct plan *p)
{
    EM_TRY(em_api_refuse_gguf(p->subject));
    if (!em_path_exists(p->subject)) {
        json_t *preset;
        if (!em_preset_find(p->subject)) return unknown_subject(p->subject);
        EM_TRY(em_preset_read(p->subject, &preset));
        const ember_status status = open_recipe(p, preset, NULL, p->subject);
        json_decref(preset);
        return status;
    }
    json_t *json;
    EM_TRY(em_model_read_config(p->subject, &json));
    if (!json_object_get(json, "model_type") && json_object_get(json, "model")) {
        const ember_status status = open_recipe(p, json, p->subject, NULL);
        json_decref(json);
        return status;
    }
    p->config = json;
    p->name = p->subject;
    if (em_path_is_directory(p->subject)) p->folder = p->subject;
    return default_training(p);
}

// A model of its own for each of training and inference: packed weights belong to a model. Weights,
// where there are any, are only looked at for shapes that a config may get wrong.
static ember_status create_models(const struct plan *p, struct em_model **training,
                                  struct em_model **inference)
{
    struct em_weights *weights = NULL;
    bool single, sharded;
    EM_TRY(em_folder_probe(p->folder, "model.safetensors", &single));
    EM_TRY(em_folder_probe(p->folder, "model.safetensors.index.json", &sharded));
    if (single || sharded) EM_TRY(em_weights_open(p->folder, &weights));
    ember_status status = em_model_create(p->config, p->name, weights, training);
    if (status == EMBER_OK) status = em_model_create_alike(*training, weights, inference);
    em_weights_close(weights);
    return status;
}

// ---- the figures ----

static ember_status add_model(const struct em_model *m, json_t *root)
{
    json_t *o;
    size_t total, active;
    em_model_count(m, &total, &active);
    EM_TRY(em_put_object(root, "model", &o));
    EM_TRY(em_put_text(o, "model_type", m->family->name));
    EM_TRY(em_put_size(o, "depth", m->depth));
    EM_TRY(em_put_size(o, "hidden_size", m->width));
    EM_TRY(em_put_size(o, "vocab_size", m->vocabulary));
    EM_TRY(em_put_size(o, "parameters", total));
    return em_put_size(o, "active_parameters", active);
}

// In the order given, and their sum.
struct amount {
    const char *name;
    size_t bytes;
};

static ember_status add_memory(json_t *o, const struct amount *amounts, size_t n)
{
    json_t *memory;
    size_t total = 0;
    EM_TRY(em_put_object(o, "memory_bytes", &memory));
    for (size_t i = 0; i < n; i++) {
        EM_TRY(em_put_size(memory, amounts[i].name, amounts[i].bytes));
        if (!em_add_size(total, amounts[i].bytes, &total))
            return em_fail(EMBER_E_NOMEM,
                           "the memory that this would take does not fit into a number");
    }
    return em_put_size(memory, "total", total);
}

// What training learns: the next token; of vectors a label for each sequence, or values everywhere.
static enum em_head head_of(const struct em_model *m)
{
    return m->language_model ? EM_HEAD_LOSS : m->pooled ? EM_HEAD_LABELS : EM_HEAD_VALUES;
}

static struct em_stepper_options step_options(const struct plan *p, const struct em_model *m)
{
    return (struct em_stepper_options){.backend = p->runtime.backend,
                                       .pool = p->runtime.pool,
                                       .bf16 = p->runtime.bf16,
                                       .recompute = p->train.recompute,
                                       .head = head_of(m),
                                       .whole_rows = !m->language_model,
                                       .batch = p->train.batch,
                                       .seq = p->train.seq,
                                       .accumulate = p->train.accumulate};
}

// Operations a token of sequences of train.seq tokens. (The trainer's own program allows for
// sequences of any length, so its cost is no measure.)
static ember_status training_flops(const struct plan *p, const struct em_model *m, double *forward,
                                   double *backward)
{
    struct em_program *program;
    struct em_model_outputs outputs;
    EM_TRY(em_program_create(&(struct em_program_options){.backend = p->runtime.backend,
                                                          .pool = p->runtime.pool,
                                                          .max_tokens = p->train.seq,
                                                          .max_sequences = 1,
                                                          .gradients = true,
                                                          .bf16 = p->runtime.bf16},
                             &program));
    const ember_status status = em_model_record(m, program, head_of(m), &outputs);
    if (status == EMBER_OK) {
        *forward = em_program_cost(program, false).flops / (double)p->train.seq;
        *backward = em_program_cost(program, true).flops / (double)p->train.seq;
    }
    em_program_destroy(program);
    return status;
}

static ember_status add_training(const struct plan *p, struct em_model *m, json_t *root)
{
    struct em_stepper stepper;
    struct em_memory_plan memory;
    const struct em_stepper_options options = step_options(p, m);
    double forward, backward;
    json_t *o, *flops;
    EM_TRY(em_model_attach_gradients(m, NULL));
    EM_TRY(em_stepper_open(m, NULL, &options, &stepper));
    ember_status status = em_program_plan(stepper.program, &memory);
    em_stepper_close(&stepper);
    EM_TRY(status);
    EM_TRY(training_flops(p, m, &forward, &backward));
    const size_t gradients = em_trainable_values(m) * sizeof(float);
    const struct amount amounts[] = {
        {"weights", em_model_bytes(m)},
        {"gradients", gradients},
        {"optimizer", em_trainable_bytes(m, p->optimizer) - gradients},
        {"packed", memory.packed},
        {"activations", memory.activations},
        {"scratch", memory.scratch},
        {"program", PROGRAM},
    };
    EM_TRY(em_put_object(root, "training", &o));
    EM_TRY(em_put_size(o, "batch", p->train.batch));
    EM_TRY(em_put_size(o, "seq", p->train.seq));
    EM_TRY(em_put_size(o, "accumulate", p->train.accumulate));
    EM_TRY(em_put(o, "recompute", json_boolean(p->train.recompute)));
    EM_TRY(em_put_text(o, "dtype", p->runtime.bf16 ? "bf16" : "f32"));
    EM_TRY(em_put_text(o, "optimizer_type", p->optimizer->name));
    EM_TRY(add_memory(o, amounts, sizeof amounts / sizeof *amounts));
    EM_TRY(em_put_size(o, "activations_without_reuse", memory.sum_of_buffers));
    EM_TRY(em_put_object(o, "flops_per_token", &flops));
    EM_TRY(em_put(flops, "forward", json_real(forward)));
    return em_put(flops, "backward", json_real(backward));
}

// Of a model of vectors: whole sequences at once, all outputs kept.
static ember_status forward_plan(const struct plan *p, const struct em_model *m, size_t sequences,
                                 struct em_engine_plan *out)
{
    struct em_program *program;
    struct em_model_outputs outputs;
    struct em_memory_plan memory;
    size_t tokens;
    if (!em_mul_size(sequences, p->train.seq, &tokens))
        return em_fail(EMBER_E_NOMEM, "%s: a batch of that many places is too large", p->name);
    EM_TRY(em_program_create(&(struct em_program_options){.backend = p->runtime.backend,
                                                          .pool = p->runtime.pool,
                                                          .packs = m->packs,
                                                          .max_tokens = tokens,
                                                          .max_sequences = sequences,
                                                          .bf16 = p->runtime.bf16},
                             &program));
    ember_status status = em_model_record(m, program, EM_HEAD_ALL, &outputs);
    if (status == EMBER_OK) status = em_program_plan(program, &memory);
    if (status == EMBER_OK) {
        const double flops = em_program_cost(program, false).flops / (double)tokens;
        *out = (struct em_engine_plan){.packed = memory.packed,
                                       .activations = memory.activations,
                                       .scratch = memory.scratch,
                                       .prompt_flops = flops,
                                       .made_flops = flops};
        em_engine_add_states(em_program_layout(program), out);
    }
    em_program_destroy(program);
    return status;
}

// What a tokenizer takes, of a subject that has one.
static ember_status tokenizer_bytes(const struct plan *p, size_t *bytes)
{
    struct em_tokenizer *tokenizer;
    bool there = false;
    *bytes = 0;
    if (p->folder) EM_TRY(em_folder_probe(p->folder, "tokenizer.json", &there));
    if (!there) return EMBER_OK;
    const size_t before = em_alloc_live();
    EM_TRY(em_tokenizer_open(p->folder, &tokenizer));
    *bytes = em_alloc_live() - before;
    em_tokenizer_close(tokenizer);
    return EMBER_OK;
}

static ember_status add_inference(const struct plan *p, const struct em_model *m, json_t *root)
{
    const size_t sequences = p->options->batch ? p->options->batch : 1, tokens = p->train.seq;
    struct em_engine_plan plan;
    size_t state;
    json_t *o, *flops;
    if (!m->language_model)
        EM_TRY(forward_plan(p, m, sequences, &plan));
    else
        EM_TRY(em_engine_forecast(m,
                                  &(struct em_engine_options){.backend = p->runtime.backend,
                                                              .pool = p->runtime.pool,
                                                              .bf16 = p->runtime.bf16,
                                                              .sequences = sequences},
                                  &plan));
    if (!em_mul_size(plan.state_token, tokens, &state) ||
        !em_add_size(state, plan.state_fixed, &state) || !em_mul_size(state, sequences, &state))
        return em_fail(EMBER_E_NOMEM, "states of that many tokens do not fit into memory");
    size_t tokenizer;
    EM_TRY(tokenizer_bytes(p, &tokenizer));
    const struct amount amounts[] = {
        {"weights", em_model_bytes(m)}, {"packed", plan.packed}, {"activations", plan.activations},
        {"scratch", plan.scratch},      {"state", state},        {"program", PROGRAM + tokenizer},
    };
    EM_TRY(em_put_object(root, "inference", &o));
    EM_TRY(em_put_size(o, "sequences", sequences));
    EM_TRY(em_put_size(o, "tokens", tokens));
    EM_TRY(em_put_text(o, "dtype", p->runtime.bf16 ? "bf16" : "f32"));
    EM_TRY(add_memory(o, amounts, sizeof amounts / sizeof *amounts));
    EM_TRY(em_put_object(o, "flops_per_token", &flops));
    EM_TRY(em_put(flops, "prompt", json_real(plan.prompt_flops)));
    EM_TRY(em_put(flops, "made", json_real(plan.made_flops)));
    EM_TRY(em_put_size(o, "state_bytes_per_sequence", plan.state_fixed));
    return em_put_size(o, "state_bytes_per_token", plan.state_token);
}

// Texts are counted in tokens where the subject has a tokenizer, and told apart otherwise.
static ember_status add_data(const struct plan *p, json_t *root)
{
    const size_t n = p->options->n_data;
    struct em_tokenizer *tokenizer = NULL;
    struct em_dataset dataset;
    json_t *o;
    if (!n) return EMBER_OK;
    bool own;
    EM_TRY(em_folder_probe(p->folder, "tokenizer.json", &own));
    EM_TRY(own ? em_tokenizer_open(p->folder, &tokenizer) : em_tokenizer_bytes(&tokenizer));
    struct em_source *source = em_calloc(n, sizeof *source);
    ember_status status = source ? EMBER_OK : EMBER_E_NOMEM;
    for (size_t i = 0; source && i < n; i++)
        source[i].path = p->options->data[i];
    if (status == EMBER_OK)
        status = em_dataset_open(
            source, n,
            &(struct em_dataset_options){.tokenizer = tokenizer, .pool = p->runtime.pool},
            &dataset);
    em_free(source);
    if (status == EMBER_OK) {
        const uint64_t train = em_dataset_train_tokens(&dataset),
                       held_out = em_dataset_held_out_tokens(&dataset),
                       step = (uint64_t)p->train.batch * p->train.seq;
        status = em_put_object(root, "data", &o);
        if (status == EMBER_OK) status = em_put_text(o, "unit", own ? "tokens" : "bytes");
        if (status == EMBER_OK) status = em_put_size(o, "train", train);
        if (status == EMBER_OK) status = em_put_size(o, "held_out", held_out);
        if (status == EMBER_OK && own) status = em_put_size(o, "steps", (train + step - 1) / step);
        em_dataset_close(&dataset);
    }
    em_tokenizer_close(tokenizer);
    return status;
}

// ---- as text ----

static ember_status print_memory(const json_t *o, struct em_buf *out)
{
    const char *key;
    json_t *value;
    char text[32];
    json_object_foreach(json_object_get(o, "memory_bytes"), key, value) EM_TRY(em_buf_printf(
        out, "  %-12s %12s\n", key, em_bytes_text((double)json_integer_value(value), text)));
    return EMBER_OK;
}

static ember_status print_data(const json_t *o, struct em_buf *out)
{
    char train[32], held_out[32], steps[32];
    if (!o) return EMBER_OK;
    EM_TRY(em_buf_printf(out, "data        %s %s to train on, %s held out",
                         em_count_text(em_size_of(o, "train"), train), em_text_of(o, "unit"),
                         em_count_text(em_size_of(o, "held_out"), held_out)));
    if (json_object_get(o, "steps"))
        EM_TRY(em_buf_printf(out, ": %s steps are once through",
                             em_count_text(em_size_of(o, "steps"), steps)));
    return em_buf_putc(out, '\n');
}

static ember_status print(const json_t *root, struct em_buf *out)
{
    const json_t *m = json_object_get(root, "model"), *t = json_object_get(root, "training"),
                 *i = json_object_get(root, "inference"),
                 *flops = json_object_get(t, "flops_per_token"),
                 *made = json_object_get(i, "flops_per_token");
    char a[32], b[32];
    EM_TRY(em_buf_printf(out, "model       %s, %zu blocks deep, width %zu, vocabulary %zu\n",
                         em_text_of(m, "model_type"), em_size_of(m, "depth"),
                         em_size_of(m, "hidden_size"), em_size_of(m, "vocab_size")));
    EM_TRY(em_buf_printf(out, "parameters  %s, %s of them active for a token\n",
                         em_count_text(em_size_of(m, "parameters"), a),
                         em_count_text(em_size_of(m, "active_parameters"), b)));
    EM_TRY(print_data(json_object_get(root, "data"), out));
    EM_TRY(em_buf_printf(out, "training    %zu x %zu tokens a step", em_size_of(t, "batch"),
                         em_size_of(t, "seq")));
    if (em_size_of(t, "accumulate") > 1)
        EM_TRY(em_buf_printf(out, " in %zu parts", em_size_of(t, "accumulate")));
    EM_TRY(
        em_buf_printf(out, ", %s, %s%s\n", em_text_of(t, "dtype"), em_text_of(t, "optimizer_type"),
                      json_is_true(json_object_get(t, "recompute")) ? ", blocks recomputed" : ""));
    EM_TRY(print_memory(t, out));
    EM_TRY(em_buf_printf(out, "  a token      %.2f MFLOP forward, %.2f backward\n",
                         json_real_value(json_object_get(flops, "forward")) / 1e6,
                         json_real_value(json_object_get(flops, "backward")) / 1e6));
    EM_TRY(em_buf_printf(out, "inference   %zu x %zu tokens, %s\n", em_size_of(i, "sequences"),
                         em_size_of(i, "tokens"), em_text_of(i, "dtype")));
    EM_TRY(print_memory(i, out));
    EM_TRY(em_buf_printf(out, "  a token      %.2f MFLOP in a prompt, %.2f made\n",
                         json_real_value(json_object_get(made, "prompt")) / 1e6,
                         json_real_value(json_object_get(made, "made")) / 1e6));
    return em_buf_printf(out, "  state        %s a sequence and %s a token\n",
                         em_bytes_text((double)em_size_of(i, "state_bytes_per_sequence"), a),
                         em_bytes_text((double)em_size_of(i, "state_bytes_per_token"), b));
}

// ---- all of it ----

static ember_status choose(struct plan *p)
{
    const ember_plan_options *o = p->options;
    ember_runtime runtime = o->runtime;
    if (runtime.compute == EMBER_COMPUTE_DEFAULT && p->train.dtype != EM_TRAIN_AUTO)
        runtime.compute = p->train.dtype == EM_TRAIN_F32 ? EMBER_COMPUTE_F32 : EMBER_COMPUTE_BF16;
    if (o->batch) p->train.batch = o->batch;
    if (o->seq) p->train.seq = o->seq;
    if (p->train.accumulate > p->train.batch) p->train.accumulate = p->train.batch;
    return em_runtime_open(&runtime, true, &p->runtime);
}

// Of the images that the model reads; 0: its sequences have any length.
static size_t pixels_of(const struct em_model *m)
{
    const json_t *first = json_array_get(json_object_get(m->form, "blocks"), 0);
    return (size_t)(json_integer_value(json_object_get(first, "rows")) *
                    json_integer_value(json_object_get(first, "columns")));
}

static ember_status describe(struct plan *p, json_t *root)
{
    struct em_model *training = NULL, *inference = NULL;
    ember_status status;
    EM_TRY(ember_start());
    EM_TRY(open_subject(p));
    EM_TRY(choose(p));
    EM_TRY_GOTO(status, out, create_models(p, &training, &inference));
    EM_TRY_GOTO(status, out, em_groups_apply(&p->recipe, training, false));
    if (!p->options->seq && pixels_of(training)) p->train.seq = pixels_of(training);
    EM_TRY_GOTO(status, out, add_model(training, root));
    EM_TRY_GOTO(status, out, add_data(p, root));
    EM_TRY_GOTO(status, out, add_training(p, training, root));
    status = add_inference(p, inference, root);
out:
    em_model_close(training);
    em_model_close(inference);
    return status;
}

ember_status ember_plan_describe(const char *subject, const ember_plan_options *options, bool json,
                                 char **text)
{
    static const ember_plan_options none;
    struct plan p = {.subject = subject, .options = options ? options : &none};
    json_t *root = json_object();
    const ember_status status =
        root ? describe(&p, root) : em_fail(EMBER_E_NOMEM, "%s: out of memory", subject);
    em_runtime_close(&p.runtime);
    em_recipe_close(&p.recipe);
    json_decref(p.config);
    return em_describe(status, root, json, print, text);
}
