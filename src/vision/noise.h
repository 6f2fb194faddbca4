/*
 * Diffusion noise on the encoder's input: the image of VCD's negative branch.
 *
 * Leng et al.: Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding,
 * CVPR 2024, arXiv 2311.16922; code DAMO-NLP-SG/VCD, vcd_utils/vcd_add_noise.py:
 *
 *     beta_i = (0.005 - 1e-5) sigmoid(y_i) + 1e-5, y = 1000 points from -6 to 6
 *     abar_t = (1 - beta_0) … (1 - beta_t)
 *     x_t    = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, eps ~ N(0, 1)
 *
 * The released program computes the table in f32 and draws eps with torch.randn; here the table is f64 (the two differ
 * by less than 1e-6) and eps comes from a seeded generator of our own. No function of the C library's mathematics but
 * sqrt (exactly rounded) is involved, so the same seed gives the same bits wherever f64 is IEEE 754.
 */
#ifndef CANDID_VISION_NOISE_H
#define CANDID_VISION_NOISE_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

#define NOISE_STEPS 1000

struct noise {
    int step; /* t, from 0 (nearly the image) to 999 (little left of it) */
    uint64_t seed;
};

/* abar_t, the share of the image in the variance of x_t; step in [0, NOISE_STEPS). */
double noise_signal(int step);

/* x_0 becomes x_t: n normalised pixels, in place. Views of one image (LLaVA-NeXT's tiles) have noise of their own. A
 * step outside [0, NOISE_STEPS) is an error. */
candid_status noise_diffuse(const struct noise *noise, int view, float *pixels, size_t n, candid_error *error);

#endif
