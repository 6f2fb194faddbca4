/* The steps of a request before and after its generation. */
#include "api/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/sights.h"
#include "core/status.h"
#include "vision/image.h"

void request_free(struct request *r) {
    for (int i = 0; i < r->list.n; i++) {
        struct request_branch *b = &r->branches[i];
        if (b->own_tokens) {
            r->context->backend->ops->release(r->context->backend, b->visual_tokens);
        }
        plan_free(b->plan);
        prompt_free(&b->prompt);
        free(b->spans);
        free(b->views);
    }
    branch_list_free(&r->list);
    plan_free(r->plan);
    prompt_free(&r->prompt);
    free(r->views);
    free(r->spans);
    free(r->taps);
    free(r->of_cls);
    *r = (struct request){0};
}

/* How each image is seen, and what it takes in the sequence. */
static candid_status plan_images(const candid_context *c, const candid_image *const *images, candid_preprocess mode,
                                 struct request *r, candid_error *error) {
    r->views = calloc(r->n_images + 1, sizeof *r->views);
    r->spans = calloc(r->n_images + 1, sizeof *r->spans);
    if (!r->views || !r->spans) {
        return fail_memory(error, "a request", r->n_images * (sizeof *r->views + sizeof *r->spans));
    }
    for (size_t i = 0; i < r->n_images; i++) {
        TRY(visual_plan_make(&c->model->clip, mode, images[i]->width, images[i]->height, &r->views[i], error));
        r->spans[i] = r->views[i].span;
    }
    return CANDID_OK;
}

candid_status request_see(candid_context *c, const candid_image *const *images, candid_preprocess mode,
                          struct request *r, candid_error *error) {
    TRY(plan_images(c, images, mode, r, error));
    for (size_t i = 0; i < r->n_images; i++) {
        r->spans[i].order = r->spans[i].grid_h > 0 ? r->needs.order : IMAGE_RASTER;
    }
    for (int i = 0; i < r->list.n; i++) {
        TRY(sights_plan(c, r, i, error));
    }
    return CANDID_OK;
}

/* ---- prompts ------------------------------------------------------------------------------------- */

/* Tokenises a request in a conversation. */
static candid_status make_prompt(const candid_context *c, const char *conversation, const char *text, size_t n_images,
                                 struct prompt *out, candid_error *error) {
    char *rendered = NULL;
    TRY(prompt_render(conversation, text, n_images, &rendered, error));
    const candid_status status = prompt_tokenize(c->model->tokenizer, rendered, out, error);
    free(rendered);
    return status;
}

/* "prefix request", with the images that the request places in front left there. */
static candid_status put_before(const char *prefix, const char *request, char **out, candid_error *error) {
    size_t lead = 0;
    while (strncmp(request + lead, "<image>", 7) == 0) {
        lead += 7;
        lead += request[lead] == '\n';
    }
    const size_t size = strlen(prefix) + strlen(request) + 2;
    *out = malloc(size);
    if (!*out) {
        return fail_memory(error, "a prompt", size);
    }
    memcpy(*out, request, lead);
    snprintf(*out + lead, size - lead, "%s %s", prefix, request + lead);
    return CANDID_OK;
}

/* What a branch reads. */
static candid_status branch_prompt(const candid_context *c, const char *conversation, const char *request,
                                   const struct request *r, const struct branch *b, struct prompt *out,
                                   candid_error *error) {
    if (b->sight == SIGHT_NONE) {
        return prompt_without_images(&r->prompt, out, error);
    }
    char *text = NULL, *other = NULL;
    candid_status status = CANDID_OK;
    if (b->prefix) {
        status = put_before(b->prefix, request, &text, error);
    }
    if (status == CANDID_OK && b->system) {
        status = prompt_replace_system(conversation, b->system, &other, error);
    }
    if (status == CANDID_OK) {
        status = make_prompt(c, other ? other : conversation,
                             text         ? text
                             : b->request ? b->request
                                          : request,
                             r->n_images, out, error);
    }
    free(text);
    free(other);
    return status;
}

static candid_status prepare(candid_context *c, const candid_image *const *images, const char *prompt,
                             const candid_generate_params *params, struct request *r, candid_error *error) {
    const char *conversation = params->conversation ? params->conversation : model_conversation(c->model);
    const struct decoding given = {.temperature = params->temperature,
                                   .top_k = params->top_k,
                                   .top_p = params->top_p,
                                   .repetition_penalty = params->repetition_penalty};
    TRY(decoding_resolve(params->config, &given, &r->decoding, error));
    TRY(interventions_branches(params->config, prompt, (int)r->n_images, &c->model->log, &r->list, error));
    TRY(decoding_check_branches(&r->decoding, params->config, &r->list, error));
    const char *asked = r->list.main_request ? r->list.main_request : prompt;
    TRY(make_prompt(c, conversation, asked, r->n_images, &r->prompt, error));
    TRY(interventions_needs(params->config, &c->model->facts, &r->needs, error));
    TRY(request_see(c, images, params->preprocess, r, error));
    for (int i = 0; i < r->list.n; i++) {
        TRY(branch_prompt(c, conversation, asked, r, &r->list.branches[i], &r->branches[i].prompt, error));
    }
    return CANDID_OK;
}

candid_status request_prepare(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *params, struct request *out, candid_error *error) {
    if (n_images > 0) {
        TRY(model_check_vision(c->model, error));
    }
    *out = (struct request){.context = c, .n_images = n_images};
    const candid_status status = prepare(c, images, prompt, params, out, error);
    if (status != CANDID_OK) {
        request_free(out);
    }
    return status;
}

/* ---- sizes --------------------------------------------------------------------------------------- */

int64_t request_length(const struct request *r) {
    return prompt_length(&r->prompt, r->spans);
}

candid_status request_check_branches(const struct request *r, candid_error *error) {
    for (int i = 0; i < r->list.n; i++) {
        if (prompt_length(&r->branches[i].prompt, r->branches[i].spans) < 1) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s contrasts with %s, but of the prompt no token is left then",
                        r->list.branches[i].owner->name, r->list.branches[i].name);
        }
    }
    return CANDID_OK;
}

int64_t request_longest(const struct request *r, const char **name) {
    int64_t longest = request_length(r);
    *name = NULL;
    for (int i = 0; i < r->list.n; i++) {
        const int64_t n = prompt_length(&r->branches[i].prompt, r->branches[i].spans);
        if (n > longest) {
            longest = n;
            *name = r->list.branches[i].owner->name;
        }
    }
    return longest;
}

int64_t request_cache_tokens(const struct request *r, int max_new) {
    const int64_t hypotheses = r->decoding.beams > r->decoding.answers ? r->decoding.beams : r->decoding.answers;
    if (hypotheses == 1 && r->list.n == 0) {
        return 0;
    }
    /* OPERA's candidates have slots of their own, and going back builds beams anew beside the old ones */
    const bool opera = r->decoding.strategy == STRATEGY_OPERA;
    const struct opera_options *o = &r->decoding.opera;
    const int64_t each = max_new + 3 * KV_BLOCK + (opera ? o->candidates + max_new + 3 * KV_BLOCK : 0);
    int64_t tokens = opera && o->first_candidates > 0 ? o->first_candidates : 0;
    for (int i = -1; i < r->list.n; i++) {
        const int64_t prompt = i < 0 ? request_length(r) : prompt_length(&r->branches[i].prompt, r->branches[i].spans);
        /* a block begun by the prompt, one by what follows, and one while beams change places */
        tokens += prompt + hypotheses * each;
    }
    return tokens;
}

/* ---- plans --------------------------------------------------------------------------------------- */

static candid_status compile_branch(const candid_context *c, struct request *r, int i, const candid_config *config,
                                    candid_error *error) {
    struct request_branch *to = &r->branches[i];
    struct layout layout = {0};
    candid_status status = layout_from_prompt(&to->prompt, to->spans, &layout, error);
    if (status == CANDID_OK && layout_length(&layout) > 0) {
        status = interventions_compile_branch(config, &c->model->facts, &layout, &r->list.branches[i],
                                              r->decoding.branch_edits, r->taps, (int)r->n_images,
                                              r->needs.n_vision_blocks, &c->model->log, &to->plan, error);
    }
    layout_free(&layout);
    return status;
}

static candid_status compile(const candid_context *c, struct request *r, const candid_config *config,
                             candid_error *error) {
    struct layout layout = {0};
    candid_status status = layout_from_prompt(&r->prompt, r->spans, &layout, error);
    if (status == CANDID_OK && layout_length(&layout) > 0) {
        status = interventions_compile(config, &c->model->facts, &layout, r->taps, (int)r->n_images,
                                       r->needs.n_vision_blocks, &c->model->log, &r->plan, error);
    }
    layout_free(&layout);
    for (int i = 0; status == CANDID_OK && i < r->list.n; i++) {
        status = compile_branch(c, r, i, config, error);
    }
    return status;
}

candid_status request_encode(candid_context *c, const candid_image *const *images, struct request *r,
                             const candid_config *config, const struct observer *observer, candid_error *error) {
    TRY(sights_encode(c, images, r, observer, error));
    r->visual_tokens = c->visual_tokens;
    if (c->model->facts.trained_with_cca && r->n_images > 0 && r->needs.order != IMAGE_RINGS) {
        log_write(&c->model->log, CANDID_LOG_WARN,
                  "%s was trained with concentric causal attention and runs without it; switch cca on", c->model->name);
    }
    return compile(c, r, config, error);
}

candid_status request_encode_again(candid_context *c, const candid_image *const *images, struct request *r,
                                   const struct request *first, const candid_config *config,
                                   const struct observer *observer, candid_error *error) {
    TRY(sights_share(c, images, r, first, observer, error));
    r->visual_tokens = first->visual_tokens;
    return compile(c, r, config, error);
}

struct generation request_generation(candid_context *c, struct request *r, struct kv_seq *seq) {
    for (int i = 0; i < r->list.n; i++) {
        const struct branch *b = &r->list.branches[i];
        const struct request_branch *own = &r->branches[i];
        r->inputs[i] = (struct branch_input){.prompt = &own->prompt,
                                             .images = own->spans,
                                             .visual_tokens = own->visual_tokens,
                                             .plan = plan_acts(own->plan) ? own->plan : NULL,
                                             .weight = b->weight,
                                             .added = b->added,
                                             .cutoff = b->cutoff,
                                             .n_tokens = b->n_tokens};
    }
    return (struct generation){
        .llama = c->llama,
        .weights = &c->model->llama,
        .tokenizer = c->model->tokenizer,
        .backend = c->backend,
        .seq = seq,
        .prompt = &r->prompt,
        .images = r->spans,
        .visual_tokens = r->visual_tokens,
        .plan = plan_acts(r->plan) ? r->plan : NULL,
        .branches = r->inputs,
        .n_branches = r->list.n,
        .decoding = r->decoding,
    };
}
