// Opening what a recipe names: tokenizer, model, data, the recorded pass.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/gemm.h"
#include "train/run.h"

static ember_status put(json_t *object, const char *key, json_t *value) // value is taken
{
    return value && json_object_set_new(object, key, value) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "out of memory");
}

// A token id that the config does not speak of is the tokenizer's.
static ember_status default_id(json_t *config, const char *key, int32_t id)
{
    if (id < 0 || json_object_get(config, key)) return EMBER_OK;
    return put(config, key, json_integer(id));
}

// A new model's config follows the tokenizer: its vocabulary and its special tokens.
static ember_status fit_config(const struct em_training *t, json_t *config)
{
    const struct em_tokenizer *tokenizer = t->tokenizer.tokenizer;
    size_t asked = 0;
    if (!tokenizer) return EMBER_OK;
    const size_t have = em_tokenizer_size(tokenizer);
    EM_TRY(em_json_get_size(config, t->recipe.name, "vocab_size", 1, 1 << 24, &asked));
    if (asked && asked < have)
        return em_fail(EMBER_E_CONFIG,
                       "%s: model.vocab_size is %zu, but the tokenizer has %zu tokens",
                       t->recipe.name, asked, have);
    if (asked != have && (!asked || t->tokenizer.trained)) {
        if (asked)
            em_note("the model's vocabulary is %zu instead of %zu: the tokenizer has no more", have,
                    asked);
        EM_TRY(put(config, "vocab_size", json_integer((json_int_t)have)));
    }
    EM_TRY(default_id(config, "bos_token_id", em_tokenizer_bos(tokenizer)));
    EM_TRY(default_id(config, "eos_token_id", em_tokenizer_eos(tokenizer)));
    return default_id(config, "pad_token_id", em_tokenizer_pad(tokenizer));
}

static ember_status new_model(struct em_training *t)
{
    json_t *config = json_deep_copy(t->recipe.model);
    char *name = em_asprintf("%s: model", t->recipe.name);
    ember_status status = config && name ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = fit_config(t, config);
    if (status == EMBER_OK) status = em_model_create(config, name, NULL, &t->model);
    if (status == EMBER_OK) status = em_model_allocate(t->model);
    if (status == EMBER_OK) em_model_init(t->model, t->recipe.seed, t->job->pool);
    em_free(name);
    json_decref(config);
    return status;
}

static ember_status open_model(struct em_training *t)
{
    const char *folder = t->run.state ? t->run.state : t->recipe.model_folder;
    if (folder)
        EM_TRY(em_model_open(folder, &t->model));
    else
        EM_TRY(new_model(t));
    if (!*t->recipe.data.tensors) {
        const ember_status status = em_model_need_language(t->model);
        if (status != EMBER_OK) return em_fail_in(status, "the recipe's data are tokens");
    }
    if (t->tokenizer.tokenizer && em_tokenizer_size(t->tokenizer.tokenizer) > t->model->vocabulary)
        return em_fail(
            EMBER_E_CONFIG, "%s: the tokenizer has %zu tokens, the model's vocabulary only %zu",
            t->model->name, em_tokenizer_size(t->tokenizer.tokenizer), t->model->vocabulary);
    return EMBER_OK;
}

static ember_status choose_tokenizer(struct em_training *t)
{
    size_t vocabulary = 0;
    if (t->run.state) { // the state's own, or none
        enum em_path_kind kind;
        EM_TRY(em_path_probe_in(t->run.state, "tokenizer.json", &kind));
        if (kind == EM_PATH_ABSENT) return EMBER_OK;
        t->tokenizer.from = t->run.state;
        return em_tokenizer_open(t->run.state, &t->tokenizer.tokenizer);
    }
    if (t->recipe.model)
        EM_TRY(em_json_get_size(t->recipe.model, t->recipe.name, "vocab_size", 1, 1 << 24,
                                &vocabulary));
    return em_choose_tokenizer(&t->recipe, t->recipe.model_folder, vocabulary, t->job->pool,
                               &t->tokenizer);
}

static ember_status open_data(struct em_training *t)
{
    char *own = NULL;
    const char *cache = *t->recipe.data.cache ? t->recipe.data.cache : NULL;
    if (!t->job->dry_run && !cache) {
        if (!(own = em_path_join(t->run.dir, "cache"))) return EMBER_E_NOMEM;
        cache = own;
    }
    const ember_status status = em_batches_open(&t->recipe, t->tokenizer.tokenizer, t->model, cache,
                                                own != NULL, t->job->pool, &t->batches);
    em_free(own);
    EM_TRY(status);
    if (t->model->context && t->batches.seq > t->model->context)
        em_note("train.seq is %zu; the model's config speaks of at most %zu tokens", t->batches.seq,
                t->model->context);
    return EMBER_OK;
}

static void choose_dtype(struct em_training *t)
{
    const bool native = t->job->backend == EM_CPU && em_gemm_native(EM_GEMM_BF16);
    if (t->recipe.train.dtype == EM_TRAIN_BF16 && !native)
        em_note("this machine has no bf16 instructions for the chosen backend: computing in f32");
    t->bf16 = native && t->recipe.train.dtype != EM_TRAIN_F32;
}

static ember_status check_same_data(struct em_training *t)
{
    const uint64_t hash = em_batches_hash(&t->batches);
    if (t->run.state && hash != t->run.data_hash) {
        char why[512];
        em_run_find_change(t, why, sizeof why);
        return em_fail(EMBER_E_CONFIG,
                       "%s: the data are not those that this run began with, and it can only go on "
                       "with the same: %s",
                       t->run.dir, why);
    }
    t->run.data_hash = hash;
    return EMBER_OK;
}

ember_status em_training_setup(struct em_training *t)
{
    choose_dtype(t);
    if (t->run.state) EM_TRY(em_run_load_progress(t));
    EM_TRY(choose_tokenizer(t));
    EM_TRY(open_model(t));
    EM_TRY(em_groups_apply(&t->recipe, t->model, true));
    EM_TRY(open_data(t));
    EM_TRY(check_same_data(t));
    EM_TRY(em_trainable_open(t->model, t->recipe.optimizer, t->recipe.optimizer_options,
                             t->job->pool, &t->trainable));
    const struct em_tensor_source *tensors = &t->batches.tensors;
    EM_TRY(em_stepper_open(t->model, &t->trainable,
                           &(struct em_stepper_options){
                               .backend = t->job->backend,
                               .pool = t->job->pool,
                               .bf16 = t->bf16,
                               .recompute = t->recipe.train.recompute,
                               .batch = t->batches.batch,
                               .head = tensors->file ? em_tensors_head(tensors) : EM_HEAD_LOSS,
                               .whole_rows = tensors->file != NULL,
                               .seq = t->batches.seq,
                               .accumulate = t->recipe.train.accumulate,
                               .seed = t->recipe.seed},
                           &t->stepper));
    t->context = t->batches.seq;
    if (t->batches.text && em_dataset_held_out_tokens(&t->batches.dataset) && !t->untrained) {
        t->untrained = em_calloc(t->batches.dataset.count, sizeof *t->untrained);
        if (!t->untrained) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

void em_training_deinit(struct em_training *t)
{
    em_run_log_close(&t->log);
    em_router_watch_close(&t->watch);
    em_routing_trace_close(&t->trace);
    em_stepper_close(&t->stepper);
    em_trainable_close(&t->trainable);
    em_batches_close(&t->batches);
    em_model_close(t->model);
    em_tokenizer_close(t->tokenizer.tokenizer);
    em_recipe_close(&t->recipe);
    em_free(t->untrained);
    em_run_close(&t->run);
}
