/* Finished hypotheses of a beam search. Scores are f64 where the original computes with Python numbers. */
#include "decode/beam_scorer.h"

#include <stdlib.h>

#include "core/status.h"

void beam_list_offer(struct beam_list *list, struct beam_option option) {
    int at = list->n;
    if (at == list->capacity) {
        if (at == 0 || !(option.score > list->items[at - 1].score)) {
            return;
        }
        at--; /* the last one goes */
    } else {
        list->n++;
    }
    for (; at > 0 && option.score > list->items[at - 1].score; at--) {
        list->items[at] = list->items[at - 1];
    }
    list->items[at] = option;
}

candid_status hypothesis_create(float sum, int length, int n, int32_t end_token, struct hypothesis **out,
                                candid_error *error) {
    const size_t bytes = sizeof **out + (size_t)n * sizeof(int32_t);
    struct hypothesis *h = malloc(bytes);
    if (!h) {
        return fail_memory(error, "a hypothesis", bytes);
    }
    *h = (struct hypothesis){.n_owners = 1, .score = (double)sum / length, .end_token = end_token, .n = n};
    *out = h;
    return CANDID_OK;
}

static void hypothesis_release(struct hypothesis *h) {
    if (--h->n_owners == 0) {
        free(h);
    }
}

candid_status beam_scorer_init(struct beam_scorer *s, int n_beams, candid_error *error) {
    const size_t n = (size_t)n_beams + 1;
    *s = (struct beam_scorer){.n_beams = n_beams, .kept = calloc(n, sizeof *s->kept)};
    return s->kept ? CANDID_OK : fail_memory(error, "finished hypotheses", n * sizeof *s->kept);
}

static void forget(struct beam_scorer *s) {
    for (int i = 0; i < s->n_kept; i++) {
        hypothesis_release(s->kept[i]);
    }
    s->n_kept = 0;
}

void beam_scorer_free(struct beam_scorer *s) {
    forget(s);
    free(s->kept);
    *s = (struct beam_scorer){0};
}

void beam_scorer_copy(struct beam_scorer *to, const struct beam_scorer *from) {
    for (int i = 0; i < from->n_kept; i++) { /* first, so that none both keep is released */
        from->kept[i]->n_owners++;
    }
    forget(to);
    for (int i = 0; i < from->n_kept; i++) {
        to->kept[i] = from->kept[i];
    }
    to->n_kept = from->n_kept;
}

/* The lowest score, the earlier among equal ones. */
static int find_worst(const struct beam_scorer *s) {
    int worst = 0;
    for (int i = 1; i < s->n_kept; i++) {
        if (s->kept[i]->score < s->kept[worst]->score) {
            worst = i;
        }
    }
    return worst;
}

void beam_scorer_add(struct beam_scorer *s, struct hypothesis *h) {
    if (s->n_kept == s->n_beams && !(h->score > s->kept[find_worst(s)]->score)) {
        hypothesis_release(h);
        return;
    }
    s->kept[s->n_kept++] = h;
    if (s->n_kept > s->n_beams) {
        const int gone = find_worst(s);
        hypothesis_release(s->kept[gone]);
        s->n_kept--;
        for (int i = gone; i < s->n_kept; i++) {
            s->kept[i] = s->kept[i + 1];
        }
    }
}

bool beam_scorer_is_done(const struct beam_scorer *s, float best_sum, int length) {
    return s->n_kept == s->n_beams && s->kept[find_worst(s)]->score >= (double)best_sum / length;
}

/* Whether hypothesis a is ranked before b. */
static bool ranks_before(const struct beam_scorer *s, int a, int b) {
    return s->kept[a]->score > s->kept[b]->score || (s->kept[a]->score == s->kept[b]->score && a > b);
}

const struct hypothesis *beam_scorer_ranked(const struct beam_scorer *s, int rank) {
    for (int i = 0; i < s->n_kept; i++) {
        int better = 0;
        for (int j = 0; j < s->n_kept; j++) {
            better += ranks_before(s, j, i);
        }
        if (better == rank) {
            return s->kept[i];
        }
    }
    return NULL;
}
