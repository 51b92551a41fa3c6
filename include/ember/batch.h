/** @file batch.h  What a model reads in one pass: packed sequences and their states. */
#ifndef EMBER_BATCH_H
#define EMBER_BATCH_H

#include <ember/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What a sequence leaves behind: keys and values, convolution and recurrent states, its position. A
 * value of one model: copied, kept, continued several times. Threads: many may read, one may write.
 */
typedef struct ember_state ember_state;

/**
 * T tokens of S sequences, back to back, without padding: sequence s is tokens [offset[s],
 * offset[s+1]). All pointers are borrowed. Unused members are NULL.
 */
typedef struct ember_batch {
    size_t n_tokens;        /**< T */
    size_t n_sequences;     /**< S >= 1 */
    const size_t *offset;   /**< [S + 1]: 0 = offset[0] < offset[1] < ... < offset[S] = T */
    const int32_t *tokens;  /**< [T], each in [0, V); NULL for models of `inputs` */
    const float *inputs;    /**< [T, D] instead of tokens */
    const float *timespans; /**< [T], > 0; NULL: 1 everywhere */
    const int32_t
        *targets; /**< [T]: the token to predict at each place; negative: not scored. For losses. */
    const int32_t *labels; /**< [S]: task or domain of each sequence, for routers and reports */
    ember_state *const
        *state_in; /**< [S]: continue from these; NULL, or a NULL entry: a fresh start */
    ember_state *const
        *state_out; /**< [S]: written; may be the same objects as state_in; NULL: not wanted */
} ember_batch;

#ifdef __cplusplus
}
#endif
#endif
