/* The numbers of OPERA. */
#include "decode/opera_metric.h"

#include <math.h>

#include "model/quant.h"

float round_f16(float x) {
    return f16_to_f32(f32_to_f16(x));
}

void opera_extend(const float *before, const struct opera_row *row, int t, float scale, float *after) {
    for (int j = 0; j <= t; j++) {
        const float factor = scale * (row->local[j] / row->sum);
        /* a zero ends a column, also one whose product has become infinite */
        after[j] = j == t || factor == 0.0f ? factor : before[j] * factor;
    }
}

float opera_column_score(float product, const struct opera_options *o) {
    const float score = o->score_scale * product;
    return o->score_fp16 ? round_f16(score) : score;
}

struct opera_column opera_strongest(const float *products, int n, const struct opera_options *o) {
    struct opera_column best = {.phi = -1.0f};
    for (int j = 0; j < n; j++) {
        const float score = opera_column_score(products[j], o);
        if (score > best.phi) {
            best = (struct opera_column){.phi = score, .index = j};
        }
    }
    if (o->phi_max > 0.0f && best.phi > o->phi_max) {
        best.phi = o->phi_max;
    }
    return best;
}

float opera_candidate_score(float logit, float image_share, float phi, int length, const struct opera_options *o) {
    if (o->alpha == 0.0f) { /* an infinite phi, too, weighs nothing */
        return logit;
    }
    const float score = length <= o->image_reward_len ? logit + o->alpha * image_share : logit - o->alpha * phi;
    return o->logits_fp16 ? round_f16(score) : score;
}

int opera_mode(const int *values, int n) {
    int mode = values[0], most = 0;
    for (int i = 0; i < n; i++) {
        int count = 0;
        for (int j = 0; j < n; j++) {
            count += values[j] == values[i];
        }
        if (count > most || (count == most && values[i] < mode)) {
            mode = values[i];
            most = count;
        }
    }
    return mode;
}

float opera_lowest(const float *x, int n) {
    float lowest = INFINITY;
    for (int i = 0; i < n; i++) {
        lowest = x[i] < lowest && x[i] > -INFINITY ? x[i] : lowest;
    }
    return lowest;
}

void opera_shift(float *logits, int n, bool f16) {
    float shift = opera_lowest(logits, n) - OPERA_FLOOR;
    shift = f16 ? round_f16(shift) : shift;
    for (int i = 0; i < n; i++) {
        if (logits[i] > -INFINITY) {
            logits[i] = f16 ? round_f16(logits[i] - shift) : logits[i] - shift;
        }
    }
}
