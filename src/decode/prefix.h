/*
 * What several prompts have in common: the first positions that need to be read only once.
 */
#ifndef CANDID_DECODE_PREFIX_H
#define CANDID_DECODE_PREFIX_H

#include "decode/generate.h"

/* Positions that two prompts have in common and that no plan of theirs changes. At least `least_own` of b's are left.
 */
int prefix_shared(const struct generation *a, const struct generation *b, int least_own);

/* The same for all n prompts, such that they can be read by themselves. */
int prefix_shared_by_all(const struct generation *gs, int n, int least_own);

/* The method because of which position `shared` of a prompt cannot be shared, or NULL. plan may be NULL. */
const char *prefix_blocker(const struct plan *plan, int shared);

/* Reads the first n_rows positions of the n prompts, the same in all of them, into `seq` (empty), and tells each of the
 * n plans what its probes would have seen there. */
candid_status prefix_read(const struct generation *gs, int n, int n_rows, struct kv_seq *seq, candid_error *error);

#endif
