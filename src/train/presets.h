// The presets that the library carries: configs/*.json of the source tree, each a recipe.
#ifndef EM_TRAIN_PRESETS_H
#define EM_TRAIN_PRESETS_H

#include "base/json.h"

struct em_preset {
    const char *name, *text;
};
extern const struct em_preset em_presets[]; // generated; ends with a NULL name
const struct em_preset *em_preset_find(const char *name);

// Its recipe, owned. EMBER_E_CONFIG for an unknown name, with the nearest one.
ember_status em_preset_read(const char *name, json_t **recipe) EMBER_CHECKED;

#endif
