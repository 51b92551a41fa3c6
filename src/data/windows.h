// Held-out tokens for evaluation, each scored once: documents are cut into windows of `context`
// places, each starting from a fresh state; windows are packed into batches. A document's first
// token is scored where a BOS precedes it, and is not counted where nothing does.
#ifndef EM_DATA_WINDOWS_H
#define EM_DATA_WINDOWS_H

#include "data/dataset.h"
#include "data/packed.h"

struct em_windows_options {
    size_t context;      // places a window, >= 1
    size_t batch_tokens; // a batch holds at most so many; at least one window
    uint64_t limit;      // 0: everything; else about so many places of a domain, by windows spread
                         // evenly over it
};

// Position of a walk; a value. The dataset is borrowed.
struct em_windows {
    const struct em_dataset *dataset;
    struct em_windows_options options;
    size_t domain, end_domain; // domains still to be walked
    size_t span;
    uint64_t at;           // in the span
    uint64_t window;       // of this domain, counted
    uint64_t count, taken; // windows of this domain: all, and those to give
};

// Walks one domain, or all of them (SIZE_MAX), in order. A batch never mixes domains.
void em_windows_init(struct em_windows *w, const struct em_dataset *dataset, size_t domain,
                     const struct em_windows_options *options);

// The next batch; its labels are the domain, its bytes sum over all batches to the domain's
// held_out_bytes (without a limit). *more = false, and an empty batch, at the end.
ember_status em_windows_next(struct em_windows *w, struct em_packed *out, bool *more) EMBER_CHECKED;

#endif
