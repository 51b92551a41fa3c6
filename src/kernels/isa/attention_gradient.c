// The gradients of attention in f32.
#define BACKWARD EM_K(attention_backward_f32)
#define SCRATCH EM_K(attention_backward_scratch)
#include "kernels/isa/attention_backward.h"
