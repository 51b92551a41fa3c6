/**
 * @file plugin.h  Plug-ins: shared objects that bring components of their own.
 *
 * A plug-in is written against <ember/layer.h> and <ember/ops.h> (and <ember/operation.h>, for
 * operations of its own), defines the object `ember_plugin`, and is linked as a shared object
 * without the library: the program that loads it has Ember's functions, be it `ember` itself or
 * any program that uses libember.
 *
 *     static const ember_layer_type *const layers[] = {&my_mixer, &my_router, NULL};
 *     const ember_plugin_descriptor ember_plugin = {
 *         .abi = EMBER_PLUGIN_ABI, .name = "mine", .version = "1.0", .layers = layers};
 *
 * What is promised: as long as EMBER_PLUGIN_ABI is the same, a compiled plug-in goes on working
 * with later libraries. Functions and enumerators may be added under one number; a change of any
 * structure, value or function in the headers named above takes the next one, and a plug-in of
 * another number is refused. Once loaded, a plug-in's components are like those built in: they are
 * named in configs, listed, documented, planned, trained and run, and a channel mixer can be an
 * expert.
 *
 * A plug-in is code that runs with its user's rights. Ember loads what it is told to load, and
 * never because a model names it.
 */
#ifndef EMBER_PLUGIN_H
#define EMBER_PLUGIN_H

#include <ember/layer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The number of the interface that this header describes. */
#define EMBER_PLUGIN_ABI 2

/** What a plug-in says of itself. All of it has to live as long as the program. */
typedef struct ember_plugin_descriptor {
    unsigned abi;        /**< EMBER_PLUGIN_ABI; first in every version of this structure */
    const char *name;    /**< [a-z][a-z0-9_]*: models that use it record it */
    const char *version; /**< as its author counts */
    const ember_layer_type *const *layers; /**< ends with NULL; at least one */
} ember_plugin_descriptor;

/** Defined by plug-ins, once each; programs and the library have none. */
EMBER_API extern const ember_plugin_descriptor ember_plugin;

/**
 * Loads a plug-in: from now on its components are known. Loading the same file again does nothing.
 * Before models are opened that need it; other calls may go on meanwhile, from any thread.
 *
 * @param path  the shared object. Only this very file: no search path applies.
 * @retval EMBER_E_IO           there is no such file, or it cannot be read.
 * @retval EMBER_E_FORMAT       no shared object, or not one of a plug-in.
 * @retval EMBER_E_UNSUPPORTED  it was made for another EMBER_PLUGIN_ABI.
 * @retval EMBER_E_CONFIG       a component of it is not well-formed: a missing function, or an
 *                              option without a name, help or sensible range.
 * @retval EMBER_E_STATE        a component, or a plug-in, of that name is registered already.
 */
EMBER_API EMBER_CHECKED ember_status ember_plugin_load(const char *path);

#ifdef __cplusplus
}
#endif
#endif
