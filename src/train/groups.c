// Groups of parameters with a learning rate or a weight decay of their own, or frozen.
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "models/model.h"
#include "train/recipe.h"

// In the order of ember_role, from 1.
#define ROLES "any|other|embedding|head|attention|convolution|ffn|expert|router|norm"

const ember_option em_group_table[] = {
    EMBER_OPT_STRING(struct em_param_group, pattern,
                     "of the parameters' paths; * stands for any text, ? for any character"),
    EMBER_OPT_ENUM(struct em_param_group, role, 0, ROLES, "what they are for"),
    EMBER_OPT_DOUBLE(struct em_param_group, lr, -1, 0, 10,
                     "their peak learning rate, under the run's schedule"),
    EMBER_OPT_DOUBLE(struct em_param_group, lr_factor, -1, 0, 1e6, "or times the run's"),
    EMBER_OPT_DOUBLE(struct em_param_group, weight_decay, -1, 0, 10,
                     "of those that decay: matrices, but for what a layer spares"),
    EMBER_OPT_BOOL(struct em_param_group, frozen, false,
                   "they stay as they are, without gradients and moments"),
    {0},
};

// ---- reading ----

static ember_status read_group(const json_t *object, const char *where, struct em_param_group *g)
{
    char found[96];
    if (!json_is_object(object))
        return em_fail(EMBER_E_CONFIG, "%s has to be an object, not %s", where,
                       em_json_text(object, found, sizeof found));
    EM_TRY(em_options_read(em_group_table, object, where, NULL, g));
    g->says_frozen = json_is_boolean(json_object_get(object, "frozen"));
    if (!*g->pattern && !json_object_get(object, "role"))
        return em_fail(EMBER_E_CONFIG, "%s needs a pattern or a role, or both", where);
    if (g->lr >= 0 && g->lr_factor >= 0)
        return em_fail(EMBER_E_CONFIG, "%s: lr and lr_factor exclude each other", where);
    if (g->lr < 0 && g->lr_factor < 0 && g->weight_decay < 0 && !g->says_frozen)
        return em_fail(EMBER_E_CONFIG,
                       "%s says nothing of its parameters: lr, lr_factor, weight_decay or frozen",
                       where);
    return EMBER_OK;
}

ember_status em_groups_read(struct em_recipe *r)
{
    const json_t *list = json_object_get(json_object_get(r->json, "train"), "groups");
    char found[96];
    if (!list || json_is_null(list)) return EMBER_OK;
    if (!json_is_array(list))
        return em_fail(EMBER_E_CONFIG, "%s: train.groups has to be a list of groups, not %s",
                       r->name, em_json_text(list, found, sizeof found));
    r->group_count = json_array_size(list);
    if (!r->group_count) return EMBER_OK;
    r->groups = em_arena_alloc(r->arena, r->group_count * sizeof *r->groups);
    if (!r->groups) return EMBER_E_NOMEM;
    for (size_t i = 0; i < r->group_count; i++) {
        const char *where = em_arena_printf(r->arena, "%s: train.groups[%zu]", r->name, i);
        if (!where) return EMBER_E_NOMEM;
        EM_TRY(read_group(json_array_get(list, i), where, &r->groups[i]));
    }
    return EMBER_OK;
}

// ---- matching ----

// Only the last * is ever tried again, so this takes time by the product of both lengths at most.
static bool matches(const char *pattern, const char *text)
{
    const char *star = NULL, *from = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool has(const struct em_param_group *g, const struct em_param *p)
{
    return (!*g->pattern || matches(g->pattern, p->tensor.name)) &&
           (!g->role || g->role == (int)p->role + 1);
}

// A path with * for its numbers, as one would write it in a pattern.
static char *general_path(struct em_arena *arena, const char *path)
{
    char *text = em_arena_strdup(arena, path), *to = text;
    for (const char *at = text; at && *at;) {
        const size_t digits = strspn(at, "0123456789");
        const bool number = digits && (at == text || at[-1] == '.') && at[digits] == '.';
        if (number) {
            *to++ = '*';
            at += digits;
        } else {
            *to++ = *at++;
        }
    }
    if (to) *to = '\0';
    return text;
}

// Names that a pattern may have meant: the nearest ones, or else what there is.
static ember_status no_match(const struct em_recipe *r, size_t i, const struct em_model *m)
{
    enum { NAMES = 3 };
    struct em_arena arena = {0};
    const struct em_params *params = &m->params;
    const char **name = em_arena_alloc(&arena, (params->count + 1) * sizeof *name),
               *shown[NAMES] = {"", "", ""}, *near;
    size_t n = 0, count = 0;
    for (size_t p = 0; name && p < params->count; p++) {
        const char *path = general_path(&arena, params->param[p]->tensor.name);
        bool known = !path;
        for (size_t k = 0; k < n && !known; k++)
            known = strcmp(name[k], path) == 0;
        if (!known) name[n++] = path;
    }
    while (count < NAMES && (near = em_did_you_mean(r->groups[i].pattern, name, n))) {
        shown[count++] = near;
        for (size_t k = 0; k < n; k++)
            if (name[k] == near) name[k] = name[--n];
    }
    const bool guessed = count > 0;
    for (size_t k = 0; k < n && !guessed && count < NAMES; k++)
        shown[count++] = name[k];
    const char *roles = em_group_table[1].text;
    for (int k = 0; k < r->groups[i].role; k++)
        roles = strchr(roles, '|') + 1;
    const ember_status status = em_fail(
        EMBER_E_CONFIG,
        "%s: train.groups[%zu]: no parameter of the model is called \"%s\"%s%.*s; %s %s%s%s%s%s",
        r->name, i, *r->groups[i].pattern ? r->groups[i].pattern : "*",
        r->groups[i].role ? " and has the role " : "",
        r->groups[i].role ? (int)strcspn(roles, "|") : 0, roles,
        guessed ? "did you mean" : "there are", shown[0], count > 1 ? ", " : "", shown[1],
        count > 2 ? ", " : "", shown[2]);
    em_arena_deinit(&arena);
    return status;
}

// What a group says is laid over what was said before.
static void mark(const struct em_param_group *g, struct em_param *p)
{
    if (g->lr >= 0) p->lr = g->lr;
    if (g->lr_factor >= 0) {
        p->lr_factor = g->lr_factor;
        p->lr = -1;
    }
    if (g->weight_decay >= 0) p->weight_decay = g->weight_decay;
    if (!g->says_frozen) return;
    p->held = g->frozen;
    p->frozen = g->frozen || p->init == EMBER_INIT_BUFFER;
}

static void tell_group(const struct em_param_group *g, size_t i, size_t params, size_t values,
                       bool decays)
{
    char rate[48] = "", decay[80] = "";
    if (g->lr >= 0) snprintf(rate, sizeof rate, ", lr %g", g->lr);
    if (g->lr_factor >= 0) snprintf(rate, sizeof rate, ", %g times the lr", g->lr_factor);
    if (g->weight_decay >= 0)
        snprintf(decay, sizeof decay, ", weight decay %g%s", g->weight_decay,
                 decays ? "" : ", but none of them decays");
    em_note("train.groups[%zu]: %zu parameters of %zu values%s%s%s", i, params, values, rate, decay,
            !g->says_frozen ? ""
            : g->frozen     ? ", frozen"
                            : ", not frozen");
}

ember_status em_groups_apply(const struct em_recipe *r, struct em_model *m, bool tell)
{
    for (size_t i = 0; i < r->group_count; i++) {
        size_t params = 0, values = 0;
        bool decays = false;
        for (size_t k = 0; k < m->params.count; k++) {
            struct em_param *p = m->params.param[k];
            if (!has(&r->groups[i], p)) continue;
            mark(&r->groups[i], p);
            params++;
            decays = decays || p->decay;
            values += ember_tensor_count(&p->tensor);
        }
        if (!params) return no_match(r, i, m);
        if (tell) tell_group(&r->groups[i], i, params, values, decays);
    }
    return EMBER_OK;
}
