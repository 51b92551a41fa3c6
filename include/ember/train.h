/** @file train.h  Training from a recipe to a model's folder. */
#ifndef EMBER_TRAIN_H
#define EMBER_TRAIN_H

#include <stddef.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What to train and where. Start from {0}; all is borrowed during the call. */
typedef struct ember_train_options {
    ember_runtime runtime;   /**< compute: default what the recipe says, else bf16 where native */
    bool seed_given;         /**< runtime.seed replaces the recipe's */
    const char *recipe;      /**< a recipe file, or NULL */
    const char *preset;      /**< a preset's name, or NULL */
    const char *const *data; /**< [n_data] files, folders or globs, each a domain */
    size_t n_data;
    const char *const *set; /**< [n_set] "path.to.key=value"; stronger than the recipe */
    size_t n_set;
    const char *out; /**< the run's folder; NULL: runs/NAME of the recipe or preset */
    bool resume;     /**< goes on with the run in `out` */
    bool dry_run;    /**< stops before the first step, writes nothing */
} ember_train_options;

/** What a run gives back. Free with ember_train_result_deinit(). Threads: a value, nothing shares
 * it.
 */
typedef struct ember_train_result {
    char *text; /**< for people: what a dry run foresees, or the scores of a finished run */
    char *json; /**< the same as one JSON object */
} ember_train_result;

/**
 * Trains a model: see docs/configs.md for recipes. The folder gets the model with its last weights,
 * best/, report.html, README.md, logs/ and training/ with the states to go on from. Threads: any;
 * runs in folders of their own may go on side by side. ember_interrupt() stops all of them.
 *
 * @param result  owned by the caller; set on EMBER_OK only. NULL: not wanted.
 * @retval EMBER_E_USAGE        a path in `set` that does not exist.
 * @retval EMBER_E_CONFIG       the recipe; the message has file, path, value and range.
 * @retval EMBER_E_STATE        the folder is not empty, in use, or has nothing to go on from.
 * @retval EMBER_E_IO           a file, or a disk too small for the training states.
 * @retval EMBER_E_NUMERIC      loss or gradient became infinite or NaN; the last good state is
 * kept.
 * @retval EMBER_E_INTERRUPTED  stopped by ember_interrupt(), with everything saved.
 */
EMBER_API EMBER_CHECKED ember_status ember_train(const ember_train_options *options,
                                                 ember_train_result *result);
EMBER_API void ember_train_result_deinit(ember_train_result *result);

/** The name of the i-th recipe that comes with the library; NULL past the last. Static. */
EMBER_API const char *ember_preset_at(size_t i);

#ifdef __cplusplus
}
#endif
#endif
