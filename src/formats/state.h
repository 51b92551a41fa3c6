// Training states: DIR/training/step-N/, each a folder with a manifest. It is filled as step-N.tmp,
// its manifest is written last, and then it is renamed: a state is there whole or not at all. Two
// are kept.
#ifndef EM_FORMATS_STATE_H
#define EM_FORMATS_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

// A state being written. begin, write files into it by any durable writer at em_state_file's paths,
// then commit; abort removes what there is. One at a time for a DIR (its owner holds DIR's lock).
struct em_state_writer {
    char *parent;    // DIR/training
    char *temporary; // DIR/training/step-N.tmp
    char *final;     // DIR/training/step-N
    uint64_t step;
};
ember_status em_state_begin(const char *dir, uint64_t step,
                            struct em_state_writer *w) EMBER_CHECKED;
char *em_state_file(const struct em_state_writer *w,
                    const char *name); // owned; NULL: out of memory

// Makes it the newest: files hashed and fsynced, MANIFEST.json, rename, fsync of the parent,
// LATEST. Then all but the two newest whole states are removed. On failure the states before are as
// they were, and the temporary is gone. A state of the same step is replaced (it stays as
// step-N.old until the new one is whole).
ember_status em_state_commit(struct em_state_writer *w) EMBER_CHECKED;
void em_state_abort(struct em_state_writer *w); // fine after a commit and on {0}

// The newest state in DIR that is whole, judged by manifest and hashes. A newer one that is not
// whole is skipped with a note. *path is owned, and NULL when there is none (also when DIR has no
// training/). EMBER_E_UNSUPPORTED: the newest is whole, but of a later version of the format.
// EMBER_E_FORMAT, EMBER_E_IO: there are states, and none is whole or can be read.
ember_status em_state_find(const char *dir, char **path, uint64_t *step) EMBER_CHECKED;

// As find, for the owner of DIR before it goes on: also removes what interrupted writes left (in
// the folders of a run) and the damaged states that were skipped, and makes training/LATEST name
// it.
ember_status em_state_recover(const char *dir, char **path, uint64_t *step) EMBER_CHECKED;

// Replaces the files `names` of folder `to` (made if absent) by those of `from`, each durably, in
// this order. A name that `from` lacks is skipped.
ember_status em_publish_files(const char *from, const char *to, const char *const *names,
                              size_t count) EMBER_CHECKED;

#endif
