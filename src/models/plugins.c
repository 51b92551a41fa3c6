// Which plug-ins a model needs: recorded in its config.json under "ember", looked for when it is
// opened. A record names no file: what is loaded is the user's to say.
#include <string.h>

#include "base/log.h"
#include "models/model.h"
#include "models/model_priv.h"

static const json_t *record_of(const json_t *config)
{
    return json_object_get(json_object_get(config, "ember"), "plugins");
}

ember_status em_model_check_plugins(const json_t *config, const char *where)
{
    const json_t *list = record_of(config);
    if (list && !json_is_array(list))
        return em_fail(EMBER_E_CONFIG, "%s.ember.plugins has to be a list", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, "name")),
                   *version = json_string_value(json_object_get(entry, "version"));
        if (!em_name_is_plain(name))
            return em_fail(EMBER_E_CONFIG, "%s.ember.plugins[%zu].name has to be a plug-in's name",
                           where, i);
        const struct em_plugin *plugin = em_registry_plugin(name);
        if (!plugin)
            return em_fail(EMBER_E_CONFIG,
                           "%s: the model has parts of the plug-in \"%s\"%s%.64s, which is not "
                           "loaded: give it with --plugin FILE.so",
                           where, name, version ? " " : "", version ? version : "");
        if (version && strcmp(version, plugin->version) != 0)
            em_note("%s: written with version %.64s of the plug-in \"%s\", opened with %s", where,
                    version, name, plugin->version);
    }
    return EMBER_OK;
}

static json_t *record(const struct em_params *params)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < params->plugins; i++)
        if (json_array_append_new(list, json_pack("{s:s, s:s}", "name", params->plugin[i]->name,
                                                  "version", params->plugin[i]->version)) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

ember_status em_model_record_plugins(const struct em_model *m, json_t *config)
{
    json_t *own = json_object_get(config, "ember");
    if (record_of(config)) json_object_del(own, "plugins");
    if (!m->params.plugins) return EMBER_OK;
    if (!json_is_object(own) && json_object_set_new(config, "ember", own = json_object()) != 0)
        return em_fail(EMBER_E_NOMEM, "%s: out of memory", m->name);
    return json_object_set_new(own, "plugins", record(&m->params)) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "%s: out of memory", m->name);
}
