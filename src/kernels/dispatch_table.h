// One table, for dispatch.c: included once per instruction set with EM_ISA defined, hence no guard.
#include "kernels/kernels_isa.h"

#define EM_KERNEL(result, name, parameters) result EM_K(name) parameters;
#include "kernels/list.def"
#undef EM_KERNEL

#define EM_TABLE_PASTE(isa) table_##isa
#define EM_TABLE_EXPAND(isa) EM_TABLE_PASTE(isa)
#define EM_TABLE_STRING(isa) #isa
#define EM_TABLE_NAME(isa) EM_TABLE_STRING(isa)

static const struct em_kernels EM_TABLE_EXPAND(EM_ISA) = {
    .isa = EM_TABLE_NAME(EM_ISA),
#define EM_KERNEL(result, name, parameters) .name = EM_K(name),
#define EM_TRAINING_KERNEL(result, name, parameters) .name = EMBER_TRAINING ? EM_K(name) : NULL,
#include "kernels/list.def"
#undef EM_KERNEL
};

#undef EM_TABLE_PASTE
#undef EM_TABLE_EXPAND
#undef EM_TABLE_STRING
#undef EM_TABLE_NAME
