// Finding out why a pass gave numbers that are not finite.
#ifndef EM_MODELS_DIAGNOSE_H
#define EM_MODELS_DIAGNOSE_H

#include "models/model.h"

// The pass that gave them; `run` without states.
struct em_diagnosis {
    enum em_backend backend;
    struct em_pool *pool;
    bool bf16;
    enum em_head head;
    const struct em_run *run;
};

// Only asked when something has failed already, so it may be slow. The weights are looked at, then
// the pass is repeated with every tensor kept, and where all weights are finite its first sequence
// that goes wrong is repeated by the reference backend: that tells a fault of the numbers from one
// of the machine. Writes a clause: "short_conv of layer blocks.0 is the first to give ..".
void em_model_diagnose(const struct em_model *m, const struct em_diagnosis *d, char *text,
                       size_t size);

// The first parameter (in the model's order) with a value that is not finite; NULL: none. *count:
// how many of its values are not.
const struct em_param *em_model_find_bad(const struct em_model *m, size_t *count);

bool em_all_finite(const float *x, size_t n);

#endif
