/* Probes of attention rows. The heads of a row are reduced in their order, whoever computed them. */
#include "backend/cpu/attention_probe.h"

#include <string.h>

/* A row without edits has one set of probabilities. */
static bool is_before(const struct attention_row *of, const struct row_probe *probe) {
    return probe->before_edits && of->edits;
}

static bool asks(const struct attention_row *of, bool before) {
    for (int i = 0; i < of->n_probes; i++) {
        if (is_before(of, &of->probes[i]) == before) {
            return true;
        }
    }
    return false;
}

struct probed_rows probed_rows_of(const struct kv_attention *a, size_t stride) {
    struct probed_rows p = {.n_head = a->n_head, .stride = stride};
    for (int i = 0; i < a->n_rows && p.n_sets < 2; i++) {
        const int sets = asks(&a->rows[i], true) ? 2 : a->rows[i].n_probes > 0 ? 1 : 0;
        p.n_sets = sets > p.n_sets ? sets : p.n_sets;
    }
    return p;
}

size_t probed_rows_fit(const struct probed_rows *p, int n_rows) {
    const size_t floats = (size_t)p->n_sets * (size_t)p->n_head * p->stride;
    const size_t fit = floats > 0 ? ATTENTION_SLICE / floats : (size_t)n_rows;
    return fit < 1 ? 1 : fit < (size_t)n_rows ? fit : (size_t)n_rows;
}

static float *set_at(const struct probed_rows *p, int row, int set, int head) {
    const size_t at = ((size_t)row * (size_t)p->n_sets + (size_t)set) * (size_t)p->n_head + (size_t)head;
    return p->probs + at * p->stride;
}

float *probed_before(const struct probed_rows *p, const struct attention_row *of, int row, int head) {
    return p->probs && asks(of, true) ? set_at(p, row, 1, head) : NULL;
}

float *probed_after(const struct probed_rows *p, const struct attention_row *of, int row, int head) {
    return p->probs && asks(of, false) ? set_at(p, row, 0, head) : NULL;
}

void probed_reduce(const struct probed_rows *p, const struct attention_row *of, int row) {
    const int n = attention_row_end(of);
    for (int i = 0; i < of->n_probes; i++) {
        const struct row_probe *probe = &of->probes[i];
        const int set = is_before(of, probe);
        float *values = probe->values;
        memcpy(values, set_at(p, row, set, 0), (size_t)n * sizeof *values);
        for (int head = 1; head < p->n_head; head++) {
            const float *x = set_at(p, row, set, head);
            if (probe->reduce == HEADS_MAX) {
                for (int k = 0; k < n; k++) {
                    values[k] = x[k] > values[k] ? x[k] : values[k];
                }
            } else {
                for (int k = 0; k < n; k++) {
                    values[k] += x[k];
                }
            }
        }
        for (int k = 0; probe->reduce == HEADS_MEAN && k < n; k++) {
            values[k] /= (float)p->n_head;
        }
    }
}
