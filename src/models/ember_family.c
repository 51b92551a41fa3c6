// Free block lists: the config is the form itself.
#include "models/family.h"

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    *form = json_deep_copy(config);
    return *form ? EMBER_OK : em_fail(EMBER_E_NOMEM, "%s: out of memory", where);
}

extern const struct em_family em_family_ember;
const struct em_family em_family_ember = {
    .name = "ember",
    .help = "a free list of blocks, each any registered component",
    .translate = translate,
};
