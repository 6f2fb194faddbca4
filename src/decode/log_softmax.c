/* Logits to log-probabilities. */
#include "decode/log_softmax.h"

#include <math.h>

/* Below this exp() is no normal f32, and nothing beside a sum of at least 1. */
#define EXP_LOWEST (-104.0f)

void log_softmax(float *x, int n) {
    float greatest = -INFINITY;
    for (int i = 0; i < n; i++) {
        greatest = x[i] > greatest ? x[i] : greatest;
    }
    if (greatest == -INFINITY) {
        return;
    }
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        const float below = x[i] - greatest;
        sum += below > EXP_LOWEST ? exp((double)below) : 0.0;
    }
    const float log_sum = (float)log(sum);
    for (int i = 0; i < n; i++) {
        x[i] = x[i] - greatest - log_sum;
    }
}
