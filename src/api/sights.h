/* What the rows of a request see: visual tokens of the images as they are, and as branches are shown them. */
#ifndef CANDID_API_SIGHTS_H
#define CANDID_API_SIGHTS_H

#include "api/request.h"

/* Decides what branch i sees: fills its spans, and its views where its images have another size. */
candid_status sights_plan(const candid_context *c, struct request *r, int i, candid_error *error);

/* Makes room for n_tokens tokens in c->visual_tokens, and the encoder itself at the first image. */
candid_status sights_make_room(candid_context *c, size_t n_tokens, candid_error *error);

/* Encodes the images to c->visual_tokens, and for every branch what it sees of them. */
candid_status sights_encode(candid_context *c, const candid_image *const *images, struct request *r,
                            const struct observer *observer, candid_error *error);

/* The same for a request about the images of `first`, which was encoded last: what does not depend on the question is
 * taken from there, and remains `first`'s. */
candid_status sights_share(candid_context *c, const candid_image *const *images, struct request *r,
                           const struct request *first, const struct observer *observer, candid_error *error);

#endif
