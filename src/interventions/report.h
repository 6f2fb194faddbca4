/* Parts of the report of what methods did, an object by method: the runtime's and that of hosts. */
#ifndef CANDID_INTERVENTIONS_REPORT_H
#define CANDID_INTERVENTIONS_REPORT_H

#include "interventions/branch.h"

/* The method's entry, made if it is not there; NULL: no memory. */
cJSON *report_entry(cJSON *all, const char *method);

/* Contrasts that have no branch, and why. all may be NULL. */
void report_idle(const struct branch_list *list, cJSON *all);

/* What a branch came to. */
struct branch_tally {
    int n_prompt, n_shared; /* positions of its prompt; of them, shared with the answer's row, -1: not known */
    int64_t n_contrasted;   /* rows of logits it was contrasted with */
    int64_t n_rows;         /* rows of logits in all */
    int64_t n_removed;      /* tokens that the cut-offs removed from them */
};

/* asked: what the answer's row was asked in place of the user's text, or NULL. */
void report_branch(const struct branch *b, const struct branch_tally *tally, const char *asked, cJSON *all);

/* n_plain: beams that took plain logits; rollbacks: (n_rollbacks) tokens there were, and after going back. */
void report_opera(int n_rewarded, int n_penalised, int n_plain, const int (*rollbacks)[2], int n_rollbacks, cJSON *all);

#endif
