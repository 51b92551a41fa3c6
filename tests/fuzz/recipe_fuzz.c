// A recipe from anybody: refused, or every number of it lies in its option's range, and it has
// something to train and something to train on.
#include <ember/runtime.h>
#include <math.h>

#include "base/json.h"
#include "base/log.h"
#include "fuzz/folder.h"
#include "train/recipe.h"

#define RECIPE "recipe.json"

static void check_numbers(const ember_option *table, const void *settings)
{
    for (const ember_option *o = table; o->name; o++) {
        const char *field = (const char *)settings + o->offset;
        if (o->type == EMBER_OPTION_SIZE) {
            const double v = (double)*(const size_t *)(const void *)field;
            require(v >= o->min && v <= o->max);
        } else if (o->type == EMBER_OPTION_DOUBLE) {
            const double v = *(const double *)(const void *)field;
            require(v >= o->min && v <= o->max && isfinite(v));
        } else if (o->type == EMBER_OPTION_ENUM) {
            require(*(const int *)(const void *)field >= 0);
        }
    }
}

// Models of elsewhere are not the recipe's: what the path names is no part of the input.
static bool names_a_path(const uint8_t *data, size_t size)
{
    json_t *root;
    bool named = false;
    if (em_json_parse(RECIPE, (const char *)data, size, EM_JSON_COMMENTS, &root) != EMBER_OK)
        return false;
    const char *model = json_string_value(json_object_get(root, "model"));
    named = model && (strchr(model, '/') || em_path_exists(model));
    json_decref(root);
    return named;
}

static void target(const uint8_t *data, size_t size)
{
    em_log_threshold(EM_LOG_WARN + 1);
    require(ember_start() == EMBER_OK);
    if (names_a_path(data, size)) return;
    fuzz_put(RECIPE, data, size);
    struct em_recipe r;
    if (em_recipe_open(&(struct em_recipe_request){.file = fuzz_path(RECIPE)}, &r) != EMBER_OK) {
        require_reason(RECIPE);
        return;
    }
    require((r.model != NULL) != (r.model_folder != NULL));
    require((r.source_count > 0) != (*r.data.ids != '\0'));
    require(r.optimizer && r.schedule && r.optimizer_options && r.schedule_options);
    check_numbers(em_train_settings_table, &r.train);
    check_numbers(em_data_settings_table, &r.data);
    for (size_t i = 0; i < r.source_count; i++)
        require(r.sources[i].path && *r.sources[i].path && r.sources[i].weight >= 0);
    em_recipe_close(&r);
}
