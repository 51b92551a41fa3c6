// The folder of a run: whose it is, and whether there is something to go on from.
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "formats/state.h"
#include "train/run.h"

#define RECIPE "recipe.json"

// NAME of .../NAME.json, or the preset's.
static char *default_folder(const struct em_recipe_request *q)
{
    const char *name = q->file ? em_path_base(q->file) : q->preset ? q->preset : "run";
    const char *dot = strrchr(name, '.');
    return em_asprintf("runs/%.*s", (int)(dot && dot > name ? dot - name : (ptrdiff_t)strlen(name)),
                       name);
}

// Nothing but the lock is in it.
static ember_status is_empty(const char *dir, bool *empty)
{
    char **names;
    size_t count;
    enum em_path_kind kind;
    *empty = true;
    EM_TRY(em_path_probe(dir, &kind));
    if (kind == EM_PATH_ABSENT) return EMBER_OK;
    if (kind != EM_PATH_DIRECTORY)
        return em_fail(EMBER_E_CONFIG, "%s: is a file; --out has to be a folder", dir);
    EM_TRY(em_list_directory(dir, &names, &count));
    for (size_t i = 0; i < count && *empty; i++)
        *empty = strcmp(names[i], ".lock") == 0;
    em_names_free(names, count);
    return EMBER_OK;
}

static ember_status fresh(struct em_training *t)
{
    bool empty;
    EM_TRY(is_empty(t->run.dir, &empty));
    if (!empty)
        return em_fail(EMBER_E_STATE,
                       "%s: is not empty; --resume goes on with the run that is there, or take "
                       "another --out",
                       t->run.dir);
    t->run.fresh = !t->job->dry_run;
    return em_recipe_open(&t->job->recipe, &t->recipe);
}

static ember_status go_on(struct em_training *t)
{
    const struct em_recipe_request *q = &t->job->recipe;
    uint64_t step;
    char *path = NULL;
    enum em_path_kind exists = EM_PATH_ABSENT;
    // Cleaning up is the owner's business; a dry run owns nothing.
    if (t->job->dry_run)
        EM_TRY(em_state_find(t->run.dir, &t->run.state, &step));
    else
        EM_TRY(em_state_recover(t->run.dir, &t->run.state, &step));
    if (!(path = em_path_join(t->run.state ? t->run.state : t->run.dir, RECIPE)))
        return EMBER_E_NOMEM;
    json_t *saved = NULL;
    ember_status status = em_path_probe(path, &exists);
    if (status != EMBER_OK) {
        ; // not knowing whether there is a run, none is begun
    } else if (exists) {
        status = em_json_read(path, 0, 0, &saved);
        if (status == EMBER_OK) status = em_recipe_resume(q, saved, &t->recipe);
        if (status == EMBER_OK && !t->run.state)
            em_note("%s: has no state yet: the run starts from the beginning", t->run.dir);
    } else if (t->run.state) {
        status = em_fail(EMBER_E_FORMAT, "%s: is missing", path);
    } else if (q->file || q->preset) {
        status = fresh(t); // resumed before anything was written
    } else {
        status = em_fail(EMBER_E_STATE, "%s: there is no run to go on with", t->run.dir);
    }
    json_decref(saved);
    em_free(path);
    return status;
}

static ember_status write_recipe(const struct em_training *t)
{
    char *path = em_path_join(t->run.dir, RECIPE);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_json_write(path, t->recipe.json, 2);
    em_free(path);
    return status;
}

ember_status em_run_open(struct em_training *t)
{
    t->run.lock = -1;
    t->run.dir = t->job->out ? em_strdup(t->job->out) : default_folder(&t->job->recipe);
    if (!t->run.dir) return EMBER_E_NOMEM;
    if (!t->job->dry_run) {
        bool empty;
        // A folder that this run may not touch gets no lock file either.
        EM_TRY(is_empty(t->run.dir, &empty));
        if (empty || t->job->resume) {
            EM_TRY(em_make_directories(t->run.dir));
            EM_TRY(em_lock_directory(t->run.dir, &t->run.lock));
        }
    }
    EM_TRY(t->job->resume ? go_on(t) : fresh(t));
    return t->job->dry_run ? EMBER_OK : write_recipe(t);
}

void em_run_undo(const struct em_run_state *r)
{
    static const char *const names[] = {RECIPE,
                                        "data.json",
                                        "cache",
                                        "config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "chat_template.jinja",
                                        "generation_config.json"};
    for (size_t i = 0; r->fresh && i < sizeof names / sizeof *names; i++) {
        char *path = em_path_join(r->dir, names[i]);
        if (path && em_remove_tree(path) != EMBER_OK) em_warn("%s", ember_last_error());
        em_free(path);
    }
}

void em_run_close(struct em_run_state *r)
{
    if (r->lock >= 0) em_unlock_directory(r->lock);
    em_free(r->dir);
    em_free(r->state);
    *r = (struct em_run_state){.lock = -1};
}
