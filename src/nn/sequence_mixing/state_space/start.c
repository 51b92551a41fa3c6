#include "nn/sequence_mixing/state_space/start.h"

#include <math.h>

static float *values(ember_tensor *t, size_t *n)
{
    *n = ember_tensor_count(t);
    return t->data;
}

float em_start_bound(size_t fan_in)
{
    return 1.0f / sqrtf((float)fan_in);
}

void em_start_uniform(const void *context, ember_random *random, ember_tensor *param)
{
    const double bound = (double)*(const float *)context;
    size_t n;
    float *w = values(param, &n);
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(bound * (2 * ember_random_uniform(random) - 1));
}

void em_start_step_biases(const void *context, ember_random *random, ember_tensor *param)
{
    const struct em_start_steps *s = context;
    const double low = log(s->min), high = log(s->max);
    size_t n;
    float *w = values(param, &n);
    for (size_t i = 0; i < n; i++) {
        const double dt = fmax(exp(low + (high - low) * ember_random_uniform(random)), s->floor);
        w[i] = (float)(dt + log(-expm1(-dt))); // softplus of it is dt
    }
}

void em_start_rates(const void *context, ember_random *random, ember_tensor *param)
{
    (void)context, (void)random;
    const size_t N = param->dim[param->ndim - 1];
    size_t n;
    float *w = values(param, &n);
    for (size_t i = 0; i < n; i++)
        w[i] = (float)log((double)(i % N + 1));
}
