#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "formats/manifest.h"
#include "formats/state.h"

enum { KEEP = 2 };

// ---- writing ----

static void forget(struct em_state_writer *w)
{
    em_free(w->parent);
    em_free(w->temporary);
    em_free(w->final);
    *w = (struct em_state_writer){0};
}

static ember_status make_folder(const char *path)
{
    if (em_io()->mkdir(path, 0777) != 0) return em_fail_errno(path, "cannot make the folder");
    return EMBER_OK;
}

ember_status em_state_begin(const char *dir, uint64_t step, struct em_state_writer *w)
{
    struct em_state_writer s = {.step = step};
    s.parent = em_path_join(dir, "training");
    if (s.parent) s.final = em_asprintf("%s/step-%llu", s.parent, (unsigned long long)step);
    if (s.final) s.temporary = em_asprintf("%s.tmp", s.final);
    ember_status status = s.temporary ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_make_directories(s.parent);
    if (status == EMBER_OK) status = em_remove_tree(s.temporary);
    if (status == EMBER_OK) status = make_folder(s.temporary);
    if (status == EMBER_OK)
        *w = s;
    else
        forget(&s);
    return status;
}

char *em_state_file(const struct em_state_writer *w, const char *name)
{
    return em_path_join(w->temporary, name);
}

void em_state_abort(struct em_state_writer *w)
{
    if (w->temporary && em_remove_tree(w->temporary) != EMBER_OK) em_warn("%s", ember_last_error());
    forget(w);
}

static ember_status read_and_verify(const char *folder, bool content, uint64_t *step)
{
    struct em_manifest m;
    EM_TRY(em_manifest_read(folder, &m));
    const ember_status status = em_manifest_verify(folder, &m, content);
    *step = m.step;
    em_manifest_deinit(&m);
    return status;
}

// Renamed first: a folder that is half removed is then garbage by its name, and nobody reads it.
static ember_status discard(const char *folder)
{
    char *garbage = em_asprintf("%s.removed.tmp", folder); // step-N.tmp may be being written
    if (!garbage) return EMBER_E_NOMEM;
    ember_status status = em_remove_tree(garbage);
    if (status == EMBER_OK && em_io()->rename(folder, garbage) != 0)
        status = em_fail_errno(folder, "cannot rename");
    if (status == EMBER_OK) status = em_remove_tree(garbage);
    em_free(garbage);
    return status;
}

// Room for the new state under its final name. One of the same step that is whole steps aside, and
// stays until the new one is in place.
static ember_status make_way(const struct em_state_writer *w)
{
    enum em_path_kind kind;
    uint64_t step;
    EM_TRY(em_path_probe(w->final, &kind));
    if (kind == EM_PATH_ABSENT) return EMBER_OK;
    const ember_status whole = read_and_verify(w->final, false, &step);
    if (whole == EMBER_E_FORMAT) return discard(w->final);
    EM_TRY(whole);
    char *old = em_asprintf("%s.old", w->final);
    if (!old) return EMBER_E_NOMEM;
    ember_status status = em_remove_tree(old);
    if (status == EMBER_OK && em_io()->rename(w->final, old) != 0)
        status = em_fail_errno(w->final, "cannot rename");
    em_free(old);
    return status;
}

static ember_status write_manifest(const struct em_state_writer *w)
{
    struct em_manifest m;
    EM_TRY(em_manifest_scan(w->temporary, w->step, &m));
    const ember_status status = em_manifest_write(w->temporary, &m);
    em_manifest_deinit(&m);
    return status;
}

// LATEST is for people and scripts: nothing here decides by it.
static ember_status point_latest(const char *parent, const char *state)
{
    char *path = em_path_join(parent, "LATEST"), *line = em_asprintf("%s\n", em_path_base(state));
    const ember_status status =
        path && line ? em_write_file(path, line, strlen(line)) : EMBER_E_NOMEM;
    em_free(path);
    em_free(line);
    return status;
}

// ---- leftovers ----

// Whether a durable write, interrupted, left this name: NAME.PID-SERIAL.tmp.
static bool is_temporary(const char *name)
{
    const size_t length = strlen(name);
    if (length < 5 || strcmp(name + length - 4, ".tmp") != 0) return false;
    const char *p = name + length - 4, *end = p;
    while (p > name && p[-1] >= '0' && p[-1] <= '9')
        p--;
    if (p == end || p == name || p[-1] != '-') return false;
    end = --p;
    while (p > name && p[-1] >= '0' && p[-1] <= '9')
        p--;
    return p < end && p > name + 1 && p[-1] == '.';
}

// Only plain files: a folder of such a name is somebody else's.
static void clean_temporaries(const char *folder)
{
    char **names;
    size_t count;
    if (!em_path_is_directory(folder) || em_list_directory(folder, &names, &count) != EMBER_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        char *path = is_temporary(names[i]) ? em_path_join(folder, names[i]) : NULL;
        if (path && !em_path_is_directory(path) && em_io()->unlink(path) != 0)
            em_warn("%s: cannot remove", path);
        em_free(path);
    }
    em_names_free(names, count);
}

// ---- finding ----

struct found {
    char *path;
    uint64_t step;       // by the manifest, or by the name where that cannot be read
    ember_status status; // of the manifest and the sizes
    bool old;
};

struct list {
    struct found *items;
    size_t count, capacity;
};

static void list_deinit(struct list *l)
{
    for (size_t i = 0; i < l->count; i++)
        em_free(l->items[i].path);
    em_free(l->items);
}

enum kind { OTHER, STATE, OLD, GARBAGE };

// step-N, step-N.old, or what a save or a removal left behind (step-*.tmp).
static enum kind kind_of(const char *name, uint64_t *step)
{
    if (strncmp(name, "step-", 5) != 0) return OTHER;
    const size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, ".tmp") == 0) return GARBAGE;
    const size_t digits = strspn(name + 5, "0123456789");
    if (digits == 0 || digits > 19) return OTHER;
    *step = strtoull(name + 5, NULL, 10);
    if (name[5 + digits] == '\0') return STATE;
    return strcmp(name + 5 + digits, ".old") == 0 ? OLD : OTHER;
}

// Newest first; of one step, the one that replaced the other.
static int newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->step != y->step) return x->step > y->step ? -1 : 1;
    return (int)x->old - (int)y->old;
}

static ember_status consider(struct list *l, const char *parent, const char *name, bool clean)
{
    struct found f = {0};
    const enum kind kind = kind_of(name, &f.step);
    if (kind == OTHER || (kind == GARBAGE && !clean)) return EMBER_OK;
    f.path = em_path_join(parent, name);
    if (!f.path) return EMBER_E_NOMEM;
    if (kind == GARBAGE) {
        if (em_remove_tree(f.path) != EMBER_OK) em_warn("%s", ember_last_error());
        em_free(f.path);
        return EMBER_OK;
    }
    f.old = kind == OLD;
    f.status = read_and_verify(f.path, false, &f.step);
    const ember_status status = em_grow(&l->items, &l->capacity, l->count + 1, sizeof f);
    if (status == EMBER_OK)
        l->items[l->count++] = f;
    else
        em_free(f.path);
    return status;
}

static ember_status list_states(const char *parent, bool clean, struct list *out)
{
    struct list l = {0};
    char **names = NULL;
    size_t count = 0;
    ember_status status = em_list_directory(parent, &names, &count);
    for (size_t i = 0; i < count && status == EMBER_OK; i++)
        status = consider(&l, parent, names[i], clean);
    em_names_free(names, count);
    if (status != EMBER_OK) {
        list_deinit(&l);
        return status;
    }
    if (l.count) qsort(l.items, l.count, sizeof *l.items, newest_first);
    *out = l;
    return EMBER_OK;
}

// Whether a state's failure is its own, and not this process's (no memory) or a later Ember's.
static bool is_damage(ember_status status)
{
    return status == EMBER_E_FORMAT || status == EMBER_E_IO || status == EMBER_E_RANGE;
}

// The newest that is whole. Where there are states and none is, that is a failure and not a run
// without states, which would begin anew; then nothing is removed either.
static ember_status choose(const struct list *l, const char *parent, bool clean, char **path,
                           uint64_t *step)
{
    ember_status worst = EMBER_E_FORMAT;
    for (size_t i = 0; i < l->count; i++) {
        struct found *f = &l->items[i];
        uint64_t s;
        f->status = read_and_verify(f->path, true, &s);
        if (f->status != EMBER_OK && !is_damage(f->status)) return f->status;
        if (f->status != EMBER_OK) {
            if (f->status == EMBER_E_IO) worst = EMBER_E_IO;
            em_note("%s is not whole and is skipped: %s", f->path, ember_last_error());
            continue;
        }
        *path = em_strdup(f->path);
        *step = s;
        if (!*path) return EMBER_E_NOMEM;
        // An error of reading may pass; damage does not.
        for (size_t k = 0; k < i && clean; k++)
            if (l->items[k].status == EMBER_E_FORMAT && discard(l->items[k].path) != EMBER_OK)
                em_warn("%s", ember_last_error());
        return EMBER_OK;
    }
    if (l->count == 0) return EMBER_OK;
    return em_fail_in(worst,
                      "%s: none of %zu training states is whole (without this folder the "
                      "run begins anew); the oldest",
                      parent, l->count);
}

static ember_status mend_latest(const char *parent, const char *state)
{
    struct em_buf line = {.limit = 64};
    char *path = em_path_join(parent, "LATEST");
    const char *name = em_path_base(state);
    bool right = false;
    if (path && em_path_exists(path) && em_read_file(path, line.limit, &line) == EMBER_OK &&
        line.data)
        right = strlen(name) + 1 == line.size && strncmp(line.data, name, strlen(name)) == 0;
    em_buf_deinit(&line);
    em_free(path);
    return right ? EMBER_OK : point_latest(parent, state);
}

static ember_status find(const char *dir, bool clean, char **path, uint64_t *step)
{
    char *parent = em_path_join(dir, "training"), *found = NULL;
    if (!parent) return EMBER_E_NOMEM;
    enum em_path_kind kind = EM_PATH_ABSENT;
    ember_status status = em_path_probe(parent, &kind);
    uint64_t s = 0;
    if (kind == EM_PATH_DIRECTORY) {
        struct list l;
        status = list_states(parent, clean, &l);
        if (status == EMBER_OK) {
            status = choose(&l, parent, clean, &found, &s);
            list_deinit(&l);
        }
    }
    // A save that was cut between the state and LATEST, or a state that is passed over now.
    if (status == EMBER_OK && found && clean) status = mend_latest(parent, found);
    em_free(parent);
    if (status != EMBER_OK) {
        em_free(found);
        return status;
    }
    *path = found;
    *step = s;
    return EMBER_OK;
}

ember_status em_state_find(const char *dir, char **path, uint64_t *step)
{
    return find(dir, false, path, step);
}

ember_status em_state_recover(const char *dir, char **path, uint64_t *step)
{
    static const char *const folders[] = {".", "best", "training", "cache", "logs", "logs/heldout"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *folder = em_path_join(dir, folders[i]);
        if (!folder) return EMBER_E_NOMEM;
        clean_temporaries(folder);
        em_free(folder);
    }
    return find(dir, true, path, step);
}

// ---- committing ----

// Keeps the KEEP newest up to the state just written. Later ones, of a run that went back, stay:
// the run is deterministic, so they are as good when it gets there. Sizes suffice here: hashes of
// what this run wrote or resumed from were checked then, and reading gigabytes at every save is not
// free.
static ember_status prune(const struct em_state_writer *w)
{
    struct list l;
    EM_TRY(list_states(w->parent, true, &l));
    ember_status status = EMBER_OK;
    size_t kept = 0;
    for (size_t i = 0; i < l.count && status == EMBER_OK; i++) {
        const struct found *f = &l.items[i];
        bool keep;
        if (f->step == w->step && !f->old)
            keep = kept++ < KEEP;
        else if (f->status != EMBER_OK)
            keep = f->status != EMBER_E_FORMAT;
        else if (f->step > w->step)
            keep = true;
        else if (f->step == w->step && f->old)
            keep = false;
        else
            keep = kept++ < KEEP;
        if (!keep) status = discard(f->path);
    }
    list_deinit(&l);
    return status;
}

ember_status em_state_commit(struct em_state_writer *w)
{
    if (!w->temporary) return em_fail(EMBER_E_STATE, "no training state has been begun");
    ember_status status = write_manifest(w);
    if (status == EMBER_OK) status = make_way(w);
    if (status == EMBER_OK && em_io()->rename(w->temporary, w->final) != 0)
        status = em_fail_errno(w->temporary, "cannot rename");
    if (status == EMBER_OK) status = em_sync_directory(w->parent);
    if (status == EMBER_OK) status = point_latest(w->parent, w->final);
    if (status != EMBER_OK) {
        char message[1024]; // removing the temporary may fail too: the first reason is the one to
                            // tell
        strncpy(message, ember_last_error(), sizeof message - 1);
        message[sizeof message - 1] = '\0';
        em_state_abort(w);
        return em_fail(status, "%s", message);
    }
    // The new state is safe: that an old one could not be removed does not undo it.
    if (prune(w) != EMBER_OK) em_warn("%s", ember_last_error());
    forget(w);
    return EMBER_OK;
}

// ---- the model's own folder ----

// By read() and not through a map: a bad sector is then a status and no signal.
static ember_status copy_content(const char *from, int fd, struct em_file *to)
{
    enum { PIECE = 1 << 18 };
    char *piece = em_alloc(PIECE);
    if (!piece) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    while (status == EMBER_OK) {
        const ssize_t n = em_io()->read(fd, piece, PIECE);
        if (n == 0) break;
        if (n > 0)
            status = em_file_write(to, piece, (size_t)n);
        else if (errno != EINTR)
            status = em_fail_errno(from, "cannot read");
    }
    em_free(piece);
    return status;
}

static ember_status copy_file(const char *from, const char *to)
{
    int fd;
    do
        fd = em_io()->open(from, O_RDONLY | O_CLOEXEC, 0);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return em_fail_errno(from, "cannot open");
    struct em_file f;
    ember_status status = em_file_create(to, &f);
    if (status == EMBER_OK) {
        status = copy_content(from, fd, &f);
        if (status == EMBER_OK)
            status = em_file_commit(&f);
        else
            em_file_abort(&f);
    }
    em_io()->close(fd);
    return status;
}

ember_status em_publish_files(const char *from, const char *to, const char *const *names,
                              size_t count)
{
    EM_TRY(em_make_directories(to));
    for (size_t i = 0; i < count; i++) {
        char *source = em_path_join(from, names[i]), *target = em_path_join(to, names[i]);
        enum em_path_kind kind = EM_PATH_ABSENT;
        ember_status status = source && target ? em_path_probe(source, &kind) : EMBER_E_NOMEM;
        if (kind) status = copy_file(source, target);
        em_free(source);
        em_free(target);
        EM_TRY(status);
    }
    return EMBER_OK;
}
