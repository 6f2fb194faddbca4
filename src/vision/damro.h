/*
 * DAMRO's outlier tokens: the patches that the class token of the image encoder looks at most.
 *
 * Gong et al.: DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object Hallucination, EMNLP 2024, arXiv
 * 2410.04514; code coder-gx/DAMRO. The attention is CLIP_PROBE_CLS_WIDE of vision/clip.h in the block whose output is
 * the features; the negative branch sees visual_gather() of the chosen tokens in this order.
 */
#ifndef CANDID_VISION_DAMRO_H
#define CANDID_VISION_DAMRO_H

/* The k greatest of attention [n] to out [k], in descending order, ties to the lower index, NaN last. Returns how many
 * there are: k, or n where that is less. */
int damro_select(const float *attention, int n, int k, int *out);

#endif
