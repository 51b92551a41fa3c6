#include "train/presets.h"

#include <string.h>

const struct em_preset *em_preset_find(const char *name)
{
    for (const struct em_preset *p = em_presets; p->name; p++)
        if (strcmp(p->name, name) == 0) return p;
    return NULL;
}

ember_status em_preset_read(const char *name, json_t **recipe)
{
    const struct em_preset *preset = em_preset_find(name);
    if (!preset) {
        const char *names[64];
        size_t n = 0;
        char list[256] = "";
        for (const struct em_preset *p = em_presets; p->name && n < 64; p++) {
            names[n++] = p->name;
            if (strlen(list) + strlen(p->name) + 3 > sizeof list) continue;
            if (*list) strcat(list, ", ");
            strcat(list, p->name);
        }
        const char *near = em_did_you_mean(name, names, n);
        return em_fail(EMBER_E_CONFIG, "no preset is called \"%s\"%s%s%s (there are: %s)", name,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "", list);
    }
    return em_json_parse(name, preset->text, strlen(preset->text), EM_JSON_COMMENTS, recipe);
}
