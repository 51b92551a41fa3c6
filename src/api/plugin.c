// Loading plug-ins: the file is looked at, then opened, then everything that it describes, and only
// then do its components exist.
#include <ember/operation.h>
#include <ember/plugin.h>

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <string.h>

#include <ember/ops.h>
#include <ember/runtime.h>

#include "base/alloc.h"
#include "base/io.h"
#include "nn/build.h"

// The sizes that EMBER_PLUGIN_ABI stands for: who changes one changes the number.
_Static_assert(EMBER_PLUGIN_ABI == 2 &&
                   (sizeof(void *) != 8 ||
                    (sizeof(ember_option) == 72 && sizeof(ember_layer_type) == 72 &&
                     sizeof(ember_layer) == 112 && sizeof(ember_tensor) == 104 &&
                     sizeof(ember_routing) == 48 && sizeof(ember_batch) == 80 &&
                     sizeof(ember_operation) == 64 && sizeof(ember_use) == 40 &&
                     sizeof(ember_state_spec) == 32 && sizeof(ember_slot) == 32 &&
                     sizeof(ember_filling) == 32 && sizeof(ember_topk_options) == 64 &&
                     sizeof(ember_rope_options) == 64 && sizeof(ember_attention_options) == 16 &&
                     EMBER_KINDS == 14)),
               "the interface of plug-ins has changed: EMBER_PLUGIN_ABI needs a new number");

enum { MAX_LAYERS = 1024, MAX_VERSION = 63 };

// The loader maps what the headers promise and would read past the end of a file that was cut.
static ember_status check_elf(const char *path, const struct em_map *map)
{
    ElfW(Ehdr) head;
    if (map->size < sizeof head || memcmp(map->data, ELFMAG, SELFMAG) != 0)
        return em_fail(EMBER_E_FORMAT, "%s: not a shared object", path);
    memcpy(&head, map->data, sizeof head);
    if (head.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        head.e_type != ET_DYN || head.e_phentsize != sizeof(ElfW(Phdr)))
        return em_fail(EMBER_E_FORMAT, "%s: not a shared object of this machine's kind", path);
    for (size_t i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) part;
        size_t at, end;
        if (!em_add_size((size_t)head.e_phoff, i * sizeof part, &at) ||
            !em_add_size(at, sizeof part, &end) || end > map->size)
            return em_fail(EMBER_E_FORMAT, "%s: a shared object that was cut short", path);
        memcpy(&part, map->data + at, sizeof part);
        if (!em_add_size((size_t)part.p_offset, (size_t)part.p_filesz, &end) || end > map->size)
            return em_fail(EMBER_E_FORMAT, "%s: a shared object that was cut short", path);
    }
    return EMBER_OK;
}

static ember_status check_file(const char *path)
{
    struct em_map map;
    EM_TRY(em_map_open(path, &map));
    const ember_status status = check_elf(path, &map);
    em_map_close(&map);
    return status;
}

// dlerror() begins with the path, or is about another file that this one needs.
static ember_status refuse_open(const char *path, const char *opened)
{
    const char *text = dlerror();
    const size_t length = strlen(opened);
    if (!text) text = "the loader does not say why";
    if (strncmp(text, opened, length) == 0 && strncmp(text + length, ": ", 2) == 0)
        text += length + 2;
    return em_fail(EMBER_E_FORMAT, "%s: cannot be loaded as a plug-in: %s", path, text);
}

static ember_status check_descriptor(const ember_plugin_descriptor *d, const char *path)
{
    if (d->abi != EMBER_PLUGIN_ABI)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: a plug-in for interface %u; this library (%s) has interface %d", path,
                       d->abi, ember_version(), EMBER_PLUGIN_ABI);
    if (!em_name_is_plain(d->name))
        return em_fail(EMBER_E_CONFIG, "%s: a plug-in without a name like [a-z][a-z0-9_]*", path);
    if (!d->version || !*d->version || strnlen(d->version, MAX_VERSION + 1) > MAX_VERSION ||
        strpbrk(d->version, "\n\r\t\""))
        return em_fail(EMBER_E_CONFIG, "%s: the plug-in %s has no version of one line", path,
                       d->name);
    if (!d->layers || !d->layers[0])
        return em_fail(EMBER_E_CONFIG, "%s: the plug-in %s brings no components", path, d->name);
    return EMBER_OK;
}

static ember_status add_components(const ember_plugin_descriptor *d, const char *path,
                                   struct em_plugin *plugin, struct em_component **components)
{
    size_t n = 0, capacity = 0;
    for (; d->layers[n]; n++) {
        if (n == MAX_LAYERS)
            return em_fail(EMBER_E_CONFIG, "%s: more than %d components, or no NULL ends them",
                           path, MAX_LAYERS);
        EM_TRY(em_layer_type_check(d->layers[n], path));
        EM_TRY(em_grow(components, &capacity, n + 1, sizeof **components));
        (*components)[n] = em_layer_component(d->layers[n], plugin);
    }
    *plugin = (struct em_plugin){d->name, d->version};
    const ember_status status = em_registry_add(*components, n);
    return status == EMBER_OK ? status : em_fail_in(status, "%s", path);
}

static ember_status add(const ember_plugin_descriptor *d, const char *path)
{
    if (em_registry_plugin(d->name))
        return em_fail(EMBER_E_STATE, "%s: a plug-in called %s is loaded already", path, d->name);
    struct em_component *components = NULL;
    struct em_plugin *plugin = em_calloc(1, sizeof *plugin);
    if (!plugin) return EMBER_E_NOMEM;
    const ember_status status = add_components(d, path, plugin, &components);
    if (status != EMBER_OK) {
        em_free(components);
        em_free(plugin);
    }
    return status; // what was registered lives as long as the program
}

static ember_status open_and_add(const char *path, const char *opened)
{
    EM_TRY(check_file(path));
    void *object = dlopen(opened, RTLD_NOW | RTLD_LOCAL);
    if (!object) return refuse_open(path, opened);
    const ember_plugin_descriptor *d = dlsym(object, "ember_plugin");
    ember_status status =
        d ? check_descriptor(d, path)
          : em_fail(EMBER_E_FORMAT, "%s: defines no ember_plugin, so it is no plug-in", path);
    // The loader gives one object for one file, however often and by whatever name it is opened.
    const struct em_plugin *same = status == EMBER_OK ? em_registry_plugin(d->name) : NULL;
    const bool again = same && same->name == d->name;
    if (status == EMBER_OK && !again) status = add(d, path);
    if (status != EMBER_OK || again) dlclose(object);
    return status;
}

ember_status ember_plugin_load(const char *path)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    EM_TRY(ember_start());
    // A bare name would be looked for in the system's folders.
    char *opened = strchr(path, '/') ? em_strdup(path) : em_path_join(".", path);
    if (!opened) return EMBER_E_NOMEM;
    pthread_mutex_lock(&lock);
    const ember_status status = open_and_add(path, opened);
    pthread_mutex_unlock(&lock);
    em_free(opened);
    return status;
}
