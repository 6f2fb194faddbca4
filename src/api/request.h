/*
 * One request on its way: prompt, how its images are seen, what methods do. candid_generate, `candid inspect` and
 * `candid calibrate` take these steps in order: prepare, encode, then run a generation.
 */
#ifndef CANDID_API_REQUEST_H
#define CANDID_API_REQUEST_H

#include "api/handles.h"
#include "decode/generate.h"

/* Release with request_free. */
struct request {
    struct prompt prompt;
    size_t n_images;
    struct visual_plan *views; /* [n_images] */
    struct image_span *spans;  /* [n_images] */
    struct method_needs needs;
    struct vision_tap *taps; /* (n_images, needs.n_vision_blocks) */
    float *of_cls;           /* what they point into */
    struct plan *plan;       /* NULL: no method is active */
    double load_ms, encode_ms;
};

/* Renders and tokenises the prompt and decides how each image is seen. On failure nothing is to be freed. */
candid_status request_prepare(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *params, struct request *out, candid_error *error);

/* Positions of the prompt. */
int64_t request_length(const struct request *r);

/* Encodes the images to c->visual_tokens and compiles the plan; config may be NULL. */
candid_status request_encode(candid_context *c, const candid_image *const *images, struct request *r,
                             const candid_config *config, const struct observer *observer, candid_error *error);

/* Everything of a generation but sampler, length, stream and observer. seq: empty. */
struct generation request_generation(candid_context *c, const struct request *r, struct kv_seq *seq);

/* What the methods did, as JSON text; the caller frees it. */
candid_status request_report(const struct request *r, char **out, candid_error *error);

void request_free(struct request *r);

#endif
