/** @file status.h  What can go wrong, and how a caller learns of it. */
#ifndef EMBER_STATUS_H
#define EMBER_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define EMBER_API __attribute__((visibility("default")))
#define EMBER_CHECKED __attribute__((warn_unused_result))
#define EMBER_PRINTF(string, first) __attribute__((__format__(__printf__, string, first)))
#else
#define EMBER_API
#define EMBER_CHECKED
#define EMBER_PRINTF(string, first)
#endif

/** Result of every call that can fail. Values are pinned: they are part of the ABI. */
typedef enum ember_status {
    EMBER_OK = 0,
    EMBER_E_NOMEM = 1,        /**< out of memory, or a size that does not fit into size_t */
    EMBER_E_IO = 2,           /**< the operating system refused: the message has path and errno */
    EMBER_E_FORMAT = 3,       /**< a file is malformed: the message has path and place */
    EMBER_E_CONFIG = 4,       /**< a config or recipe value is unknown, missing or out of range */
    EMBER_E_SHAPE = 5,        /**< shapes do not fit each other */
    EMBER_E_RANGE = 6,        /**< a value (token, index, count) is outside its range */
    EMBER_E_UNSUPPORTED = 7,  /**< well-formed, but this build or component cannot do it */
    EMBER_E_STATE = 8,        /**< not now: locked, closed, or called in the wrong order */
    EMBER_E_NUMERIC = 9,      /**< NaN or infinity where a finite number belongs */
    EMBER_E_INTERRUPTED = 10, /**< stopped early by request, with everything saved */
    EMBER_E_USAGE = 11,       /**< wrong usage of the command line */
    EMBER_E_INTERNAL = 12     /**< a bug of Ember's own */
} ember_status;

/** Passes a failure on: for functions that return ember_status. */
#define EMBER_TRY(call)                                                                            \
    do {                                                                                           \
        const ember_status ember_try_status_ = (call);                                             \
        if (ember_try_status_ != EMBER_OK) return ember_try_status_;                               \
    } while (0)

/** The status's name, for instance "EMBER_E_IO"; "EMBER_E_?" for a value outside the list. Static.
 */
EMBER_API const char *ember_status_name(ember_status status);

/**
 * What the last failed call on this thread said: one line without a newline that names the object,
 * what was expected and what was found; "" when nothing failed yet. Borrowed: valid until the next
 * failing call on this thread. Needs no memory, so it works for EMBER_E_NOMEM too.
 */
EMBER_API const char *ember_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
