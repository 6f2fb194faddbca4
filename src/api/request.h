/*
 * One request on its way: prompt, how its images are seen, what methods do. candid_generate, `candid inspect` and
 * `candid calibrate` take these steps in order: prepare, encode, then run a generation.
 */
#ifndef CANDID_API_REQUEST_H
#define CANDID_API_REQUEST_H

#include "api/handles.h"
#include "decode/generate.h"

/* A branch that the answer's row is contrasted with. */
struct request_branch {
    struct prompt prompt;
    struct image_span *spans;  /* [n_images] */
    struct visual_plan *views; /* [n_images] of the images it sees, where those have another size */
    float *visual_tokens;      /* device: its own, or the context's where it sees what the main row sees */
    bool own_tokens;           /* visual_tokens is released with the request */
    struct plan *plan;
};

/* Release with request_free. */
struct request {
    candid_context *context;
    struct prompt prompt;
    size_t n_images;
    struct visual_plan *views; /* [n_images] */
    struct image_span *spans;  /* [n_images] */
    struct method_needs needs;
    struct vision_tap *taps; /* (n_images, needs.n_vision_blocks) */
    float *of_cls;           /* what they point into */
    struct plan *plan;       /* of the active methods, which may be without effect; NULL: none */
    struct decoding decoding;
    struct branch_list list; /* what the branches are */
    struct request_branch branches[MAX_BRANCHES];
    struct branch_input inputs[MAX_BRANCHES]; /* what the generation gets of them, and counts */
    float *visual_tokens;                     /* device: of all images; the context's, or of a family of requests */
    double load_ms, encode_ms;
    const struct second_look *look; /* the first look that led to this request, or NULL; borrowed */
};

/* Renders and tokenises the prompts, decides how each image is seen and how the answer is searched for. On failure
 * nothing is to be freed. */
candid_status request_prepare(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *params, struct request *out, candid_error *error);

/* The part of it that decides how the images are seen, by the answer's row and by r->list's branches; r->n_images and
 * r->needs are set. What it made is freed with the request, also after a failure. */
candid_status request_see(candid_context *c, const candid_image *const *images, candid_preprocess mode,
                          struct request *r, candid_error *error);

/* Positions of the answer's prompt. */
int64_t request_length(const struct request *r);

/* Whether every branch has something to read; else CANDID_ERROR_ARGUMENT. */
candid_status request_check_branches(const struct request *r, candid_error *error);

/* Positions of the longest prompt of all. *name: the method whose branch has it, NULL: it is the answer's. */
int64_t request_longest(const struct request *r, const char **name);

/* Tokens of KV cache that all rows of the request take with max_new generated tokens; 0: those of the context are
 * enough. */
int64_t request_cache_tokens(const struct request *r, int max_new);

/* Encodes the images to c->visual_tokens and compiles the plans; config may be NULL. */
candid_status request_encode(candid_context *c, const candid_image *const *images, struct request *r,
                             const candid_config *config, const struct observer *observer, candid_error *error);

/* The same for a request about the same images as `first`, which was encoded last: only what depends on the question is
 * encoded anew. The request must not outlive `first`. */
candid_status request_encode_again(candid_context *c, const candid_image *const *images, struct request *r,
                                   const struct request *first, const candid_config *config,
                                   const struct observer *observer, candid_error *error);

/* Everything of a generation but length, stop strings, text function and observer. seq: empty. */
struct generation request_generation(candid_context *c, struct request *r, struct kv_seq *seq);

/* What the methods did, as JSON text; the caller frees it. out: of the generation, or NULL. */
candid_status request_report(const struct request *r, const struct generated *out, char **text, candid_error *error);

void request_free(struct request *r);

/* ---- parts of candid_generate ---- */

/* The public result with the memory behind its pointers. */
struct result {
    candid_result public; /* the first field */
    char *interventions;
    candid_answer *answers; /* [out.n_answers] */
    struct generated out;
};

/* Checks parameters that need no model. */
candid_status request_check_params(const candid_generate_params *p, candid_error *error);

/* How many tokens may be generated, or the error that the request does not fit. */
candid_status request_fit(const candid_context *c, const struct request *r, int requested, int *max_new,
                          candid_error *error);

/* The fields that candid.h promises, from what was generated into r->out. */
candid_status request_publish(const struct request *request, struct result *r, candid_error *error);

#endif
