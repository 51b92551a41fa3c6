// Joins the rooms' component tables.
#include "api/library.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "infer/sampler.h"
#include "kernels/gemm.h"
#include "models/family.h"
#include "nn/build.h"
#include "train/optimizer.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static ember_status started;
static char start_message[256];

static void start(void)
{
    enum em_isa isa;
    started = em_isa_choose(&isa, NULL);
    if (started == EMBER_OK) started = em_nn_register();
    if (started == EMBER_OK) started = em_models_register();
    if (started == EMBER_OK) started = em_train_register();
    if (started == EMBER_OK) started = em_infer_register();
    // Other threads see the failure too, so the message must not stay with this one.
    if (started != EMBER_OK)
        snprintf(start_message, sizeof start_message, "%s", ember_last_error());
}

ember_status ember_start(void)
{
    pthread_once(&once, start);
    return started == EMBER_OK ? EMBER_OK : em_fail(started, "%s", start_message);
}

const char *ember_version(void)
{
    return EMBER_VERSION;
}

int ember_abi(void)
{
    return EMBER_ABI;
}

void ember_log_to(void (*sink)(void *context, ember_log_level level, const char *line),
                  void *context)
{
    em_log_to(sink, context);
}

ember_status ember_use_allocator(const ember_allocator *allocator)
{
    static const ember_allocator system;
    if (!allocator) allocator = &system;
    if (!allocator->alloc != !allocator->free)
        return em_fail(EMBER_E_USAGE, "an allocator needs both alloc and free, or neither");
    if (em_alloc_live())
        return em_fail(
            EMBER_E_STATE,
            "the allocator has to be chosen before Ember's first call: %zu bytes are held",
            em_alloc_live());
    em_alloc_use(&(struct em_allocator){allocator->alloc, allocator->free, allocator->context});
    if (allocator->json) em_json_use_seam();
    return EMBER_OK;
}

const char *ember_nearest(const char *word, const char *const *names, size_t count)
{
    return em_did_you_mean(word, names, count);
}

void ember_quiet(bool quiet)
{
    em_log_threshold(quiet ? EM_LOG_WARN : EM_LOG_NOTE);
}

void ember_interrupt(void)
{
    em_interrupt_set(true);
}

void ember_free(void *p)
{
    em_free(p);
}

ember_status em_runtime_open(const ember_runtime *options, bool bf16_default,
                             struct em_runtime *runtime)
{
    static const ember_runtime none;
    if (!options) options = &none;
    EM_TRY(ember_start());
    *runtime = (struct em_runtime){
        .backend = options->backend == EMBER_BACKEND_REFERENCE ? EM_REFERENCE : EM_CPU};
    const bool native = em_gemm_native(EM_GEMM_BF16) && runtime->backend == EM_CPU;
    if (options->compute == EMBER_COMPUTE_BF16 && !native)
        em_note("this machine has no bf16 instructions for the chosen backend: computing in f32");
    runtime->bf16 = native && (options->compute == EMBER_COMPUTE_BF16 ||
                               (options->compute == EMBER_COMPUTE_DEFAULT && bf16_default));
    return em_pool_create(options->threads, &runtime->pool);
}

void em_runtime_close(struct em_runtime *runtime)
{
    em_pool_destroy(runtime->pool);
    *runtime = (struct em_runtime){0};
}

bool em_api_ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

ember_status em_api_refuse_gguf(const char *path)
{
    return em_api_ends_in(path, ".gguf")
               ? em_fail(EMBER_E_UNSUPPORTED,
                         "%s: this build reads Hugging Face folders, not GGUF files", path)
               : EMBER_OK;
}
