// A state's manifest from any bytes: refused, or its names are sorted and stay in their folder.
#include "formats/manifest.h"
#include "fuzz/target.h"

static void target(const uint8_t *data, size_t size)
{
    struct em_manifest m;
    if (em_manifest_parse("MANIFEST.json", (const char *)data, size, &m) != EMBER_OK) {
        require_reason("MANIFEST.json");
        return;
    }
    for (size_t i = 0; i < m.count; i++) {
        const char *name = m.files[i].name;
        if (name[0] == '/' || name[0] == '\0' || strcmp(name, "..") == 0 ||
            strncmp(name, "../", 3) == 0 || strstr(name, "/../"))
            abort();
        if (i > 0 && strcmp(m.files[i - 1].name, name) >= 0) abort();
    }
    em_manifest_deinit(&m);
}
