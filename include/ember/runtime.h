/** @file runtime.h  How Ember runs: threads, backend, number format. */
#ifndef EMBER_RUNTIME_H
#define EMBER_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/status.h>
#include <ember/version.h>

#ifdef __cplusplus
extern "C" {
#endif

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

/** How a call runs. Start from {0}. */
typedef struct ember_runtime {
    unsigned threads; /**< 0: what affinity and cgroup quota allow */
    ember_backend backend;
    ember_compute compute;
    uint64_t seed;
} ember_runtime;

/**
 * Registers the built-in components. Every other call does it when needed; call it first to learn
 * of a failure (EMBER_E_NOMEM), or of a bad EMBER_ISA (EMBER_E_USAGE). Threads: any, at any time;
 * the first call does it for all.
 */
EMBER_API EMBER_CHECKED ember_status ember_start(void);

/* ---- Hooks: for the whole process, to be set before the threads that use Ember ---- */

/** Only warnings and errors are logged. Threads: any, at any time; for all of them. */
EMBER_API void ember_quiet(bool quiet);

/** How much a line matters. Values are pinned. */
typedef enum ember_log_level {
    EMBER_LOG_DEBUG = 0,
    EMBER_LOG_NOTE = 1, /**< progress and facts; ember_quiet() leaves them out */
    EMBER_LOG_WARN = 2  /**< something that the caller will want to know */
} ember_log_level;

/**
 * Gives every line that Ember would write to stderr to `sink` instead: no line has a newline or a
 * control character, and progress is a line every ten seconds. Errors are not logged: calls return
 * them.
 *
 * Threads: any, at any time, for all of them. Calls of `sink` come from any thread, one at a time;
 * when ember_log_to() returns, the sink before it is not running and will not be called. A sink
 * must not call Ember.
 *
 * @param sink     NULL: stderr.
 * @param context  handed to it.
 */
EMBER_API void ember_log_to(void (*sink)(void *context, ember_log_level level, const char *line),
                            void *context);

/** Where memory comes from. Start from {0}. */
typedef struct ember_allocator {
    /** At least `bytes` bytes with any alignment, or NULL; from any thread. NULL: the C library's,
     * for both. */
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *p); /**< never gets NULL */
    void *context;
    /**
     * JSON values too. They are jansson's, whose allocator belongs to the process; this sets it.
     * Only for programs that hold no jansson value now and do not choose jansson's allocator
     * themselves. Without it Ember never touches jansson's allocator.
     */
    bool json;
} ember_allocator;

/**
 * Every later allocation of Ember's comes from `allocator`: models, their weights and the memory
 * of a pass too. Not from it: the stacks of threads, mapped files, what the C library takes for
 * itself, and JSON values unless asked for. When alloc gives NULL, the call that needed memory
 * returns EMBER_E_NOMEM and loses nothing.
 *
 * Threads: before any other call of Ember's, on one thread. The functions are called from any.
 *
 * @param allocator  copied. NULL: the C library's.
 * @retval EMBER_E_STATE  Ember holds memory already.
 * @retval EMBER_E_USAGE  one of alloc and free is missing.
 */
EMBER_API EMBER_CHECKED ember_status ember_use_allocator(const ember_allocator *allocator);

/**
 * Asks the long calls (training, generation) that run now to stop soon, with everything saved.
 * Threads: any, at any time, and safe in a signal handler; for the whole process.
 */
EMBER_API void ember_interrupt(void);

/**
 * "Did you mean": the one of `count` names that is nearest to a mistyped word by insertions,
 * deletions, replacements and swaps of neighbours, at most a third of its length; NULL where none
 * is. Borrowed from `names`. Threads: any.
 */
EMBER_API const char *ember_nearest(const char *word, const char *const *names, size_t count);

/** Frees what a call gave to its caller, where its description says so; NULL is fine. Threads: any.
 */
EMBER_API void ember_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
