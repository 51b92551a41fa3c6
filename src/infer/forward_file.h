// `ember forward`: a model over the rows of a safetensors file.
#ifndef EM_INFER_FORWARD_FILE_H
#define EM_INFER_FORWARD_FILE_H

#include "models/model.h"

struct em_forward_job {
    enum em_backend backend;
    bool bf16, gradients, masked;
    struct em_pool *pool;
    size_t chunk;
};
ember_status em_forward_file(struct em_model *model, const char *in, const char *out,
                             const struct em_forward_job *job) EMBER_CHECKED;

#endif
