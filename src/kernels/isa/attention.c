// Attention in f32.
#define FORWARD EM_K(attention_f32)
#define SCRATCH EM_K(attention_scratch)
#include "kernels/isa/attention_forward.h"
