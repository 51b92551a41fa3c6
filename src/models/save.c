// Writing a model folder.
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "kernels/half.h"
#include "models/model.h"
#include "models/model_priv.h"

static const char *dtype_text(enum em_st_dtype dtype)
{
    return dtype == EM_ST_BF16 ? "bfloat16" : dtype == EM_ST_F16 ? "float16" : "float32";
}

ember_status em_model_save_config(const struct em_model *m, const char *folder,
                                  enum em_st_dtype dtype)
{
    json_t *config = json_deep_copy(m->config);
    char *path = em_path_join(folder, "config.json");
    ember_status status = EMBER_OK;
    if (!config || !path) status = em_fail(EMBER_E_NOMEM, "%s: out of memory", folder);
    if (status == EMBER_OK && m->family->complete) status = m->family->complete(config, m->form);
    if (status == EMBER_OK) status = em_model_record_plugins(m, config);
    if (status == EMBER_OK && m->family->architecture && m->language_model)
        status =
            json_object_set_new(config, "architectures", json_pack("[s]", m->family->architecture))
                ? EMBER_E_NOMEM
                : EMBER_OK;
    if (status == EMBER_OK) {
        json_object_del(config, "torch_dtype");
        json_object_del(config, "auto_map"); // names code; our folders hold none
        status = json_object_set_new(config, "dtype", json_string(dtype_text(dtype)))
                     ? EMBER_E_NOMEM
                     : EMBER_OK;
    }
    if (status == EMBER_OK) status = em_json_write(path, config, 2);
    em_free(path);
    json_decref(config);
    return status;
}

struct source {
    const struct em_model *model;
    const struct em_st_output *output;
    const struct em_file_tensor **of; // [outputs]: whose values they are
};

static ember_status write_part(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    const struct source *s = context;
    const struct em_file_tensor *f = s->of[index];
    const enum em_st_dtype dtype = s->output[index].dtype;
    const size_t size = em_st_dtype_bits(dtype) / 8;
    const float *from = em_f32(&f->param->tensor) + f->offset + offset / size;
    if (dtype == EM_ST_F32) {
        memcpy(to, from, bytes);
        return EMBER_OK;
    }
    for (size_t i = 0; i < bytes / size; i++) {
        const uint16_t h =
            dtype == EM_ST_BF16 ? em_bf16_from_f32(from[i]) : em_f16_from_f32(from[i]);
        memcpy((char *)to + 2 * i, &h, sizeof h);
    }
    return EMBER_OK;
}

// The outputs, counted, or put into `to` where it is there: every tensor, and behind it its copies.
static ember_status list_outputs(const struct em_model *m, enum em_st_dtype dtype,
                                 struct em_arena *names, struct em_st_output *to,
                                 const struct em_file_tensor **of, size_t *count)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        const char *name = f->name;
        for (size_t copy = 0; name; copy++, n++) {
            ember_status status = EMBER_OK;
            if (to) {
                of[n] = f;
                to[n] = (struct em_st_output){
                    .name = name,
                    .shape = f->dim,
                    .rank = f->ndim,
                    .dtype = f->param->init == EMBER_INIT_BUFFER ? EM_ST_F32 : dtype};
            }
            name = em_model_copy_of(names, m, f->name, copy, &status);
            EM_TRY(status);
        }
    }
    *count = n;
    return EMBER_OK;
}

ember_status em_model_save_weights(const struct em_model *m, const char *path,
                                   enum em_st_dtype dtype)
{
    struct em_arena names = {0};
    struct em_st_output *output = NULL;
    const struct em_file_tensor **of = NULL;
    size_t count = 0;
    ember_status status = list_outputs(m, dtype, &names, NULL, NULL, &count);
    if (status == EMBER_OK) {
        output = em_calloc(count ? count : 1, sizeof *output);
        of = em_calloc(count ? count : 1, sizeof(struct em_file_tensor *));
        status = output && of ? list_outputs(m, dtype, &names, output, of, &count) : EMBER_E_NOMEM;
    }
    struct source source = {m, output, of};
    if (status == EMBER_OK)
        status = em_safetensors_write(path, &(struct em_st_write){.tensors = output,
                                                                  .count = count,
                                                                  .source = write_part,
                                                                  .context = &source,
                                                                  .hashes = true});
    em_free(of);
    em_free(output);
    em_arena_deinit(&names);
    return status;
}
