#include <ember/train.h>

#include "api/library.h"
#include "base/alloc.h"
#include "infer/generation.h"
#include "train/presets.h"
#include "train/trainer.h"

// ---- samples for the report ----

enum { SAMPLE_TOKENS = 120 };

static ember_status add_text(void *context, const char *text, size_t n)
{
    return em_buf_add(context, text, n);
}

static ember_status continue_prompt(const struct em_runtime *runtime, const struct em_model *model,
                                    const struct em_tokenizer *tokenizer,
                                    const struct em_ids *prompt, struct em_buf *out)
{
    struct em_engine *engine = NULL;
    struct em_sampler_chain *chain = NULL;
    ember_sampling sampling = em_sampling_default;
    sampling.temperature = 0.7;
    const int32_t end = em_tokenizer_eos(tokenizer);
    ember_status status = em_sampler_chain_from(&sampling, &chain);
    if (status == EMBER_OK)
        status = em_engine_create(model,
                                  &(struct em_engine_options){.backend = runtime->backend,
                                                              .pool = runtime->pool,
                                                              .bf16 = runtime->bf16},
                                  &engine);
    if (status == EMBER_OK)
        status = em_generate(engine,
                             &(struct em_request){.ids = prompt->ids,
                                                  .count = prompt->count,
                                                  .max_tokens = SAMPLE_TOKENS,
                                                  .chain = chain,
                                                  .seed = 1,
                                                  .end = &end,
                                                  .end_count = end >= 0,
                                                  .tokenizer = tokenizer,
                                                  .on_text = add_text,
                                                  .context = out},
                             1);
    em_engine_destroy(engine);
    em_sampler_chain_destroy(chain);
    return status;
}

static ember_status generate(void *context, const struct em_model *model,
                             const struct em_tokenizer *tokenizer, const char *prompt, size_t bytes,
                             struct em_buf *out)
{
    struct em_encoder *encoder = NULL;
    struct em_ids ids = {0};
    ember_status status = em_encoder_create(tokenizer, &encoder);
    if (status == EMBER_OK) status = em_encode(encoder, prompt, bytes, EM_ENCODE_ADD_SPECIAL, &ids);
    if (status == EMBER_OK && ids.count)
        status = continue_prompt(context, model, tokenizer, &ids, out);
    em_ids_deinit(&ids);
    em_encoder_destroy(encoder);
    return status;
}

// ---- training ----

static ember_status hand_over(struct em_train_result *from, ember_train_result *to)
{
    struct em_buf json = {0};
    const ember_status status = em_json_print(from->json, 2, &json);
    if (status != EMBER_OK) {
        em_buf_deinit(&json);
        return status;
    }
    char *text = em_buf_take(&from->text), *printed = em_buf_take(&json);
    if (!text || !printed) {
        em_free(text);
        em_free(printed);
        return EMBER_E_NOMEM;
    }
    *to = (ember_train_result){text, printed};
    return EMBER_OK;
}

ember_status ember_train(const ember_train_options *options, ember_train_result *result)
{
    static const int dtype[] = {[EMBER_COMPUTE_DEFAULT] = EM_TRAIN_AUTO,
                                [EMBER_COMPUTE_F32] = EM_TRAIN_F32,
                                [EMBER_COMPUTE_BF16] = EM_TRAIN_BF16};
    struct em_runtime runtime;
    struct em_train_result made = {0};
    ember_runtime plain = options->runtime;
    plain.compute = EMBER_COMPUTE_DEFAULT; // the recipe has a say in it
    EM_TRY(em_runtime_open(&plain, true, &runtime));
    ember_status status =
        em_train(&(struct em_train_job){.recipe = {.file = options->recipe,
                                                   .preset = options->preset,
                                                   .data = options->data,
                                                   .data_count = options->n_data,
                                                   .set = options->set,
                                                   .set_count = options->n_set,
                                                   .seed_given = options->seed_given,
                                                   .seed = options->runtime.seed,
                                                   .dtype = dtype[options->runtime.compute]},
                                        .out = options->out,
                                        .resume = options->resume,
                                        .dry_run = options->dry_run,
                                        .backend = runtime.backend,
                                        .pool = runtime.pool,
                                        .generate = generate,
                                        .generate_context = &runtime},
                 &made);
    if (status == EMBER_OK && result) status = hand_over(&made, result);
    em_train_result_deinit(&made);
    em_runtime_close(&runtime);
    return status;
}

void ember_train_result_deinit(ember_train_result *result)
{
    em_free(result->text);
    em_free(result->json);
    *result = (ember_train_result){0};
}

const char *ember_preset_at(size_t i)
{
    for (const struct em_preset *p = em_presets; p->name; p++)
        if (i-- == 0) return p->name;
    return NULL;
}
