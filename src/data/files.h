// From what a user names (a file, a folder, a glob) to the files to read.
#ifndef EM_DATA_FILES_H
#define EM_DATA_FILES_H

#include <stddef.h>

#include "base/fail.h"

struct em_file_list {
    char **paths; // sorted; owned
    size_t count, capacity;
    size_t links, hidden,
        special; // passed over inside folders: symbolic links, names with a dot, devices
};

void em_file_list_deinit(struct em_file_list *list);

// Appends the files of `path`. What the user names is followed wherever it leads; inside a folder
// symbolic links and hidden names are passed over and counted, so that a folder from elsewhere
// cannot bring in files from outside itself, nor loop. A name with *, ? or [ that does not exist is
// matched, component by component. EMBER_E_IO: no such file, EMBER_E_FORMAT: nothing matches, or a
// folder without files.
ember_status em_files_expand(const char *path, struct em_file_list *list) EMBER_CHECKED;

// The name of the domain that `path` makes: its last component; of a glob, that of the folder it
// looks in. Owned; NULL: out of memory.
char *em_domain_name(const char *path);

#endif
