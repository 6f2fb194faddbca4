/* Head selection of VHR, also used by `candid calibrate heads`. */
#ifndef CANDID_INTERVENTIONS_VHR_H
#define CANDID_INTERVENTIONS_VHR_H

#include <stdbool.h>
#include <stdint.h>

#define VHR_MOST_HEADS 4096

struct vhr_rule {
    bool squared;      /* divergence is the squared distance, else the distance */
    bool text_squared; /* the text-only branch's norm is squared, else plain */
    bool filter;       /* drop heads that diverge only because they put out large vectors without an image */
    float guard;       /* filter only if the divergences' standard deviation exceeds this; 0: always */
};

/*
 * Vision-aware head divergence D and the heads whose D exceeds the lower median. own, other: (n_head, head_dim), head
 * outputs of the last prompt row with and without the image. divergence: [n_head], after the filter; selected: [n_head]
 * flags. n_head <= VHR_MOST_HEADS. Returns the number selected.
 */
int vhr_select(const float *own, const float *other, int n_head, int head_dim, const struct vhr_rule *rule,
               float *divergence, uint8_t *selected);

/* Lower median of n values: element (n - 1) / 2 of the sorted list. n <= VHR_MOST_HEADS. */
float vhr_median(const float *values, int n);

/* Token-level VHD: the sum over the layers of the k largest divergences of each. divergence: (n_layer, n_head), n_head
 * <= 4096; a k above n_head counts as n_head. */
double vhr_t_vhd(const float *divergence, int n_layer, int n_head, int k);

#endif
