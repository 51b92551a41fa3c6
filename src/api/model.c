// Models as the public interface has them.
#include "api/model.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "formats/folder.h"
#include "models/model.h"

enum { BATCH = 16 }; // conversations of a pass

// A tokenizer that cannot be read stands in the way of text only: the model runs on ids without it.
static ember_status open_tokenizer(ember_model *model, const struct em_folder *folder)
{
    bool there;
    EM_TRY(em_folder_has(folder, "tokenizer.json", &there));
    if (there) {
        model->tokenizer_status = em_tokenizer_open_in(folder, &model->tokenizer);
        if (model->tokenizer_status == EMBER_E_NOMEM) return EMBER_E_NOMEM; // not the file's fault
        if (model->tokenizer_status == EMBER_OK) return EMBER_OK;
        model->tokenizer_problem = em_strdup(ember_last_error());
    } else {
        model->tokenizer_status = EMBER_E_STATE;
        model->tokenizer_problem =
            em_asprintf("%s: there is no tokenizer.json, so the model reads ids, not text",
                        folder->path ? folder->path : "the files in memory");
    }
    return model->tokenizer_problem ? EMBER_OK : EMBER_E_NOMEM;
}

static ember_status open_all(ember_model *model, const struct em_folder *folder,
                             const ember_runtime *runtime)
{
    EM_TRY(em_runtime_open(runtime, true, &model->runtime));
    EM_TRY(em_model_open_in(folder, &model->model));
    EM_TRY(open_tokenizer(model, folder));
    return em_generation_config_read_in(model->model, folder, model->tokenizer, &model->generation);
}

static ember_status open_folder(const struct em_folder *folder, const ember_model_options *options,
                                ember_model **model)
{
    ember_model *m = em_calloc(1, sizeof *m);
    if (!m) return EMBER_E_NOMEM;
    const ember_status status = open_all(m, folder, options ? &options->runtime : NULL);
    if (status != EMBER_OK) {
        ember_model_close(m);
        return status;
    }
    *model = m;
    return EMBER_OK;
}

ember_status ember_model_open(const char *path, const ember_model_options *options,
                              ember_model **model)
{
    EM_TRY(em_api_refuse_gguf(path));
    return open_folder(&(struct em_folder){.path = path}, options, model);
}

// A misspelt name would otherwise leave out a file without a word.
static void note_unread(const struct em_folder *folder)
{
    static const char *const read[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                       "generation_config.json", "model.safetensors.index.json"};
    for (size_t i = 0; i < folder->count; i++) {
        const char *name = folder->files[i].name;
        bool known = em_api_ends_in(name, ".safetensors");
        for (size_t k = 0; k < sizeof read / sizeof *read; k++)
            known = known || strcmp(name, read[k]) == 0;
        if (!known) em_note("%s: a file in memory that no model reads", name);
    }
}

ember_status ember_model_open_memory(const ember_model_file *files, size_t n,
                                     const ember_model_options *options, ember_model **model)
{
    const struct em_folder folder = {.files = files, .count = n};
    EM_TRY(em_folder_check(&folder));
    note_unread(&folder);
    return open_folder(&folder, options, model);
}

void ember_model_close(ember_model *model)
{
    if (!model) return;
    em_engine_destroy(model->engine);
    em_engine_destroy(model->batch);
    em_generation_config_deinit(&model->generation);
    em_encoder_destroy(model->encoder);
    em_tokenizer_close(model->tokenizer);
    em_free(model->tokenizer_problem);
    em_model_close(model->model);
    em_runtime_close(&model->runtime);
    em_free(model);
}

size_t ember_model_vocabulary(const ember_model *model)
{
    return model->model->vocabulary;
}

size_t ember_model_context(const ember_model *model)
{
    return model->model->context;
}

void ember_model_parameters(const ember_model *model, size_t *total, size_t *active)
{
    em_model_count(model->model, total, active);
}

bool ember_model_reads_text(const ember_model *model)
{
    return model->tokenizer != NULL;
}

ember_status em_api_need_tokenizer(const ember_model *model)
{
    return model->tokenizer ? EMBER_OK
                            : em_fail(model->tokenizer_status, "%s", model->tokenizer_problem);
}

ember_status em_api_need_encoder(ember_model *model)
{
    EM_TRY(em_api_need_tokenizer(model));
    return model->encoder ? EMBER_OK : em_encoder_create(model->tokenizer, &model->encoder);
}

ember_status em_api_encode(ember_model *model, const char *text, size_t n, struct em_ids *ids)
{
    EM_TRY(em_api_need_encoder(model));
    return em_encode(model->encoder, text, n, EM_ENCODE_DEFAULT, ids);
}

ember_status ember_model_encode(ember_model *model, const char *text, size_t n, int32_t **ids,
                                size_t *count)
{
    struct em_ids found = {0};
    EM_TRY(em_api_encode(model, text, n, &found));
    if (!found.ids && !(found.ids = em_alloc(sizeof *found.ids))) return EMBER_E_NOMEM;
    *ids = found.ids;
    *count = found.count;
    return EMBER_OK;
}

ember_status em_api_engine(ember_model *model, size_t n, struct em_engine **engine)
{
    struct em_engine **place = n > 1 ? &model->batch : &model->engine;
    if (!*place)
        EM_TRY(em_engine_create(model->model,
                                &(struct em_engine_options){.backend = model->runtime.backend,
                                                            .pool = model->runtime.pool,
                                                            .bf16 = model->runtime.bf16,
                                                            .sequences = n > 1 ? BATCH : 1},
                                place));
    *engine = *place;
    return EMBER_OK;
}
