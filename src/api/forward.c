#include <ember/forward.h>

#include "api/library.h"
#include "infer/forward_file.h"

ember_status ember_forward_file(const char *model, const char *in, const char *out,
                                const ember_forward_options *options)
{
    static const ember_forward_options none;
    struct em_runtime runtime;
    struct em_model *m = NULL;
    if (!options) options = &none;
    EM_TRY(em_api_refuse_gguf(model));
    EM_TRY(em_runtime_open(&options->runtime, false, &runtime));
    ember_status status = em_model_open(model, &m);
    if (status == EMBER_OK)
        status = em_forward_file(m, in, out,
                                 &(struct em_forward_job){.backend = runtime.backend,
                                                          .bf16 = runtime.bf16,
                                                          .gradients = options->gradients,
                                                          .masked = options->masked,
                                                          .pool = runtime.pool,
                                                          .chunk = options->chunk});
    em_model_close(m);
    em_runtime_close(&runtime);
    return status;
}
