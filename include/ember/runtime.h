/** @file runtime.h  How Ember runs: threads, backend, number format. */
#ifndef EMBER_RUNTIME_H
#define EMBER_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include <ember/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version as text, "0.1.0"; static. */
EMBER_API const char *ember_version(void);

typedef enum ember_backend {
    EMBER_BACKEND_DEFAULT, /**< the fastest that this build has */
    EMBER_BACKEND_REFERENCE,
    EMBER_BACKEND_CPU
} ember_backend;

typedef enum ember_compute {
    EMBER_COMPUTE_DEFAULT, /**< what the call says: bf16 where the machine has instructions for it
                            */
    EMBER_COMPUTE_F32,
    EMBER_COMPUTE_BF16
} ember_compute;

/** Start from {0}. */
typedef struct ember_runtime {
    unsigned threads; /**< 0: what affinity and cgroup quota allow */
    ember_backend backend;
    ember_compute compute;
    uint64_t seed;
} ember_runtime;

/**
 * Registers the built-in components. Every other call does it when needed; call it first to learn
 * of a failure (EMBER_E_NOMEM), or of a bad EMBER_ISA (EMBER_E_USAGE).
 */
EMBER_API EMBER_CHECKED ember_status ember_start(void);

/** Only warnings and errors are written to stderr. */
EMBER_API void ember_quiet(bool quiet);

/** Asks a long call (training, generation) to stop soon, with everything saved. Safe in a signal
 * handler. */
EMBER_API void ember_interrupt(void);

/** Frees what a call gave to its caller, where its description says so; NULL is fine. */
EMBER_API void ember_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
