/**
 * @file describe.h  What there is and what it takes, as text for people or as JSON for programs:
 * components, models, plans, the machine.
 *
 * Every function writes an owned, NUL-terminated text (ember_free()) that ends with a newline:
 * lines for people, or with `json` one JSON object with the same figures (bytes and counts as
 * integers).
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

#ifdef __cplusplus
}
#endif
#endif
