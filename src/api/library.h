// What every public call needs: the registry filled, and a place to run.
#ifndef EM_API_LIBRARY_H
#define EM_API_LIBRARY_H

#include <ember/runtime.h>
#include <ember/tokenizer.h>

#include "ops/program.h"
#include "text/tokenizer.h"

// A resolved ember_runtime.
struct em_runtime {
    enum em_backend backend;
    bool bf16;
    struct em_pool *pool;
};

// `bf16_default`: what EMBER_COMPUTE_DEFAULT means where the machine has bf16 instructions.
ember_status em_runtime_open(const ember_runtime *options, bool bf16_default,
                             struct em_runtime *runtime) EMBER_CHECKED;
void em_runtime_close(struct em_runtime *runtime);

// The public object around a tokenizer, which it takes, also when it fails.
ember_status em_api_wrap_tokenizer(struct em_tokenizer *inner,
                                   ember_tokenizer **tokenizer) EMBER_CHECKED;

bool em_api_ends_in(const char *text, const char *end);
// EMBER_E_UNSUPPORTED for the name of a file that models come in, but not in this build.
ember_status em_api_refuse_gguf(const char *path) EMBER_CHECKED;

#endif
