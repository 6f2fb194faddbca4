/*
 * A sequence group: the rows that are decoded together.
 *
 * There are n hypotheses (1 in greedy search, the samples, or the beams) times lanes: the answer's own lane and one for
 * every branch it is contrasted with. Each (lane, hypothesis) has its own KV cache; prefixes are shared copy-on-write.
 * All rows of a step go through one forward pass, and reordering moves all lanes of a hypothesis together. Hypotheses
 * may also answer several questions: each then goes on from its own question's prompt.
 *
 *                hypothesis 0   hypothesis 1   …
 *   main lane    row 0          row 1               z    own positions, the request's plan
 *   branch 1     row n          row n+1             n_1  own positions and plan
 */
#ifndef CANDID_DECODE_GROUP_H
#define CANDID_DECODE_GROUP_H

#include "decode/generate.h"

struct group;

/*
 * Reads the prompts of all lanes of n_questions generations, which are alike but for prompts, plans and sequences;
 * there is one hypothesis for each then, in their order. gs is borrowed; each seq stays the caller's and is empty or
 * holds the first positions of its prompt. capacity: most hypotheses there will be.
 */
candid_status group_create(const struct generation *gs, int n_questions, int capacity, struct group **out,
                           candid_error *error);
void group_free(struct group *group);

int group_size(const struct group *group);

/* Contrasted logits of every hypothesis, host (n, n_vocab); the caller may change them. Valid until the next step. */
float *group_logits(struct group *group);

/* The new hypotheses: number i goes on from the old number parents[i]. A parent may be repeated or left out; n may be
 * larger or smaller than before. Their logits are not moved, but there is room for n rows of them (group_logits). On
 * failure nothing changes. */
candid_status group_reorder(struct group *group, const int *parents, int n, candid_error *error);

/* Feeds tokens[i] to hypothesis i, in all lanes. On failure nothing changes. */
candid_status group_step(struct group *group, const int32_t *tokens, candid_error *error);

/* Adds a branch to a group of one question that has generated tokens already: reads its prompt and, for hypothesis i,
 * tokens[i] (n_tokens each, as the main lane has). The branch counts from the next step on. */
candid_status group_join(struct group *group, struct branch_input *branch, const int32_t *const *tokens, int n_tokens,
                         candid_error *error);

/* Bytes of keys and values that a step reads, and rows it has. */
double group_kv_bytes(const struct group *group);
int group_rows(const struct group *group);

#endif
