/* Token selection of PAINT. */
#ifndef CANDID_INTERVENTIONS_PAINT_H
#define CANDID_INTERVENTIONS_PAINT_H

#include <stdint.h>

/*
 * summary_score, local_score: [n] attention of the class token to each patch. Writes to cells [n]: 2 for summary
 * patches (the c largest, c = how many exceed Q3 + 1.5 IQR), 1 for local ones (the n_local largest of local_score that
 * are no summary), else 0. Ties go to the lower index. Returns the number of summary patches, or -1 when memory is
 * short.
 */
int paint_select(const float *summary_score, const float *local_score, int n, int n_local, uint8_t *cells);

#endif
