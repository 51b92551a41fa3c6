#include <ember/infer.h>

#include "api/model.h"
#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "infer/perplexity.h"
#include "train/evaluate.h"

enum { WINDOW = 2048, LLAMA_WINDOW = 512, PASS_TOKENS = 2048 };

static ember_evaluation score_of(const struct em_perplexity *p)
{
    return (ember_evaluation){
        .nats = p->nats, .tokens = p->tokens, .windows = p->windows, .bytes = p->bytes};
}

static ember_status eval_dataset(ember_model *model, const char *const *paths, size_t n,
                                 const struct em_perplexity_options *options,
                                 ember_evaluation *scores)
{
    struct em_source *source = em_calloc(n, sizeof *source);
    struct em_dataset dataset;
    if (!source) return EMBER_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        source[i].path = paths[i];
    ember_status status = em_dataset_open(source, n,
                                          &(struct em_dataset_options){
                                              .tokenizer = model->tokenizer,
                                              .held_out = 1,
                                              .no_eos = true,
                                              .pool = model->runtime.pool,
                                          },
                                          &dataset);
    em_free(source);
    EM_TRY(status);
    for (size_t i = 0; status == EMBER_OK && i < n; i++) {
        struct em_perplexity p;
        status = em_perplexity_domain(model->model, &dataset, i, options, &p);
        if (status == EMBER_OK) scores[i] = score_of(&p);
    }
    em_dataset_close(&dataset);
    return status;
}

static ember_status eval_llama(ember_model *model, const char *path,
                               const struct em_perplexity_options *options, ember_evaluation *score)
{
    struct em_buf text = {0};
    struct em_ids ids = {0};
    struct em_perplexity p;
    ember_status status = em_read_file(path, 0, &text);
    if (status == EMBER_OK) {
        if (text.size && text.data[text.size - 1] == '\n') text.size--;
        status = em_encode(model->encoder, text.data, text.size, EM_ENCODE_ADD_SPECIAL, &ids);
    }
    em_buf_deinit(&text);
    if (status == EMBER_OK) {
        const int32_t bos = em_tokenizer_bos(model->tokenizer);
        status = em_perplexity_llama(model->model, model->tokenizer, ids.ids, ids.count,
                                     bos >= 0 && ids.count && ids.ids[0] == bos, options, &p);
        if (status == EMBER_E_SHAPE) status = em_fail_in(status, "%s", path);
    }
    em_ids_deinit(&ids);
    if (status == EMBER_OK) *score = score_of(&p);
    return status;
}

static size_t window(const ember_model *model, const ember_eval_options *o)
{
    const size_t context = model->model->context, usual = o->llama_windows ? LLAMA_WINDOW : WINDOW;
    if (o->context) {
        if (context && o->context > context)
            em_warn("windows of %zu tokens are longer than the model's context of %zu", o->context,
                    context);
        return o->context;
    }
    return context && context < usual ? context : usual;
}

ember_status ember_eval(ember_model *model, const char *const *paths, size_t n,
                        const ember_eval_options *options, ember_evaluation *scores)
{
    static const ember_eval_options none;
    if (!options) options = &none;
    const struct em_perplexity_options o = {.backend = model->runtime.backend,
                                            .pool = model->runtime.pool,
                                            .bf16 = model->runtime.bf16,
                                            .context = window(model, options)};
    EM_TRY(em_api_need_encoder(model));
    ember_status status = EMBER_OK;
    if (options->llama_windows)
        for (size_t i = 0; status == EMBER_OK && i < n; i++)
            status = eval_llama(model, paths[i], &o, &scores[i]);
    else if (n)
        status = eval_dataset(model, paths, n, &o, scores);
    if (status == EMBER_E_INTERRUPTED) em_interrupt_set(false);
    return status;
}

// As many sequences in a pass as make some tokens, and one at least.
static ember_status score_tensors(ember_model *model, const struct em_tensor_source *source,
                                  struct em_scored *scored)
{
    const size_t fit = source->seq < PASS_TOKENS ? PASS_TOKENS / source->seq : 1;
    struct em_stepper stepper;
    EM_TRY(em_stepper_open(
        model->model, NULL,
        &(struct em_stepper_options){.backend = model->runtime.backend,
                                     .pool = model->runtime.pool,
                                     .bf16 = model->runtime.bf16,
                                     .head = em_tensors_head(source),
                                     .whole_rows = true,
                                     .scoring = true,
                                     .batch = fit < source->batch ? fit : source->batch,
                                     .seq = source->seq,
                                     .accumulate = 1},
        &stepper));
    ember_status status = em_stepper_allocate(&stepper);
    if (status == EMBER_OK) status = em_evaluate_tensors(&stepper, source, scored);
    em_stepper_close(&stepper);
    return status;
}

ember_status ember_eval_tensors(ember_model *model, const char *const *paths, size_t n,
                                ember_tensor_evaluation *scores)
{
    ember_status status = EMBER_OK;
    for (size_t i = 0; status == EMBER_OK && i < n; i++) {
        struct em_tensor_source source;
        struct em_scored scored;
        EM_TRY(em_model_tensors_open(model->model, paths[i], &source));
        status = score_tensors(model, &source, &scored);
        if (status == EMBER_OK)
            scores[i] =
                (ember_tensor_evaluation){.loss = scored.loss,
                                          .sequences = (uint64_t)source.slices * source.batch,
                                          .places = scored.places,
                                          .right = scored.right,
                                          .labels = source.labels != NULL};
        else
            status = em_fail_in(status, "%s", paths[i]);
        em_tensors_close(&source);
    }
    if (status == EMBER_E_INTERRUPTED) em_interrupt_set(false);
    return status;
}
