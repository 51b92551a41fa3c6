// One step of AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101).
#ifndef EM_KERNELS_ADAMW_H
#define EM_KERNELS_ADAMW_H

struct em_adamw {
    float lr, beta1, beta2, eps;
    float decay;                    // decoupled: p loses lr * decay * p; 0 for norms and biases
    float gradient_scale;           // the gradient is multiplied by it (clipping)
    float correction1, correction2; // 1 - beta1^t, 1 - beta2^t for step t = 1, 2, ..
};

#endif
