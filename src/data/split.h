// Which tokens of a domain are held out (see data/dataset.h).
#ifndef EM_DATA_SPLIT_H
#define EM_DATA_SPLIT_H

#include "data/dataset.h"

enum { EM_SPLIT_WHOLE_DOCUMENTS = 50 }; // with so many documents, whole ones are held out

// Fills the domain's spans and sums from its cache. share <= 0: none, >= 1: everything.
ember_status em_split_domain(struct em_domain *domain, double share,
                             const uint16_t *token_bytes) EMBER_CHECKED;

#endif
