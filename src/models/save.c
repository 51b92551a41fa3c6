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
};

static ember_status write_part(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    const struct source *s = context;
    const struct em_file_tensor *f = &s->model->file_tensor[index];
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

ember_status em_model_save_weights(const struct em_model *m, const char *path,
                                   enum em_st_dtype dtype)
{
    struct em_st_output *output =
        em_calloc(m->n_file_tensors ? m->n_file_tensors : 1, sizeof *output);
    if (!output) return EMBER_E_NOMEM;
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        output[i] = (struct em_st_output){.name = f->name, .shape = f->dim, .rank = f->ndim};
        output[i].dtype = f->param->init == EMBER_INIT_BUFFER ? EM_ST_F32 : dtype;
    }
    struct source source = {m, output};
    const ember_status status =
        em_safetensors_write(path, &(struct em_st_write){.tensors = output,
                                                         .count = m->n_file_tensors,
                                                         .source = write_part,
                                                         .context = &source,
                                                         .hashes = true});
    em_free(output);
    return status;
}
