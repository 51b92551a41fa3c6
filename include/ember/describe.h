/**
 * @file describe.h  What there is and what it takes, as text for people or as JSON for programs:
 * components, models, plans, the machine.
 *
 * Every describing function writes an owned, NUL-terminated text (ember_free()) that ends with a
 * newline: lines for people, or with `json` one JSON object with the same figures (bytes and counts
 * as integers).
 * Threads: any, at any time; calls share nothing.
 */
#ifndef EMBER_DESCRIBE_H
#define EMBER_DESCRIBE_H

#include <stdbool.h>
#include <stddef.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The registered components: one line of help each, or everything about those called `name`:
 * options with types, defaults, ranges and help.
 *
 * @param name  NULL: all.
 * @param kind  "norm", "router", ..: only these; NULL: every kind.
 * @retval EMBER_E_USAGE  there is no such name or kind; the message has the nearest.
 */
EMBER_API EMBER_CHECKED ember_status ember_registry_describe(const char *name, const char *kind,
                                                             bool json, char **text);

/** The same as a page of Markdown, always with everything: docs/components.md is all of it. */
EMBER_API EMBER_CHECKED ember_status ember_registry_markdown(const char *name, const char *kind,
                                                             char **text);

/**
 * The name of the i-th registered component, in order of kinds' registration; NULL past the last,
 * and where ember_start() failed. Names repeat where kinds share one. Static.
 *
 * @param kind  set to the kind's name where a component is returned; may be NULL.
 */
EMBER_API const char *ember_component_at(size_t i, const char **kind);

/**
 * A model folder, a .safetensors file or a config: the config's summary, parameters, what the
 * blocks consist of, experts, tensors, metadata, and where config and weights disagree.
 *
 * @retval EMBER_E_IO      a file is missing.
 * @retval EMBER_E_FORMAT  one is malformed.
 */
EMBER_API EMBER_CHECKED ember_status ember_model_inspect(const char *path, bool json, char **text);

/**
 * The build and the machine: version, instruction sets found and used, threads, and what the
 * machine does at best, measured now (about a tenth of a second): floating-point operations per
 * second in f32 and bf16, bytes read per second.
 */
EMBER_API EMBER_CHECKED ember_status ember_machine_describe(const ember_runtime *runtime, bool json,
                                                            char **text);

/** Start from {0}. */
typedef struct ember_plan_options {
    ember_runtime runtime; /**< compute: default as a run would choose */
    size_t batch;          /**< sequences; 0: the recipe's, else 8 in training and 1 in inference */
    size_t seq;            /**< tokens of each; 0: the recipe's, else 512 */
    const char *const *data; /**< [n_data] texts to be trained on: their tokens and steps */
    size_t n_data;
} ember_plan_options;

/**
 * What training and running a model take, by the dry run that both begin with, without weights and
 * without taking memory: parameters in all and of a token, memory by kind, floating-point
 * operations a token, bytes of state.
 *
 * @param subject  a model folder, a config, a recipe, or a preset's name.
 * @param options  NULL: all defaults.
 * @retval EMBER_E_CONFIG  the config or recipe; or there is no such file and no such preset.
 */
EMBER_API EMBER_CHECKED ember_status ember_plan_describe(const char *subject,
                                                         const ember_plan_options *options,
                                                         bool json, char **text);

#ifdef __cplusplus
}
#endif
#endif
