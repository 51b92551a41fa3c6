// What is done to a batch after it was drawn: sequences cut shorter for a warm-up of lengths, and
// strands of DNA read the other way. Functions of the step alone, as the batch is.
#ifndef EM_DATA_AUGMENT_H
#define EM_DATA_AUGMENT_H

#include "data/packed.h"
#include "text/tokenizer.h"

// Cuts every sequence into ones of at most `most` tokens. Tokens, targets and their bytes stay.
void em_packed_cut(struct em_packed *p, size_t most);

// The length of sequences at `step`: `first`, twice as long after every `stage` steps, until
// `last`.
size_t em_warmup_length(uint64_t step, size_t first, size_t stage, size_t last);

// id -> the id of the complementary nucleotide, -1: none.
struct em_complement {
    int32_t *id; // owned
    size_t size;
};
// EMBER_E_CONFIG: the tokenizer's tokens are not single characters with A, C, G and T among them.
ember_status em_complement_open(const struct em_tokenizer *tokenizer,
                                struct em_complement *c) EMBER_CHECKED;
void em_complement_close(struct em_complement *c);

// With the chance `share` for each sequence, its nucleotides are reversed and complemented: what it
// is trained to say then is the other strand. Tokens that are no nucleotides stay in their places.
// `place` is that of the batch's first token in its step.
void em_packed_reverse_complement(struct em_packed *p, const struct em_complement *c, double share,
                                  uint64_t seed, uint64_t step, size_t place);

#endif
