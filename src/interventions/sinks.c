/* Search for sink dimensions. */
#include "interventions/sinks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define FIRST_LAYER 2

/* What was seen of one (layer, dimension). */
struct seen {
    int prompts;     /* where it exceeded tau */
    int last_prompt; /* the last such prompt, 1-based */
    double phi;      /* sum over the prompts of the highest value */
    float highest;   /* of the current prompt */
};

struct sink_search {
    int n_layer, n_embd, n_prompts;
    float tau, highest;
    struct seen *of_first; /* (n_layer, n_embd) first tokens */
    struct seen *of_any;   /* (n_layer, n_embd) the highest of all tokens */
};

candid_status sink_search_create(int n_layer, int n_embd, float tau, struct sink_search **out, candid_error *error) {
    struct sink_search *s = calloc(1, sizeof *s);
    const size_t n = (size_t)n_layer * (size_t)n_embd;
    if (s) {
        s->of_first = calloc(n, sizeof *s->of_first);
        s->of_any = calloc(n, sizeof *s->of_any);
    }
    if (!s || !s->of_first || !s->of_any) {
        sink_search_free(s);
        return fail_memory(error, "the search for sinks", 2 * n * sizeof(struct seen));
    }
    s->n_layer = n_layer;
    s->n_embd = n_embd;
    s->tau = tau > 0.0f ? tau : fminf(20.0f, 0.3125f * sqrtf((float)n_embd));
    *out = s;
    return CANDID_OK;
}

void sink_search_free(struct sink_search *s) {
    if (s) {
        free(s->of_first);
        free(s->of_any);
        free(s);
    }
}

void sink_search_begin(struct sink_search *s) {
    s->n_prompts++;
}

static void look(struct sink_search *s, struct seen *seen, const float *x, double scale) {
    for (int d = 0; d < s->n_embd; d++) {
        const float phi = (float)(fabs((double)x[d]) * scale);
        if (phi <= s->tau) {
            continue;
        }
        if (seen[d].last_prompt != s->n_prompts) {
            seen[d].last_prompt = s->n_prompts;
            seen[d].prompts++;
            seen[d].highest = 0.0f;
        }
        if (phi > seen[d].highest) {
            seen[d].phi += (double)(phi - seen[d].highest);
            seen[d].highest = phi;
        }
    }
}

void sink_search_rows(struct sink_search *s, int layer, int first, const float *x, int n_rows) {
    if (layer < FIRST_LAYER || layer >= s->n_layer - 1) {
        return;
    }
    const size_t at = (size_t)layer * (size_t)s->n_embd;
    for (int r = 0; r < n_rows; r++) {
        const float *row = x + (size_t)r * (size_t)s->n_embd;
        double square = 0.0, highest = 0.0;
        for (int d = 0; d < s->n_embd; d++) {
            square += (double)row[d] * (double)row[d];
            highest = fmax(highest, fabs((double)row[d]));
        }
        const double scale = 1.0 / sqrt(square / s->n_embd + 1e-6);
        s->highest = fmaxf(s->highest, (float)(highest * scale));
        if (first + r == 0) {
            look(s, s->of_first + at, row, scale);
        }
        look(s, s->of_any + at, row, scale);
    }
}

/* Negative: x comes before y. */
static int by_phi(const struct sink_dim *x, const struct sink_dim *y) {
    return x->phi == y->phi ? x->dim - y->dim : x->phi < y->phi ? 1 : -1;
}

/* Keeps the `most` highest in out, highest first; returns their number. */
static int keep_highest(struct sink_dim *out, int n, int most, struct sink_dim found) {
    int at = n;
    while (at > 0 && by_phi(&found, &out[at - 1]) < 0) {
        at--;
    }
    if (at == most) {
        return n;
    }
    const int moved = (n < most ? n : most - 1) - at;
    memmove(out + at + 1, out + at, (size_t)moved * sizeof *out);
    out[at] = found;
    return n < most ? n + 1 : most;
}

static int consistent(const struct sink_search *s, const struct seen *seen, struct sink_dim *out, int most) {
    const int n_layers = s->n_layer - 1 - FIRST_LAYER;
    int n = 0;
    for (int d = 0; d < s->n_embd && s->n_prompts > 0; d++) {
        struct sink_dim found = {.dim = d, .from = -1};
        double phi = 0.0;
        for (int l = FIRST_LAYER; l < s->n_layer - 1; l++) {
            const struct seen *one = &seen[(size_t)l * (size_t)s->n_embd + (size_t)d];
            if (one->prompts == s->n_prompts) {
                found.n_layers++;
                found.from = found.from < 0 ? l : found.from;
                found.to = l;
                phi += one->phi / s->n_prompts;
            }
        }
        if (found.n_layers > 0 && 2 * found.n_layers >= n_layers) {
            found.phi = (float)(phi / found.n_layers);
            n = keep_highest(out, n, most, found);
        }
    }
    return n;
}

int sink_search_result(const struct sink_search *s, struct sink_dim *out, int most, bool *first_token) {
    const int n = consistent(s, s->of_first, out, most);
    *first_token = n > 0;
    return n > 0 ? n : consistent(s, s->of_any, out, most);
}

float sink_search_tau(const struct sink_search *s) {
    return s->tau;
}

float sink_search_highest(const struct sink_search *s) {
    return s->highest;
}
