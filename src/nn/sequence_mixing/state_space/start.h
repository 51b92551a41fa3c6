// How the parameters of state-space layers start, as Mamba's authors have it.
#ifndef EM_NN_STATE_SPACE_START_H
#define EM_NN_STATE_SPACE_START_H

#include <ember/layer.h>

// Uniform within +- bound; `context` is a const float *.
void em_start_uniform(const void *context, ember_random *random, ember_tensor *param);

// The range of log-uniform step sizes. Biases start so that softplus(bias) is such a step.
struct em_start_steps {
    double min, max, floor; // steps below `floor` become it
};
// `context` is a const struct em_start_steps *.
void em_start_step_biases(const void *context, ember_random *random, ember_tensor *param);

// A_log [.., N]: log(n + 1) in each row: A = -1, -2, .. (S4D-Lin's real part). No context.
void em_start_rates(const void *context, ember_random *random, ember_tensor *param);

// 1 / sqrt(fan_in), the bound of torch's linear and convolution layers.
float em_start_bound(size_t fan_in);

#endif
