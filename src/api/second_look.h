/* Look-twice controllers: the first pass tells where to look, the second is the request itself with another image. */
#ifndef CANDID_API_SECOND_LOOK_H
#define CANDID_API_SECOND_LOOK_H

#include "api/request.h"
#include "interventions/look_twice.h"

/* What the second pass asks; release with second_look_free. */
struct second_look {
    const struct look_options *options;
    candid_image *refined;
    const candid_image *images[2]; /* the first n_images are asked about */
    size_t n_images;
    char *prompt;
    struct image_box box; /* of the refined image in the original */
    double load_ms, encode_ms, prefill_ms;
};

/*
 * Runs the first pass over the one image of a request (else CANDID_ERROR_ARGUMENT) and fills *out. params: of the
 * request; the first pass is greedy and carries no methods.
 */
candid_status second_look(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                          const candid_generate_params *params, const struct look_options *options,
                          struct second_look *out, candid_error *error);
void second_look_free(struct second_look *look);

/* The prompt with places for the `n` images (1 or 2) of the second pass, if it has one for the image. *out: the
 * caller's, to free(). */
candid_status second_look_prompt(const char *prompt, size_t n, char **out, candid_error *error);

#endif
