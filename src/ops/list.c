// The table of operations.
#include "ops/op.h"

const struct em_op *const em_ops[] = {
#define EM_OP(symbol) &em_op_##symbol,
#include "ops/list.def"
#undef EM_OP
};
const size_t em_ops_count = sizeof em_ops / sizeof em_ops[0];
