/*
 * CausalMM's counterfactual visual attention: one weight per patch, by which the features of the negative branch are
 * scaled before the projector.
 *
 * Zhou et al.: Mitigating Modality Prior-Induced Hallucinations in Multimodal Large Language Models via Deciphering
 * Attention Causality, ICLR 2025, arXiv 2410.04780; code The-Martyr/CausalMM, multimodal_encoder/cf_encoder.py
 * (edit_attention, apply_attention). There the probabilities M of one block of the encoder, the one whose output is the
 * features, are edited head by head; each (n, n) map is then read as a picture and interpolated to the grid of patches
 * (bilinear, align_corners = false: of the n * n entries only four per patch matter), and the heads' mean is the
 * weight. The class token's row and column stay in. The weights of probabilities are about 1/n, so that the branch's
 * visual tokens are nearly what the projector makes of zero.
 */
#ifndef CANDID_VISION_CAUSALMM_H
#define CANDID_VISION_CAUSALMM_H

#include <stdbool.h>
#include <stdint.h>

#include "candid/candid.h"

enum causalmm_mode {
    CAUSALMM_SHUFFLE,  /* the head's entries in random order (the released default) */
    CAUSALMM_RANDOM,   /* numbers uniform in [0, 2) */
    CAUSALMM_UNIFORM,  /* the head's mean, which is 1/n because rows of probabilities sum to 1 */
    CAUSALMM_REVERSED, /* the head's greatest entry minus M */
};

/* Whether the weights depend on the map; else it may be NULL. */
bool causalmm_reads_map(enum causalmm_mode mode);

/*
 * map: host (n, n_head, n), row = query token * n_head + head, as the encoder shows its attention. out: host
 * (grid, grid). `stream`: a number of its own for each view of an image, so that they differ under one seed.
 *
 * Of a shuffled map only the entries that matter are drawn, each from those of its head that no other has got: they are
 * distributed as in a random permutation of all.
 */
candid_status causalmm_weights(enum causalmm_mode mode, const float *map, int n_head, int n, int grid, uint64_t seed,
                               uint64_t stream, float *out, candid_error *error);

#endif
