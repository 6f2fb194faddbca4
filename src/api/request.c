/* The steps of a request before and after its generation. */
#include "api/request.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/image.h"

void request_free(struct request *r) {
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

candid_status request_prepare(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *params, struct request *out, candid_error *error) {
    if (n_images > 0 && !c->model->has_vision) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s has no image encoder: open the model with mmproj_path to ask about images",
                    gguf_path(c->model->lm_file));
    }
    struct request r = {.n_images = n_images};
    const char *conversation = params->conversation     ? params->conversation
                               : c->model->conversation ? c->model->conversation
                                                        : "vicuna_v1";
    char *text = NULL;
    TRY(prompt_render(conversation, prompt, n_images, &text, error));
    candid_status status = prompt_tokenize(c->model->tokenizer, text, &r.prompt, error);
    free(text);
    if (status == CANDID_OK) {
        status = plan_images(c, images, params->preprocess, &r, error);
    }
    if (status == CANDID_OK) {
        status = interventions_needs(params->config, &c->model->facts, &r.needs, error);
    }
    for (size_t i = 0; status == CANDID_OK && i < n_images; i++) {
        r.spans[i].order = r.spans[i].grid_h > 0 ? r.needs.order : IMAGE_RASTER;
    }
    if (status != CANDID_OK) {
        request_free(&r);
        return status;
    }
    *out = r;
    return CANDID_OK;
}

int64_t request_length(const struct request *r) {
    return prompt_length(&r->prompt, r->spans);
}

/* Makes room for n_tokens visual tokens, and the encoder itself at the first image. */
static candid_status prepare_vision(candid_context *c, size_t n_tokens, candid_error *error) {
    const struct candid_model *m = c->model;
    if (!c->visual) {
        TRY(visual_create(&m->clip, m->llama.n_embd, c->backend, &c->visual, error));
    }
    if (n_tokens > c->visual_capacity) {
        c->backend->ops->release(c->backend, c->visual_tokens);
        c->visual_tokens = NULL;
        c->visual_capacity = 0;
        void *memory;
        TRY(c->backend->ops->alloc(c->backend, n_tokens * (size_t)m->llama.n_embd * sizeof(float), &memory, error));
        c->visual_tokens = memory;
        c->visual_capacity = n_tokens;
    }
    return CANDID_OK;
}

static candid_status make_taps(const candid_context *c, struct request *r, candid_error *error) {
    const size_t n_patches = (size_t)model_image_tokens(c->model), n = r->n_images * (size_t)r->needs.n_vision_blocks;
    r->taps = calloc(n + 1, sizeof *r->taps);
    r->of_cls = calloc(n * n_patches + 1, sizeof *r->of_cls);
    if (!r->taps || !r->of_cls) {
        return fail_memory(error, "the class token's attention", n * n_patches * sizeof *r->of_cls);
    }
    for (size_t i = 0; i < n; i++) {
        r->taps[i] = (struct vision_tap){.block = r->needs.vision_blocks[i % (size_t)r->needs.n_vision_blocks],
                                         .n = (int)n_patches,
                                         .of_cls = r->of_cls + i * n_patches};
    }
    return CANDID_OK;
}

static candid_status encode_images(candid_context *c, const candid_image *const *images, struct request *r,
                                   const struct observer *observer, candid_error *error) {
    size_t n_tokens = 0;
    for (size_t i = 0; i < r->n_images; i++) {
        n_tokens += (size_t)r->spans[i].n_tokens;
    }
    TRY(make_taps(c, r, error));
    if (n_tokens == 0) {
        return CANDID_OK;
    }
    TRY(prepare_vision(c, n_tokens, error));
    float *tokens = c->visual_tokens;
    const int n_taps = r->needs.n_vision_blocks;
    candid_status status = CANDID_OK;
    for (size_t i = 0; status == CANDID_OK && i < r->n_images; i++) {
        const struct clip_taps taps = {r->needs.vision_blocks, n_taps,
                                       n_taps ? r->taps[i * (size_t)n_taps].of_cls : NULL};
        visual_tap(c->visual, n_taps ? &taps : NULL);
        status = visual_encode(c->visual, images[i], &r->views[i], tokens, observer, &r->load_ms, &r->encode_ms, error);
        visual_tap(c->visual, NULL);
        tokens += (size_t)r->spans[i].n_tokens * (size_t)c->model->llama.n_embd;
    }
    return status;
}

candid_status request_encode(candid_context *c, const candid_image *const *images, struct request *r,
                             const candid_config *config, const struct observer *observer, candid_error *error) {
    TRY(encode_images(c, images, r, observer, error));
    if (c->model->facts.trained_with_cca && r->n_images > 0 && r->needs.order != IMAGE_RINGS) {
        log_write(&c->model->log, CANDID_LOG_WARN,
                  "%s was trained with concentric causal attention and runs without it; switch cca on", c->model->name);
    }
    struct layout layout = {0};
    candid_status status = layout_from_prompt(&r->prompt, r->spans, &layout, error);
    if (status == CANDID_OK && layout_length(&layout) > 0) {
        status = interventions_compile(config, &c->model->facts, &layout, r->taps, (int)r->n_images,
                                       r->needs.n_vision_blocks, &c->model->log, &r->plan, error);
    }
    layout_free(&layout);
    return status;
}

struct generation request_generation(candid_context *c, const struct request *r, struct kv_seq *seq) {
    return (struct generation){
        .llama = c->llama,
        .weights = &c->model->llama,
        .tokenizer = c->model->tokenizer,
        .backend = c->backend,
        .seq = seq,
        .prompt = &r->prompt,
        .images = r->spans,
        .visual_tokens = c->visual_tokens,
        .plan = r->plan,
    };
}

candid_status request_report(const struct request *r, char **out, candid_error *error) {
    cJSON *report = interventions_report(r->plan);
    char *text = report ? cJSON_PrintUnformatted(report) : NULL;
    cJSON_Delete(report);
    *out = text ? strdup(text) : NULL;
    cJSON_free(text);
    return *out ? CANDID_OK : fail_memory(error, "the report of the methods", 0);
}
