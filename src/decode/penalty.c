/* Repetition penalty. */
#include "decode/penalty.h"

static void apply(float *scores, bool *seen, const int32_t *ids, size_t n, float penalty) {
    for (size_t i = 0; i < n; i++) {
        float *x = &scores[ids[i]];
        if (!seen[ids[i]]) {
            *x = *x < 0 ? *x * penalty : *x / penalty;
            seen[ids[i]] = true;
        }
    }
}

static void forget(bool *seen, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        seen[ids[i]] = false;
    }
}

void penalise_repetition(float *scores, bool *seen, const int32_t *prompt, size_t n_prompt, const int32_t *answer,
                         size_t n_answer, float penalty) {
    if (penalty != 1) {
        apply(scores, seen, prompt, n_prompt, penalty);
        apply(scores, seen, answer, n_answer, penalty);
        forget(seen, prompt, n_prompt);
        forget(seen, answer, n_answer);
    }
}
