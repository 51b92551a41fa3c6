// A request to stop, set from a signal handler and polled by long loops.
#ifndef EM_BASE_INTERRUPT_H
#define EM_BASE_INTERRUPT_H

#include <stdbool.h>

void em_interrupt_set(bool stop);
bool em_interrupted(void);

#endif
