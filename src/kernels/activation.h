// Which function an activation kernel applies. The order is that of ember_activation_kind.
#ifndef EM_KERNELS_ACTIVATION_H
#define EM_KERNELS_ACTIVATION_H

enum em_activation {
    EM_IDENTITY,
    EM_RELU,
    EM_RELU2, // relu(x)^2
    EM_SILU,
    EM_GELU,      // x Phi(x), by erf
    EM_GELU_TANH, // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    EM_SIGMOID,
    EM_TANH,
    EM_ACTIVATIONS
};

#endif
