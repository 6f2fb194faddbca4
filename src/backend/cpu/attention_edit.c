/* Edits of one head's attention row. Sums run in double in an order of their own, so that a row's edit depends on
 * nothing but its own values. */
#include "backend/cpu/attention_edit.h"

#include <math.h>

#include "model/quant.h"

static bool edits_head(const struct attention_edit *e, int head) {
    return !e->heads || e->heads[head];
}

static const uint8_t *head_classes(const struct attention_edit *e, int head) {
    return e->classes + (size_t)head * e->class_stride;
}

int attention_mean_edit(const struct row_edits *edits) {
    int i = 0;
    while (i < edits->n_edits && edits->edits[i].kind != EDIT_SCORES_MEAN_ABS) {
        i++;
    }
    return i;
}

bool attention_edits_need_mean(const struct row_edits *edits) {
    return edits && attention_mean_edit(edits) < edits->n_edits;
}

/* |score|, or 0 for a key between the two ranges a row sees, whose score of -inf stays. */
static float magnitude(float score) {
    return score == -INFINITY ? 0.0f : fabsf(score);
}

void attention_softmax(float *s, int n) {
    float highest = -INFINITY;
    for (int i = 0; i < n; i++) {
        highest = s[i] > highest ? s[i] : highest;
    }
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        s[i] = s[i] == -INFINITY ? 0.0f : expf(s[i] - highest);
        sum += s[i];
    }
    for (int i = 0; i < n; i++) {
        s[i] /= sum;
    }
}

void attention_edit_scores(const struct row_edits *edits, int first, int last, int head, int n_head, float *s,
                           const float *mean_abs, int n) {
    for (int i = first; i < last; i++) {
        const struct attention_edit *e = &edits->edits[i];
        if (e->kind != EDIT_SCORES_ABS && e->kind != EDIT_SCORES_MEAN_ABS) {
            continue;
        }
        edits->moved[(size_t)i * (size_t)n_head + (size_t)head] = edits_head(e, head) ? 0.0f : -1.0f;
        if (!edits_head(e, head)) {
            continue;
        }
        const uint8_t *classes = head_classes(e, head);
        const int classified = n < e->n_classes ? n : e->n_classes;
        for (int j = 0; j < classified; j++) {
            s[j] += e->gain[classes[j]] * (e->kind == EDIT_SCORES_ABS ? magnitude(s[j]) : mean_abs[j]);
        }
        for (int j = classified; j < n && e->gain[0] != 0.0f; j++) {
            s[j] += e->gain[0] * (e->kind == EDIT_SCORES_ABS ? magnitude(s[j]) : mean_abs[j]);
        }
    }
}

/* Mass of each class. Four partial sums each, so that neighbouring keys of one class do not wait for each other. Which
 * one a key goes to depends on how many keys the row sees before it, not on gaps between them. */
static void class_masses(const struct attention_edit *e, const uint8_t *classes, const struct attention_row *row,
                         const float *p, double mass[KEY_CLASSES]) {
    const int classified = row->n_keys < e->n_classes ? row->n_keys : e->n_classes;
    double sums[4][KEY_CLASSES] = {{0}};
    int j = 0;
    for (; j + 4 <= classified; j += 4) {
        for (int k = 0; k < 4; k++) {
            sums[k][classes[j + k]] += (double)p[j + k];
        }
    }
    for (; j < classified; j++) {
        sums[j % 4][classes[j]] += (double)p[j];
    }
    for (; j < row->n_keys; j++) {
        sums[j % 4][0] += (double)p[j];
    }
    for (int n = attention_row_count(row); j < n; j++) {
        const int key = attention_row_key(row, j);
        sums[j % 4][key < e->n_classes ? classes[key] : 0] += (double)p[key];
    }
    for (int c = 0; c < KEY_CLASSES; c++) {
        mass[c] = (sums[0][c] + sums[1][c]) + (sums[2][c] + sums[3][c]);
    }
}

static double mass_of(const double mass[KEY_CLASSES], unsigned set) {
    double sum = 0.0;
    for (int c = 0; c < KEY_CLASSES; c++) {
        sum += set >> c & 1u ? mass[c] : 0.0;
    }
    return sum;
}

static float half(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* The probability moved, or -1 when the condition does not hold. */
static float move(const struct attention_edit *e, const uint8_t *classes, const struct attention_row *row, float *p) {
    const int n = attention_row_end(row);
    double mass[KEY_CLASSES];
    class_masses(e, classes, row, p, mass);
    const double whole = mass_of(mass, e->whole), part = mass_of(mass, e->part), to = mass_of(mass, e->to & ~e->from);
    if (!(whole >= (double)e->min_mass) || !(part / (whole + (double)e->eps) <= (double)e->max_share) || !(to > 0.0) ||
        (e->part && !(part > 0.0))) {
        return -1.0f;
    }
    const double from = mass_of(mass, e->from);
    const double budget = (1.0 - (double)e->keep) * from;
    float factor[KEY_CLASSES];
    for (unsigned c = 0; c < KEY_CLASSES; c++) {
        factor[c] = e->from >> c & 1u ? e->keep : e->to >> c & 1u ? (float)(1.0 + budget / to) : 1.0f;
    }
    const int classified = n < e->n_classes ? n : e->n_classes;
    for (int j = 0; j < classified; j++) {
        p[j] *= factor[classes[j]];
    }
    for (int j = classified; j < n && factor[0] != 1.0f; j++) {
        p[j] *= factor[0];
    }
    return (float)budget;
}

/* The same with every intermediate value rounded to f16, in the order of VAR's released program. */
static float move_f16(const struct attention_edit *e, const uint8_t *classes, const struct attention_row *row,
                      float *p) {
    const int n = attention_row_end(row);
    double mass[KEY_CLASSES];
    for (int j = 0; j < n; j++) {
        p[j] = half(p[j]);
    }
    class_masses(e, classes, row, p, mass);
    const float whole = half((float)mass_of(mass, e->whole)), part = half((float)mass_of(mass, e->part));
    double divisor = 0.0;
    const int whole_keys = n;
    float count = 0.0f;
    for (int j = 0; j < whole_keys; j++) {
        if (e->whole >> (j < e->n_classes ? classes[j] : 0) & 1u) {
            count += 1.0f;
        }
    }
    for (int j = 0; j < n; j++) {
        if (e->whole >> (j < e->n_classes ? classes[j] : 0) & 1u) {
            divisor += (double)half(p[j] + (count > 0.0f ? e->eps / count : 0.0f));
        }
    }
    const float to = half((float)mass_of(mass, e->to & ~e->from));
    if (!(whole >= half(e->min_mass)) || !(half(part / half((float)divisor)) <= half(e->max_share)) || !(to > 0.0f) ||
        (e->part && !(part > 0.0f))) {
        return -1.0f;
    }
    const float lost = 1.0f - e->keep;
    const float of_part = half(half((float)mass_of(mass, e->from & e->part)) * lost);
    const float of_rest = half(half((float)mass_of(mass, e->from & ~e->part)) * lost);
    const float budget = half(of_part + of_rest);
    for (int j = 0; j < n; j++) {
        const unsigned c = 1u << (j < e->n_classes ? classes[j] : 0);
        if (e->from & c) {
            p[j] = half(p[j] * e->keep);
        } else if (e->to & c) {
            p[j] = half(p[j] + half(budget * half(p[j] / to)));
        }
    }
    return budget;
}

void attention_edit_probs(const struct attention_row *row, int layer, int head, int n_head, float *p, float *scratch) {
    for (int i = 0; i < row->edits->n_edits; i++) {
        const struct attention_edit *e = &row->edits->edits[i];
        if (e->kind == EDIT_SCORES_ABS || e->kind == EDIT_SCORES_MEAN_ABS) {
            continue;
        }
        float moved;
        if (!edits_head(e, head)) {
            moved = -1.0f;
        } else if (e->kind == PROBE_PROBS_MASS) {
            double mass[KEY_CLASSES];
            class_masses(e, head_classes(e, head), row, p, mass);
            moved = (float)mass_of(mass, e->whole);
        } else if (e->kind == EDIT_PROBS_REPLACE) {
            moved = attention_replace(e, row, layer, head, p, scratch);
        } else {
            moved = e->round_f16 ? move_f16(e, head_classes(e, head), row, p) : move(e, head_classes(e, head), row, p);
        }
        row->edits->moved[(size_t)i * (size_t)n_head + (size_t)head] = moved;
    }
}
