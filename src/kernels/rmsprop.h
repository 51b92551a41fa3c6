// One step of RMSprop (Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6).
#ifndef EM_KERNELS_RMSPROP_H
#define EM_KERNELS_RMSPROP_H

struct em_rmsprop {
    float lr, rho, eps;
    float decay;          // decoupled: p loses lr * decay * p; 0 for norms and biases
    float gradient_scale; // the gradient is multiplied by it (clipping)
};

#endif
