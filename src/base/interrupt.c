#include "base/interrupt.h"

#include <stdatomic.h>

static atomic_bool requested;

void em_interrupt_set(bool stop)
{
    atomic_store_explicit(&requested, stop, memory_order_relaxed);
}

bool em_interrupted(void)
{
    return atomic_load_explicit(&requested, memory_order_relaxed);
}
