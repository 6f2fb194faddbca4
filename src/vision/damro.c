/* The greatest values in order. */
#include "vision/damro.h"

#include <math.h>
#include <stdbool.h>

/* Whether i comes before j. */
static bool precedes(const float *x, int i, int j) {
    const float a = isnan(x[i]) ? -INFINITY : x[i], b = isnan(x[j]) ? -INFINITY : x[j];
    return a > b || (a == b && i < j);
}

int damro_select(const float *attention, int n, int k, int *out) {
    int found = 0;
    for (; found < k && found < n; found++) { /* k is 10 or so */
        int best = -1;
        for (int i = 0; i < n; i++) {
            const bool is_left = found == 0 || precedes(attention, out[found - 1], i);
            if (is_left && (best < 0 || precedes(attention, i, best))) {
                best = i;
            }
        }
        out[found] = best;
    }
    return found;
}
